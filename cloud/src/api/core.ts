import type { Logger } from '@outrider/shared/log';
import type { Clock } from '@outrider/shared/time';
import type { AlertDesk } from '../alert/alert-desk.ts';
import type { CertificateRegistry } from '../certificates/registry.ts';
import type { CommandDispatcher } from '../command/dispatcher.ts';
import type { FleetOverview } from '../dashboard/overview.ts';
import type { LiveTickets } from '../dashboard/tickets.ts';
import type { EventReader } from '../events/ports.ts';
import type { FailsafeDispatcher } from '../failsafe/dispatcher.ts';
import type { InstructionKeys } from '../failsafe/instruction-keys.ts';
import type { FailsafeRecoverer } from '../failsafe/recoverer.ts';
import type { BlackBoxes } from '../fleet/blackboxes.ts';
import type { Decommissioner } from '../fleet/decommissioner.ts';
import type { RobotRegistry } from '../fleet/registry.ts';
import type { Accounts } from '../identity/accounts.ts';
import type { Authenticator } from '../identity/authenticator.ts';
import type { SigningKeys } from '../identity/signing-keys.ts';
import type { Tokens } from '../identity/tokens.ts';
import type { WebhookDesk } from '../notify/webhook-desk.ts';
import type { LiveFeed, TelemetryIngest, TelemetryReader } from '../telemetry/ports.ts';
import type { ApiMetrics } from './middleware/metrics.ts';
import type { Readiness } from './system/readiness.ts';
import type { Throttle } from './throttle.ts';

/** The operations that the surfaces translate to and from. */
export interface Core {
  readonly accounts: Accounts;
  readonly alerts: AlertDesk;
  readonly webhooks: WebhookDesk;
  readonly authenticator: Authenticator;
  readonly certificates: CertificateRegistry;
  readonly commands: CommandDispatcher;
  readonly failsafe: FailsafeDispatcher;
  readonly recoverer: FailsafeRecoverer;
  readonly instructionKeys: InstructionKeys;
  readonly events: EventReader;
  readonly overview: FleetOverview;
  readonly ingest: TelemetryIngest;
  readonly live: LiveFeed;
  readonly metrics: ApiMetrics;
  readonly reader: TelemetryReader;
  readonly readiness: Readiness;
  readonly robots: RobotRegistry;
  readonly decommissioner: Decommissioner;
  /** Absent from a server without a folder for files. */
  readonly blackboxes?: BlackBoxes;
  readonly signingKeys: SigningKeys;
  /** One for every way in, so that a caller's requests count together. */
  readonly throttle: Throttle;
  readonly tickets: LiveTickets;
  readonly tokens: Tokens;
  readonly clock: Clock;
  readonly log: Logger;
  /** Where callers find us; known once the listeners are open. */
  readonly urls: () => PublicUrls;
}

export interface PublicUrls {
  /** `https://fleet.example.com`, without a slash at the end. */
  readonly http: string;
  /** `mqtts://fleet.example.com:8883` */
  readonly mqtt: string;
}
