import type { OpenAPIHono } from '@hono/zod-openapi';
import type { Logger } from '@outrider/shared/log';
import type { Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { Registry } from 'prom-client';
import type { Alerts } from './alert/open-alerts.ts';
import { createApi } from './api/api.ts';
import type { Core, PublicUrls } from './api/core.ts';
import { ApiMetrics } from './api/middleware/metrics.ts';
import type { ApiEnv } from './api/surface.ts';
import { type Check, Readiness } from './api/system/readiness.ts';
import { Throttle } from './api/throttle.ts';
import type { DeviceBus } from './broker/bus.ts';
import type { CertificateRegistry } from './certificates/registry.ts';
import { CommandCourier } from './command/courier.ts';
import { CommandDispatcher } from './command/dispatcher.ts';
import { readCommandFacts } from './command/facts.ts';
import { CommandWatchers } from './command/watchers.ts';
import { FleetOverview } from './dashboard/overview.ts';
import { OverviewWarmer } from './dashboard/overview-warmer.ts';
import { levelOf } from './dashboard/service-levels.ts';
import { StreamHub } from './dashboard/stream-hub.ts';
import { LiveTickets } from './dashboard/tickets.ts';
import { EventFeed } from './events/event-feed.ts';
import { AuditQueue } from './failsafe/audit-queue.ts';
import { FailsafeDispatcher } from './failsafe/dispatcher.ts';
import type { InstructionKeys } from './failsafe/instruction-keys.ts';
import { InstructionLine } from './failsafe/instruction-line.ts';
import { FailsafeRecoverer } from './failsafe/recoverer.ts';
import { BlackBoxes } from './fleet/blackboxes.ts';
import { Decommissioner } from './fleet/decommissioner.ts';
import { failsafeOf } from './fleet/readings.ts';
import { RobotRegistry } from './fleet/registry.ts';
import { RobotRoster } from './fleet/roster.ts';
import { Accounts } from './identity/accounts.ts';
import { Authenticator, type AuthMode } from './identity/authenticator.ts';
import { DEFAULT_TENANT_ID } from './identity/bootstrap.ts';
import { KeyKeeper } from './identity/key-keeper.ts';
import type { IdentityStore, SecretBox } from './identity/ports.ts';
import { SecretVerifier } from './identity/secrets.ts';
import { SigningKeys } from './identity/signing-keys.ts';
import { Tokens } from './identity/tokens.ts';
import { SqlCommandStore } from './storage/command-store.ts';
import { type Database, isDataError } from './storage/database.ts';
import { SqlEventLog } from './storage/event-store.ts';
import { FolderFiles } from './storage/files.ts';
import { PgFleetStore } from './storage/fleet-store.ts';
import { PgIdentityStore } from './storage/identity-store.ts';
import { PgInstructionStore } from './storage/instruction-store.ts';
import { SqlOverviewStore } from './storage/overview-store.ts';
import type { LiveFeed, TelemetryIngest, TelemetryReader } from './telemetry/ports.ts';

/** Tokens keep their meaning when the server's address changes, so neither is a URL. */
const ISSUER = 'urn:outrider:cloud';
const AUDIENCE = 'urn:outrider:api';

export interface Identity {
  readonly store: IdentityStore;
  readonly keys: SigningKeys;
  readonly tokens: Tokens;
  readonly accounts: Accounts;
}

/** Tenants, accounts and tokens on a database. */
export async function assembleIdentity(database: Database, secrets: SecretBox, clock: Clock): Promise<Identity> {
  const store = new PgIdentityStore(database.orm);
  const keys = new SigningKeys(store, secrets, clock);
  await keys.open();
  const tokens = new Tokens(keys, store, clock, { issuer: ISSUER, audience: AUDIENCE });
  await tokens.refreshRevocations();
  return { store, keys, tokens, accounts: new Accounts(store, tokens, new SecretVerifier()) };
}

export interface ApiParts {
  readonly identity: Identity;
  readonly database: Database;
  readonly bus: DeviceBus;
  readonly certificates: CertificateRegistry;
  readonly instructionKeys: InstructionKeys;
  readonly alerts: Alerts;
  readonly ingest: TelemetryIngest;
  readonly reader: TelemetryReader;
  readonly live: LiveFeed;
  readonly authMode: AuthMode;
  readonly urls: () => PublicUrls;
  readonly checks: readonly Check[];
  readonly metrics: Registry;
  readonly clock: Clock;
  readonly log: Logger;
  readonly version: string;
  readonly startedMs: number;
  readonly answerTimeoutMs?: number;
  /** Where large things are kept. */
  readonly filesDirectory?: string;
  readonly recoverTimeoutMs?: number;
}

export interface AssembledApi {
  readonly app: OpenAPIHono<ApiEnv>;
  readonly core: Core;
  readonly streams: StreamHub;
  /** What must run while the server does, in the order in which to stop it. */
  readonly services: readonly Service[];
}

/** The HTTP side of the control plane over its parts. */
export function assembleApi(parts: ApiParts): AssembledApi {
  const { identity, bus, clock, log, live } = parts;
  const fleetStore = new PgFleetStore(parts.database, clock);
  const metrics = new ApiMetrics(parts.metrics);
  const authenticator = new Authenticator(identity.tokens, identity.store, clock, parts.authMode, DEFAULT_TENANT_ID);
  const line = new InstructionLine({
    bus,
    keys: parts.instructionKeys,
    store: new PgInstructionStore(parts.database),
    clock,
    log,
  });
  const audit = new AuditQueue({ store: fleetStore, isDataError, log });
  const roster = new RobotRoster(fleetStore, log);
  const recoverer = new FailsafeRecoverer({
    bus,
    line,
    audit,
    reports: {
      async reportedFailsafe(robotPk) {
        const said = failsafeOf(await parts.reader.shadow(robotPk));
        return said?.motion_epoch == null ? undefined : { motionEpoch: said.motion_epoch, atMs: said.at };
      },
    },
    clock,
    log,
    ...(parts.recoverTimeoutMs === undefined ? {} : { timeoutMs: parts.recoverTimeoutMs }),
  });
  const failsafe = new FailsafeDispatcher({
    bus,
    line,
    audit,
    store: fleetStore,
    clock,
    log,
    ...(parts.answerTimeoutMs === undefined ? {} : { answerTimeoutMs: parts.answerTimeoutMs }),
  });
  const commandStore = new SqlCommandStore(parts.database);
  const watchers = new CommandWatchers(log);
  const courier = new CommandCourier({ store: commandStore, bus, line, watchers, clock, log });
  const commands = new CommandDispatcher({
    store: commandStore,
    courier,
    watchers,
    facts: (robot, needsJoints) =>
      readCommandFacts(
        {
          readRobot: (tenantId, robotId) => fleetStore.readRobot(tenantId, robotId),
          reader: parts.reader,
          motionEpoch: async (ref) => (await recoverer.known(ref))?.motionEpoch,
        },
        robot,
        needsJoints,
      ),
    bus,
    audit,
    clock,
    log,
  });
  const streams = new StreamHub({
    feed: live,
    recheck: (secret) => authenticator.authenticateSecret(secret),
    clock,
    log,
    counters: {
      onDropped: (reason) => metrics.streamsDropped.inc({ reason }),
      onSkipped: () => metrics.streamsSkipped.inc(),
      onSent: (seconds) => metrics.streamLagSeconds.observe(seconds),
    },
  });
  metrics.gauge('outrider_live_streams', 'Live streams that are open.', () => streams.clientCount);
  metrics.gauge('outrider_failsafe_pending', 'Stops that no robot has answered yet.', () => failsafe.pendingCount);
  metrics.gauge('outrider_audit_waiting', 'Audit lines that are not in the database yet.', () => audit.waitingCount);
  metrics.gauge('outrider_audit_dropped', 'Audit lines there was no room for.', () => audit.droppedCount);
  metrics.gauge('outrider_roster_robots', 'Robots that a stop can find without the database.', () => roster.size);
  const robots = new RobotRegistry(fleetStore, fleetStore, clock, roster);
  const events = new EventFeed({ log: new SqlEventLog(parts.database), clock, logger: log });
  const databaseCheck: Check = { name: 'database', run: () => parts.database.ping() };
  const overview = new FleetOverview({
    store: new SqlOverviewStore(parts.database),
    levels: metrics.levels,
    decision: () => levelOf(parts.metrics, 'outrider_decision_window_seconds', { since: 'recorded' }),
    now: () => clock.epochMs(),
  });
  const core: Core = {
    accounts: identity.accounts,
    alerts: parts.alerts.desk,
    webhooks: parts.alerts.webhooks,
    authenticator,
    certificates: parts.certificates,
    commands,
    failsafe,
    recoverer,
    instructionKeys: parts.instructionKeys,
    events,
    overview,
    ingest: parts.ingest,
    live,
    metrics,
    reader: parts.reader,
    readiness: new Readiness([databaseCheck, ...parts.checks], () => clock.monotonicMs()),
    robots,
    decommissioner: new Decommissioner({
      robots,
      store: fleetStore,
      certificates: parts.certificates,
      audit: fleetStore,
      clock,
    }),
    ...(parts.filesDirectory === undefined
      ? {}
      : { blackboxes: new BlackBoxes(new FolderFiles(parts.filesDirectory)) }),
    signingKeys: identity.keys,
    throttle: new Throttle(identity.store, () => clock.monotonicMs()),
    tickets: new LiveTickets(clock),
    tokens: identity.tokens,
    clock,
    log,
    urls: parts.urls,
  };
  const app = createApi(core, streams, { version: parts.version, startedMs: parts.startedMs });
  return {
    app,
    core,
    streams,
    services: [
      streams,
      events,
      line,
      failsafe,
      recoverer,
      courier,
      audit,
      roster,
      new OverviewWarmer(overview, () => roster.countByTenant(), log),
      new KeyKeeper(identity.keys, identity.tokens, log),
      ...parts.alerts.services,
    ],
  };
}
