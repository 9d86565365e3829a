import { DomainError } from '@outrider/shared/errors';
import type { FailsafeMode } from '@outrider/shared/failsafe/modes';
import { deviceName, newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { aborted, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { DeviceBus } from '../broker/bus.ts';
import type { AuditTrail } from '../fleet/ports.ts';
import type { RobotRef } from '../fleet/robot.ts';
import type { InstructionLine } from './instruction-line.ts';
import type { PendingStop, PendingStopStore } from './ports.ts';

/** How long a caller waits for the robot's own answer. */
export const ANSWER_TIMEOUT_MS = 2_000;
/** A stop to a robot that is connected but silent is sent again this often. */
const RESEND_MS = 1_000;
/** How long a stop may still be kept for a robot that was taken out of the fleet. */
const SWEEP_MS = 10_000;
/** Stops that are kept for robots out of reach. One per robot and mode, so only a fleet of this size reaches it. */
const PENDING_MAX = 10_000;

/** What the robot said: the latch that holds it now. */
export interface StopAnswer {
  readonly commandId: string;
  readonly latchId: number;
  readonly detail: string;
  readonly answeredAtMs: number;
}

export interface TriggerRequest {
  readonly robot: Pick<RobotRef, 'tenantId' | 'robotId'>;
  readonly mode: FailsafeMode;
  readonly reason: string;
  readonly requestedBy: string;
  readonly traceId: string;
}

interface Pending {
  readonly stop: PendingStop;
  readonly startedMs: number;
  /** As it was first sent, so that a repetition is the same to the bit. */
  signed: Uint8Array | undefined;
  sentMs: number;
  waiters: ((answer: outrider.v1.CommandReply) => void)[];
  /** The last line of its audit trail, so that the next one comes after it. */
  written: Promise<void>;
}

/**
 * Carries stops to robots. The message goes out before anything is written, no database is needed for it, and a
 * stop that was not answered is kept and sent again when the robot appears.
 */
export class FailsafeDispatcher implements Service {
  readonly name = 'failsafe';
  readonly #bus: DeviceBus;
  readonly #line: InstructionLine;
  readonly #audit: AuditTrail;
  readonly #store: PendingStopStore;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #answerTimeoutMs: number;
  readonly #pending = new Map<string, Pending>();

  constructor(deps: {
    bus: DeviceBus;
    line: InstructionLine;
    audit: AuditTrail;
    store: PendingStopStore;
    clock: Clock;
    log: Logger;
    answerTimeoutMs?: number;
  }) {
    this.#bus = deps.bus;
    this.#line = deps.line;
    this.#audit = deps.audit;
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#answerTimeoutMs = deps.answerTimeoutMs ?? ANSWER_TIMEOUT_MS;
  }

  /** Stops that no robot has answered yet. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Delivers kept stops until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const offReply = this.#bus.onReply((device, reply) => this.#answered(deviceName(device), reply));
    const offPresence = this.#bus.onPresence(({ device, report }) => {
      if (report.presence === 'ONLINE') this.#resend((stop) => deviceName(stop) === deviceName(device), 0);
    });
    const timer = setInterval(() => this.#resend((stop) => this.#bus.connected(stop), RESEND_MS), RESEND_MS);
    const sweep = setInterval(() => void this.forgetDeregistered(), SWEEP_MS);
    await this.#restore();
    await aborted(signal);
    clearInterval(timer);
    clearInterval(sweep);
    offReply();
    offPresence();
  }

  /**
   * Stops a robot. Resolves when the robot itself says that it is stopped. Used by:
   * POST /api/v1/robots/{robot_id}/failsafe/trigger.
   *
   * @throws DomainError `offline` when there is no link, `timeout` when the robot does not answer in time. In both
   *   the stop is kept and delivered when the robot is back. `rejected` when the robot says it cannot.
   */
  async trigger(request: TriggerRequest): Promise<StopAnswer> {
    const { pending, isNew } = this.#enqueue(request);
    const answer = this.#waitFor(pending);
    // The write is only queued here; it starts when the message has been handed to the bus.
    if (isNew) this.#write(pending, 'failsafe.trigger', 'pending', {});
    const sent = this.#send(pending);
    const connected = this.#bus.connected(request.robot);
    await sent;
    const reply = connected ? await answer.promise : undefined;
    answer.stop();
    const details = {
      robot_id: request.robot.robotId,
      command_id: pending.stop.commandId,
      stop_kept_for_delivery: true,
    };
    if (!reply) {
      throw connected
        ? new DomainError(
            'timeout',
            `the robot did not confirm within ${this.#answerTimeoutMs} ms; the stop is sent until it does`,
            { subject: 'robot', details },
          )
        : new DomainError('offline', 'the robot is not connected; the stop is kept and sent as soon as it is', {
            subject: 'robot',
            details,
            retryAfterS: 1,
          });
    }
    if (!reply.done) {
      throw new DomainError(
        'rejected',
        `the robot answered that it did not stop: ${reply.detail || 'no reason given'}`,
        {
          subject: 'robot',
          details: { ...details, stop_kept_for_delivery: false },
        },
      );
    }
    return {
      commandId: pending.stop.commandId,
      latchId: reply.latchId,
      detail: reply.detail,
      answeredAtMs: this.#clock.epochMs(),
    };
  }

  /**
   * Drops the stops of robots that were taken out of the fleet since, also when another was registered under the name:
   * nobody would answer them, and the next robot of that name is not meant.
   */
  async forgetDeregistered(): Promise<void> {
    for (const [commandId, pending] of [...this.#pending]) {
      const { stop } = pending;
      // A stop whose caller still waits is not looked at: its robot was registered a moment ago.
      if (pending.waiters.length > 0) continue;
      let since: number | undefined;
      try {
        since = await this.#store.registeredSince(stop);
      } catch (error) {
        this.#log.warn({ err: error }, 'failsafe.sweep_failed');
        return;
      }
      if (since !== undefined && since <= stop.issuedAtMs) continue;
      if (!this.#pending.delete(commandId)) continue;
      this.#log.warn({ robotId: stop.robotId, commandId }, 'failsafe.robot_deregistered');
      this.#write(pending, 'failsafe.answer', 'dropped', { detail: 'the robot is not registered any more' });
    }
  }

  /** A stop of the same robot and mode that is still on its way is joined, not doubled. */
  #enqueue({ robot, mode, reason, requestedBy, traceId }: TriggerRequest): { pending: Pending; isNew: boolean } {
    for (const pending of this.#pending.values()) {
      const { stop } = pending;
      if (stop.tenantId === robot.tenantId && stop.robotId === robot.robotId && stop.mode === mode)
        return { pending, isNew: false };
    }
    const oldest = this.#pending.size >= PENDING_MAX ? this.#pending.keys().next().value : undefined;
    if (oldest !== undefined) {
      this.#log.error({ commandId: oldest, pendingMax: PENDING_MAX }, 'failsafe.pending_stop_dropped');
      this.#pending.delete(oldest);
    }
    const { tenantId, robotId } = robot;
    const commandId = newId('cmd');
    const issuedAtMs = this.#clock.epochMs();
    const stop: PendingStop = { commandId, tenantId, robotId, mode, reason, requestedBy, traceId, issuedAtMs };
    const pending: Pending = {
      stop,
      startedMs: this.#clock.monotonicMs(),
      signed: undefined,
      sentMs: Number.NEGATIVE_INFINITY,
      waiters: [],
      written: Promise.resolve(),
    };
    this.#pending.set(commandId, pending);
    return { pending, isNew: true };
  }

  #waitFor(pending: Pending): { promise: Promise<outrider.v1.CommandReply | undefined>; stop(): void } {
    let settle: (reply: outrider.v1.CommandReply | undefined) => void = () => undefined;
    const promise = new Promise<outrider.v1.CommandReply | undefined>((resolve) => {
      settle = resolve;
    });
    pending.waiters.push(settle);
    const timer = setTimeout(() => settle(undefined), this.#answerTimeoutMs);
    return {
      promise,
      stop: () => {
        clearTimeout(timer);
        pending.waiters = pending.waiters.filter((waiter) => waiter !== settle);
      },
    };
  }

  async #send(pending: Pending): Promise<void> {
    const { stop } = pending;
    pending.sentMs = this.#clock.monotonicMs();
    try {
      pending.signed ??= this.#sign(stop);
      await this.#line.publish(stop, pending.signed);
    } catch (error) {
      this.#log.warn({ robotId: stop.robotId, commandId: stop.commandId, err: error }, 'failsafe.publish_failed');
    }
  }

  #sign(stop: PendingStop): Uint8Array {
    const { commandId, mode, reason, requestedBy, traceId, issuedAtMs } = stop;
    return this.#line.sign(stop, {
      commandId,
      verb: 'trigger',
      counter: this.#line.reservedCounter(stop),
      issuedAtMs,
      // A stop does not expire: one that is late still stops.
      ttlMs: 0,
      traceId,
      requestedBy,
      reason,
      trigger: { mode },
    });
  }

  #resend(matches: (stop: PendingStop) => boolean, quietMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    for (const pending of this.#pending.values())
      if (nowMs - pending.sentMs >= quietMs && matches(pending.stop)) void this.#send(pending);
  }

  #answered(device: string, reply: outrider.v1.CommandReply): void {
    const pending = this.#pending.get(reply.commandId);
    if (!pending || deviceName(pending.stop) !== device) return;
    if (reply.outcome === 'unauthentic') {
      // The robot lacks our key, or somebody changed the message: it is signed and sent anew, with the list of keys.
      this.#log.error({ device, commandId: reply.commandId, detail: reply.detail }, 'failsafe.stop_not_believed');
      this.#line.forgetList(pending.stop);
      pending.signed = undefined;
      return;
    }
    this.#pending.delete(reply.commandId);
    const durationMs = this.#clock.monotonicMs() - pending.startedMs;
    const { robotId, commandId, mode } = pending.stop;
    this.#log.info(
      { robotId, commandId, mode, done: reply.done, latchId: reply.latchId, durationMs },
      'failsafe.answered',
    );
    this.#write(
      pending,
      'failsafe.answer',
      reply.done ? 'done' : 'refused',
      { latch_id: reply.latchId, detail: reply.detail },
      durationMs,
    );
    for (const waiter of pending.waiters) waiter(reply);
  }

  #write(pending: Pending, action: string, outcome: string, more: Record<string, unknown>, durationMs?: number): void {
    const { stop } = pending;
    const atMs = this.#clock.epochMs();
    pending.written = pending.written.then(async () => {
      try {
        await this.#audit.append({
          tenantId: stop.tenantId,
          subject: stop.requestedBy,
          action,
          outcome,
          requestId: stop.traceId,
          details: { command_id: stop.commandId, robot_id: stop.robotId, stop, ...more },
          ...(durationMs === undefined ? {} : { durationMs }),
          atMs,
        });
      } catch (error) {
        this.#log.error({ err: error, commandId: stop.commandId, action }, 'audit.write_failed');
      }
    });
  }

  async #restore(): Promise<void> {
    try {
      for (const stop of await this.#store.unansweredStops(PENDING_MAX)) {
        if (this.#pending.has(stop.commandId)) continue;
        this.#pending.set(stop.commandId, {
          stop,
          startedMs: this.#clock.monotonicMs(),
          signed: undefined,
          sentMs: Number.NEGATIVE_INFINITY,
          waiters: [],
          written: Promise.resolve(),
        });
      }
    } catch (error) {
      this.#log.error({ err: error }, 'failsafe.restore_failed');
    }
  }
}
