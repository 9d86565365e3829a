import { DomainError, type FieldProblem } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName, newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { aborted, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { DeviceBus } from '../broker/bus.ts';
import type { AuditTrail } from '../fleet/ports.ts';
import type { RobotRef } from '../fleet/robot.ts';
import type { InstructionLine } from './instruction-line.ts';
import type { FailsafeReports, ReportedFailsafe } from './ports.ts';

/** How long a recovery stays good after it was asked for: nobody may still be waiting for it later. */
const TTL_MS = 5_000;
/** A recovery takes up to 2 s on the robot; its agent answers within 5 s whatever happens. */
export const RECOVER_TIMEOUT_MS = 8_000;
const REMEMBERED_MAX = 100_000;

export interface RecoverRequest {
  readonly robot: RobotRef;
  /** The latch that the caller saw. The robot refuses when it is another one by now. */
  readonly latchId: number;
  readonly nonce: string;
  readonly reason: string;
  /** What a person says to have checked. For the record: it overrides nothing. */
  readonly confirmed: readonly string[];
  readonly requestedBy: string;
  readonly traceId: string;
}

/** What the robot said: it is armed. */
export interface RecoverAnswer {
  readonly commandId: string;
  readonly latchId: number;
  readonly motionEpoch: number;
  readonly detail: string;
  readonly answeredAtMs: number;
}

type Reply = outrider.v1.CommandReply;

export interface RecovererOptions {
  readonly bus: DeviceBus;
  readonly line: InstructionLine;
  readonly audit: AuditTrail;
  readonly reports: FailsafeReports;
  readonly clock: Clock;
  readonly log: Logger;
  readonly timeoutMs?: number;
}

/** Asks robots to leave their safe state. Never kept for later: whoever asked must still be looking. */
export class FailsafeRecoverer implements Service {
  readonly name = 'failsafe-recoverer';
  readonly #options: RecovererOptions;
  readonly #waiting = new Map<string, { device: string; answer: (reply: Reply) => void }>();
  /** What robots said of their motion epoch in answers: often ahead of what has been stored. */
  readonly #answered = new Map<string, ReportedFailsafe>();

  constructor(options: RecovererOptions) {
    this.#options = options;
  }

  /** Hears the robots' answers until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const off = this.#options.bus.onReply((device, reply) => this.#hear(device, reply));
    await aborted(signal);
    off();
  }

  /**
   * Lets a robot leave its safe state, when it agrees. Resolves when the robot itself says that it is armed. Used by:
   * POST /api/v1/robots/{robot_id}/failsafe/recover.
   *
   * @throws DomainError `offline` or `timeout`; `bad_state` when the latch is another one; `rejected` with the unmet
   *   conditions; `unavailable` when no number can be got for it.
   */
  async recover(request: RecoverRequest): Promise<RecoverAnswer> {
    const startedMs = this.#options.clock.monotonicMs();
    const commandId = newId('cmd');
    try {
      const answer = await this.#ask(request, commandId);
      await this.#write(request, commandId, 'done', answer.detail, startedMs);
      return answer;
    } catch (error) {
      const code = error instanceof DomainError ? error.code : 'internal';
      await this.#write(request, commandId, code, error instanceof Error ? error.message : '', startedMs);
      throw error;
    }
  }

  async #ask(request: RecoverRequest, commandId: string): Promise<RecoverAnswer> {
    const { bus, clock } = this.#options;
    const { robot } = request;
    const details = { robot_id: robot.robotId, command_id: commandId };
    if (!bus.connected(robot))
      throw new DomainError('offline', 'the robot is not connected; a recovery is never kept for later', {
        subject: 'robot',
        details,
        retryAfterS: 1,
      });
    const known = await this.known(robot);
    if (!known)
      throw new DomainError('bad_state', 'the robot has not reported its failsafe yet', { subject: 'robot', details });
    let reply = await this.#send(request, commandId, known.motionEpoch, 0);
    // The robot has seen higher numbers than this database gave: it was restored from an older copy.
    if (reply?.outcome === 'stale')
      reply = await this.#send(request, newId('cmd'), known.motionEpoch, reply.counterSeen);
    if (!reply)
      throw new DomainError('timeout', 'the robot did not say what became of the recovery; look at its state', {
        subject: 'robot',
        details,
      });
    if (!reply.done) throw refusal(reply, details);
    const { latchId, motionEpoch, detail } = reply;
    return { commandId, latchId, motionEpoch, detail, answeredAtMs: clock.epochMs() };
  }

  /** The newest that the robot has said of its motion epoch, stored or in an answer. */
  async known({ robotPk, ...robot }: RobotRef): Promise<ReportedFailsafe | undefined> {
    const stored = await this.#options.reports.reportedFailsafe(robotPk);
    const answered = this.#answered.get(deviceName(robot));
    return stored && answered ? (answered.atMs > stored.atMs ? answered : stored) : (stored ?? answered);
  }

  async #send(
    request: RecoverRequest,
    commandId: string,
    motionEpoch: number,
    counterSeen: number,
  ): Promise<Reply | undefined> {
    const { line, clock, timeoutMs = RECOVER_TIMEOUT_MS } = this.#options;
    const { robot, latchId, nonce, confirmed, reason, requestedBy, traceId } = request;
    const signed = line.sign(robot, {
      commandId,
      verb: 'recover',
      counter: await line.nextCounter(robot, counterSeen),
      motionEpoch,
      issuedAtMs: clock.epochMs(),
      ttlMs: TTL_MS,
      traceId,
      requestedBy,
      reason,
      recover: { latchId, nonce, confirmed: [...confirmed] },
    });
    let timer: NodeJS.Timeout | undefined;
    const answered = new Promise<Reply | undefined>((resolve) => {
      this.#waiting.set(commandId, { device: deviceName(robot), answer: resolve });
      timer = setTimeout(() => resolve(undefined), timeoutMs);
    });
    try {
      await line.publish(robot, signed);
      const reply = await answered;
      if (reply?.outcome === 'unauthentic') line.forgetList(robot);
      return reply;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(commandId);
    }
  }

  #hear(device: DeviceIdentity, reply: Reply): void {
    const name = deviceName(device);
    // An answer without an outcome is not of an agent that knows its motion epoch.
    if (reply.outcome !== '' && reply.outcome !== 'unauthentic') {
      if (this.#answered.size >= REMEMBERED_MAX) this.#answered.clear();
      this.#answered.set(name, { motionEpoch: reply.motionEpoch, atMs: reply.atMs });
    }
    const waiting = this.#waiting.get(reply.commandId);
    if (waiting?.device === name) waiting.answer(reply);
  }

  async #write(
    request: RecoverRequest,
    commandId: string,
    outcome: string,
    detail: string,
    startedMs: number,
  ): Promise<void> {
    const { audit, clock, log } = this.#options;
    const { robot, latchId, reason, confirmed, requestedBy, traceId } = request;
    try {
      await audit.append({
        tenantId: robot.tenantId,
        subject: requestedBy,
        action: 'failsafe.recover',
        outcome,
        requestId: traceId,
        details: {
          command_id: commandId,
          robot_id: robot.robotId,
          latch_id: latchId,
          reason,
          confirmed: [...confirmed],
          detail,
        },
        durationMs: clock.monotonicMs() - startedMs,
        atMs: clock.epochMs(),
      });
    } catch (error) {
      log.error({ err: error, commandId, action: 'failsafe.recover' }, 'audit.write_failed');
    }
  }
}

/** The robot's refusal, with every condition that is not met. */
function refusal(reply: Reply, details: Readonly<Record<string, unknown>>): DomainError {
  const said = reply.detail || 'no reason given';
  const facts = { subject: 'robot', details: { ...details, latch_id: reply.latchId } };
  if (reply.unmet.length > 0)
    return new DomainError('rejected', `the robot does not recover: ${said}`, {
      ...facts,
      problems: reply.unmet.map(problemOf),
    });
  if (reply.outcome === 'unknown') return new DomainError('unavailable', said, facts);
  return new DomainError('bad_state', `the robot does not recover: ${said}`, facts);
}

/** `thermal_shutdown (knee_l): not clear: 96 °C` names its condition itself. */
function problemOf(sentence: string): FieldProblem {
  const [, field, where, reason] = /^([a-z][a-z0-9_]*)(?: \(([^)]*)\))?: (.+)$/s.exec(sentence) ?? [];
  if (field !== undefined && reason !== undefined)
    return { field, reason: where === undefined ? reason : `${where}: ${reason}` };
  if (/microcontroller/.test(sentence)) return { field: 'mcu', reason: sentence };
  if (/stand still/.test(sentence)) return { field: 'standstill', reason: sentence };
  return { field: 'recovery', reason: sentence };
}
