import { errorMessage } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { presenceTopic } from '@outrider/shared/protocol/topics';
import { Backoff, pause, type Service } from '@outrider/shared/service';
import type { Clock, EpochMs } from '@outrider/shared/time';
import type { CommandDesk } from '../commands/command-desk.ts';
import type { Outbox } from '../outbox/outbox.ts';
import type { LaneName } from '../outbox/records.ts';
import { Budget, type BudgetSettings, type BudgetView } from './budget.ts';
import { type MqttLink, openMqttLink } from './mqtt-link.ts';
import { HelloRefused, presenceReport, Session, type SessionOptions } from './session.ts';
import { Suspicion } from './suspicion.ts';

/** After a refusal only a person can change something, so there is no hurry. */
const REFUSED_PAUSE_MS = 60_000;
const GOODBYE_TIMEOUT_MS = 1000;
/** A connection that held this long, or on which something was acknowledged, makes the next delay short again. */
const STABLE_MS = 10_000;
const NOT_ENROLLED_PAUSE_MS = 1000;
const NO_LIMIT: BudgetSettings = { bytesPerSMax: 0, isMetered: false, meteredBytesPerSMax: 0 };

/** What the robot shows to the broker. All PEM. */
export interface UplinkIdentity {
  readonly mqttUrl: string;
  readonly privateKey: string;
  readonly certificate: string;
  readonly ca: string;
}

export interface UplinkOptions {
  readonly device: DeviceIdentity;
  readonly bootId: string;
  readonly agentVersion: string;
  readonly windowBatches: number;
  readonly ackTimeoutMs: number;
  readonly helloTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly keepaliveS: number;
  readonly backoffFirstMs: number;
  readonly backoffMaxMs: number;
  /** Read before each connection; `undefined` while the robot is not enrolled. */
  readonly identity: () => UplinkIdentity | undefined;
  readonly outbox: Outbox;
  readonly commands: CommandDesk;
  /** What the link may carry of telemetry. Absent: all. */
  readonly budget?: BudgetSettings;
  readonly clock: Clock;
  readonly log: Logger;
  /** A connection could not be opened: perhaps the certificate has ended. Called often; must not throw. */
  readonly onConnectFailed?: () => void;
  /** What the cloud's clock is ahead of ours, at each hello. [ms] */
  readonly onClockSkew?: (skewMs: number) => void;
  readonly onAck?: (lane: LaneName, latencyMs: number) => void;
}

export const LINK_STATES = ['not_enrolled', 'connecting', 'online', 'offline', 'refused'] as const;
export type LinkState = (typeof LINK_STATES)[number];

export interface LinkStatus {
  readonly state: LinkState;
  readonly since: EpochMs;
  /** Why it is not online, for a person. */
  readonly reason: string;
  readonly connections: number;
}

/** Keeps the robot connected and its outbox draining, for as long as it takes. */
export class Uplink implements Service {
  readonly name = 'uplink';
  readonly #options: UplinkOptions;
  readonly #backoff: Backoff;
  readonly #suspicion = new Suspicion();
  readonly #budget: Budget;
  #session: Session | undefined;
  #link: MqttLink | undefined;
  #status: LinkStatus;
  #listeners: ((status: LinkStatus) => void)[] = [];

  constructor(options: UplinkOptions) {
    this.#options = options;
    this.#budget = new Budget(options.budget ?? NO_LIMIT, options.clock);
    this.#backoff = new Backoff(options.backoffFirstMs, options.backoffMaxMs);
    this.#status = { state: 'connecting', since: options.clock.epochMs(), reason: '', connections: 0 };
    options.outbox.onCommit(() => this.#session?.pump());
  }

  status(): LinkStatus {
    return this.#status;
  }

  budget(): BudgetView {
    return this.#budget.view();
  }

  onStatus(listener: (status: LinkStatus) => void): void {
    this.#listeners.push(listener);
  }

  /** Connects again, for instance with a new certificate. */
  reconnect(): void {
    this.#link?.destroy();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const pauseMs = await this.#connectOnce(signal);
      if (!signal.aborted) await pause(pauseMs, signal);
    }
    this.#become('offline', 'stopped');
  }

  /** One connection from beginning to end. @returns How long to wait before the next. */
  async #connectOnce(signal: AbortSignal): Promise<number> {
    const { log, outbox } = this.#options;
    const identity = this.#options.identity();
    if (!identity) {
      this.#become('not_enrolled', 'there is no certificate; run: outrider-edge enroll');
      return NOT_ENROLLED_PAUSE_MS;
    }
    try {
      this.#become('connecting', this.#status.reason);
      const reason = await this.#converse(identity, signal);
      if (!signal.aborted) log.warn({ reason }, 'uplink.disconnected');
      this.#become('offline', reason || 'the connection closed');
    } catch (error) {
      const refused = error instanceof HelloRefused;
      this.#become(refused ? 'refused' : 'offline', errorMessage(error));
      if (!signal.aborted) log.warn({ reason: errorMessage(error) }, refused ? 'uplink.refused' : 'uplink.failed');
      if (!refused && !signal.aborted) this.#options.onConnectFailed?.();
      if (refused) return Math.max(REFUSED_PAUSE_MS, this.#backoff.nextMs());
    } finally {
      outbox.setLive(false);
    }
    return this.#backoff.nextMs();
  }

  async #converse(identity: UplinkIdentity, signal: AbortSignal): Promise<string> {
    const { device, clock, log, outbox } = this.#options;
    const sessionOptions = this.#sessionOptions();
    let session: Session | undefined;
    const link = await openMqttLink(
      {
        url: identity.mqttUrl,
        clientId: deviceName(device),
        privateKey: identity.privateKey,
        certificate: identity.certificate,
        ca: identity.ca,
        connectTimeoutMs: this.#options.connectTimeoutMs,
        keepaliveS: this.#options.keepaliveS,
        clock,
        will: { topic: presenceTopic(device), payload: presenceReport(sessionOptions, 'CONNECTION_BROKEN') },
        onMessage: (topic, payload, retained) => session?.receive(topic, payload, retained),
      },
      signal,
    );
    session = new Session(sessionOptions, link);
    this.#link = link;
    const timer = setInterval(() => session.checkTimeouts(), Math.max(50, this.#options.ackTimeoutMs / 4));
    const stop = (): void => void this.#goodbye(link, sessionOptions);
    try {
      await session.open(this.#suspicion.isCautious, signal);
      this.#session = session;
      outbox.setLive(true);
      const openedAt = clock.monotonicMs();
      this.#become('online', '');
      log.info({ url: identity.mqttUrl, cautious: this.#suspicion.isCautious }, 'uplink.connected');
      session.pump();
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
      const reason = await link.closed;
      if (clock.monotonicMs() - openedAt >= STABLE_MS) this.#backoff.reset();
      if (!signal.aborted) this.#suspect(session);
      return reason;
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', stop);
      this.#session = undefined;
      this.#link = undefined;
      session.close();
      link.destroy();
      await link.closed;
    }
  }

  async #goodbye(link: MqttLink, options: SessionOptions): Promise<void> {
    const timeout = new AbortController();
    await Promise.race([
      link.publish(presenceTopic(options.device), presenceReport(options, 'OFFLINE'), true).catch(() => {}),
      pause(GOODBYE_TIMEOUT_MS, timeout.signal),
    ]);
    timeout.abort();
    await link.end();
  }

  /** A record on which the broker hangs up again and again is given up, so that the others get through. */
  #suspect(session: Session): void {
    const { log, outbox } = this.#options;
    const refusal = session.refusal();
    if (refusal) log.warn(refusal, 'uplink.batch_refused');
    if (!this.#suspicion.connectionLost(refusal) || !refusal) return;
    log.error({ lane: refusal.lane, seq: refusal.from }, 'uplink.record_refused');
    outbox.refuseRecord(refusal.lane, refusal.from);
  }

  #sessionOptions(): SessionOptions {
    const { device, bootId, agentVersion, windowBatches, ackTimeoutMs, helloTimeoutMs, outbox, commands, clock, log } =
      this.#options;
    return {
      device,
      bootId,
      agentVersion,
      window: windowBatches,
      ackTimeoutMs,
      helloTimeoutMs,
      outbox,
      commands,
      budget: this.#budget,
      onClockSkew: this.#options.onClockSkew,
      clock,
      log,
      onAck: (lane, latencyMs, upto) => {
        this.#suspicion.progressed(lane, upto);
        this.#backoff.reset();
        this.#options.onAck?.(lane, latencyMs);
      },
    };
  }

  #become(state: LinkState, reason: string): void {
    const changed = state !== this.#status.state || reason !== this.#status.reason;
    const connections = this.#status.connections + (state === 'online' ? 1 : 0);
    if (!changed) return;
    this.#status = { state, since: this.#options.clock.epochMs(), reason, connections };
    for (const listener of this.#listeners) listener(this.#status);
  }
}
