import { DomainError, errorMessage } from '@outrider/shared/errors';
import { FAILSAFE_MODES, type FailsafeMode } from '@outrider/shared/failsafe/modes';
import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { decodeWire } from '@outrider/shared/protocol/codec';
import { type CommandOutcome, INSTRUCTION_TEXT_MAX } from '@outrider/shared/protocol/instruction';
import type { Clock, MonotonicMs } from '@outrider/shared/time';
import type { OutboxEvent } from '../outbox/records.ts';
import { UnauthenticAlarm } from './alarm.ts';
import { CommandExecutor, type ExecutionTarget, INTERRUPTED } from './command-executor.ts';
import type { CommandLog, Reply } from './command-log.ts';
import type { TrustedKeys } from './trusted-keys.ts';

const { Instruction, SignedInstruction } = outrider.v1;
type Instruction = outrider.v1.Instruction;

/** What the cloud's time, as it is known here, may be off by. */
const CLOCK_OFF_MS_MAX = 2000;
const COMMAND_ID_PATTERN = /^[A-Za-z0-9._-]{1,64}$/;

/** What became of something that the guard was asked. */
export interface TargetOutcome {
  readonly done: boolean;
  readonly detail: string;
  readonly latchId: number;
  readonly unmet: readonly string[];
}

/** What is asked of the guard. */
export interface FailsafeTarget {
  trigger(request: {
    readonly commandId: string;
    readonly mode: FailsafeMode;
    readonly reason: string;
    readonly requestedBy: string;
    readonly traceId: string;
    readonly local: boolean;
  }): Promise<TargetOutcome>;
  recover(request: {
    readonly latchId: number;
    readonly nonce: string;
    readonly requestedBy: string;
    readonly traceId: string;
    readonly local: boolean;
  }): Promise<TargetOutcome>;
  status(): { readonly motionEpoch?: number | null; readonly recoverNonce?: string | null } | undefined;
}

export interface CommandDeskOptions {
  readonly device: DeviceIdentity;
  readonly keys: TrustedKeys;
  readonly commands: CommandLog;
  /** Absent when the robot runs without a guard: every instruction is then answered with a refusal. */
  readonly target: FailsafeTarget | undefined;
  /** What carries commands for the actuators out. Absent: they are refused. */
  readonly executor?: ExecutionTarget | undefined;
  /** Puts a result into the event lane; resolves when it is on disk. */
  readonly record: (event: OutboxEvent) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Judges what the cloud orders, has it done once, and says what came of it.
 *
 * Stopping is always allowed: a stop that is late, from an older motion epoch or with an old number is carried out, and
 * before it is written down. It must be authentic all the same, since a stop that anybody may send stops a fleet; and
 * one that the log knows as answered is answered again, not repeated. Everything else must be new by its number, in
 * time, of the present motion epoch, and on disk before it begins.
 */
export class CommandDesk {
  readonly #options: CommandDeskOptions;
  readonly #alarm: UnauthenticAlarm;
  readonly #running = new Map<string, Promise<Reply>>();
  readonly #executor: CommandExecutor | undefined;
  #say: ((reply: Reply) => void) | undefined;
  /** The cloud's wall clock less our `awakeOrAsleepMs`; `undefined` when it is not known. [ms] */
  #cloudAheadMs: number | undefined;

  constructor(options: CommandDeskOptions) {
    this.#options = options;
    this.#executor = options.executor && this.#openExecutor(options.executor);
    this.#alarm = new UnauthenticAlarm(options.record, options.clock, options.log);
    this.#settle();
  }

  /** What the cloud's clock is ahead of ours, measured on this connection; `undefined` when it is not known. [ms] */
  noteClockSkew(skewMs: number | undefined): void {
    const { clock } = this.#options;
    // Our wall clock may be wrong by years, and be set at any time: from here on it is not asked again.
    this.#cloudAheadMs = skewMs === undefined ? undefined : clock.epochMs() + skewMs - this.#sinceSomeTimeMs();
  }

  /** Where to say what comes of a command after its first answer; `undefined` while there is no line. */
  speakThrough(say: ((reply: Reply) => void) | undefined): void {
    this.#say = say;
  }

  /** A list of instruction keys. @throws DomainError when it is not to be believed. */
  takeKeys(bytes: Uint8Array): void {
    this.#options.keys.accept(bytes);
  }

  /**
   * Takes a message of the command channel. Never throws: whatever happens becomes the answer.
   *
   * @returns What to answer; `undefined` for what names nobody to answer to.
   */
  async take(bytes: Uint8Array, isRetained: boolean): Promise<Reply | undefined> {
    const receivedAt = this.#options.clock.monotonicMs();
    const claim = { keyId: '', verb: '', commandId: '' };
    let instruction: Instruction;
    let problem: string | undefined;
    try {
      const signed = decodeWire(SignedInstruction, bytes, 'instruction');
      claim.keyId = signed.keyId;
      problem = signed.signature.length === 0 ? 'no_signature' : this.#options.keys.check(signed);
      instruction = decodeWire(Instruction, signed.payload, 'instruction');
      claim.verb = instruction.verb;
      claim.commandId = instruction.commandId;
    } catch {
      this.#alarm.raise(problem ?? 'unreadable', claim);
      return undefined;
    }
    const { device } = this.#options;
    if (isRetained) problem ??= 'retained';
    if (instruction.tenantId !== device.tenantId || instruction.robotId !== device.robotId) problem ??= 'other_robot';
    if (problem !== undefined) this.#alarm.raise(problem, claim);
    if (isRetained || !COMMAND_ID_PATTERN.test(instruction.commandId)) return undefined;
    if (problem !== undefined) return this.#reply(instruction, 'unauthentic', explain(problem, device));
    const running = this.#running.get(instruction.commandId);
    if (running) return running;
    const answer = this.#answer(instruction, receivedAt).finally(() => this.#running.delete(instruction.commandId));
    this.#running.set(instruction.commandId, answer);
    return answer;
  }

  async #answer(instruction: Instruction, receivedAt: MonotonicMs): Promise<Reply> {
    const known = this.#options.commands.find(instruction.commandId);
    if (known?.reply) return known.reply;
    if (instruction.verb === 'trigger') return this.#trigger(instruction);
    if (instruction.verb === 'cancel' && instruction.cancel) return this.#cancel(instruction);
    if (instruction.verb === 'command' && this.#executor) {
      const stage = this.#executor.stage(instruction.commandId);
      if (stage) return stage;
      if (known) return this.#executor.lastWord(instruction, known);
      const refused = this.#refusal(instruction, receivedAt);
      // An old number is not an answer for good: its sender may give the command a new one.
      if (refused) return refused.outcome === 'stale' ? refused : this.#executor.settle(instruction, refused);
      return this.#executor.begin(instruction);
    }
    // Begun and not ended: the agent was stopped over it. It may have been done, so it is not done again.
    if (known) return this.#reply(instruction, 'unknown', INTERRUPTED);
    const refusal = this.#refusal(instruction, receivedAt);
    const reply = refusal ?? (await this.#recover(instruction));
    this.#report(instruction, reply);
    return reply;
  }

  /** Stop first, then write. */
  async #trigger(instruction: Instruction): Promise<Reply> {
    const { target } = this.#options;
    const mode = FAILSAFE_MODES.find((candidate) => candidate === instruction.trigger?.mode);
    if (!mode) return this.#reply(instruction, 'refused', `mode must be one of ${FAILSAFE_MODES.join(', ')}`);
    if (!target) return this.#reply(instruction, 'refused', NO_GUARD);
    const { commandId, reason, requestedBy, traceId } = plain(instruction);
    const answer = target.trigger({ commandId, mode, reason, requestedBy, traceId, local: false }).then(
      (outcome) => this.#outcomeReply(instruction, outcome),
      (error: unknown) => this.#reply(instruction, 'refused', errorMessage(error)),
    );
    this.#write(instruction, () => this.#begin(instruction));
    const reply = await answer;
    this.#write(instruction, () => this.#options.commands.finish(commandId, reply));
    this.#report(instruction, reply);
    return reply;
  }

  async #recover(instruction: Instruction): Promise<Reply> {
    const { target } = this.#options;
    if (!target) return this.#reply(instruction, 'refused', NO_GUARD);
    try {
      this.#begin(instruction);
    } catch (error) {
      return this.#reply(instruction, 'refused', `what is done cannot be written down here: ${errorMessage(error)}`);
    }
    const { requestedBy, traceId } = plain(instruction);
    const { latchId, nonce } = outrider.v1.RecoverOrder.create(instruction.recover ?? {});
    const quoted = nonce || target.status()?.recoverNonce || '';
    let reply: Reply;
    try {
      const outcome = await target.recover({ latchId, nonce: quoted, requestedBy, traceId, local: false });
      reply = this.#outcomeReply(instruction, outcome);
    } catch (error) {
      // Whoever did not answer may have done it.
      const isUnknown = error instanceof DomainError && error.code === 'timeout';
      reply = this.#reply(instruction, isUnknown ? 'unknown' : 'refused', errorMessage(error));
    }
    this.#write(instruction, () => this.#options.commands.finish(instruction.commandId, reply));
    return reply;
  }

  async #cancel(instruction: Instruction): Promise<Reply> {
    if (!this.#executor) return this.#reply(instruction, 'refused', NO_GUARD);
    if (!COMMAND_ID_PATTERN.test(instruction.cancel?.commandId ?? ''))
      return this.#reply(instruction, 'refused', 'it names no command');
    return this.#executor.cancel(instruction);
  }

  #openExecutor(target: ExecutionTarget): CommandExecutor {
    const { commands, clock } = this.#options;
    return new CommandExecutor({
      commands,
      target,
      reply: (instruction, outcome, detail) => this.#reply(instruction, outcome, detail),
      stage: (instruction, stage, progress) => ({ ...this.#word(instruction, '', ''), stage, progress }),
      say: (reply) => this.#say?.(reply),
      report: (instruction, reply) => this.#report(instruction, reply),
      write: (instruction, write) => this.#write(instruction, write),
      nowMs: () => clock.epochMs(),
    });
  }

  /** Why this is not even begun. */
  #refusal(instruction: Instruction, receivedAt: MonotonicMs): Reply | undefined {
    const { verb, counter, ttlMs, issuedAtMs, motionEpoch } = instruction;
    const { commands, clock, target } = this.#options;
    const no = (outcome: CommandOutcome, detail: string): Reply => this.#reply(instruction, outcome, detail);
    const isKnown = (verb === 'recover' && instruction.recover) || (verb === 'command' && instruction.command);
    if (verb === 'command' && !this.#executor) return no('refused', NO_GUARD);
    if (!isKnown) return no('refused', `'${verb.slice(0, 64)}' is not known here`);
    if (counter <= commands.counterSeen)
      return no('stale', `number ${counter} is not above ${commands.counterSeen}, which was taken already`);
    if (ttlMs === 0) return no('refused', 'only a stop may do without a time to live');
    const waitedMs = clock.monotonicMs() - receivedAt;
    if (waitedMs > ttlMs)
      return no('expired', `it was good for ${ttlMs} ms and waited here for ${Math.round(waitedMs)}`);
    const ageMs = this.#cloudAheadMs === undefined ? 0 : this.#cloudAheadMs + this.#sinceSomeTimeMs() - issuedAtMs;
    if (ageMs > ttlMs + CLOCK_OFF_MS_MAX)
      return no('expired', `it was good for ${ttlMs} ms and was issued ${Math.round(ageMs)} ms ago`);
    if (!target) return undefined;
    const present = target.status()?.motionEpoch;
    if (present === undefined || present === null) return no('refused', 'the guard does not answer');
    if (motionEpoch === undefined || motionEpoch === null) return no('refused', 'it names no motion epoch');
    if (motionEpoch !== present)
      return no('conflict', `it was meant for motion epoch ${motionEpoch}, and the present one is ${present}`);
    return undefined;
  }

  #sinceSomeTimeMs(): number {
    const { clock } = this.#options;
    return clock.awakeOrAsleepMs?.() ?? clock.monotonicMs();
  }

  #begin({ commandId, verb, counter }: Instruction): void {
    this.#options.commands.begin({ commandId, verb, counter, beganAtMs: this.#options.clock.epochMs() });
  }

  /** What must not keep a stop from being answered. */
  #write(instruction: Instruction, write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#options.log.error(
        { command_id: instruction.commandId, reason: errorMessage(error) },
        'command_log.not_written',
      );
    }
  }

  #outcomeReply(instruction: Instruction, { done, detail, latchId, unmet }: TargetOutcome): Reply {
    const outcome = done
      ? 'done'
      : unmet.length > 0
        ? 'unmet'
        : instruction.verb === 'recover'
          ? 'conflict'
          : 'refused';
    const reply = this.#reply(instruction, outcome, detail);
    // The guard's next status brings the epoch that a recovery began.
    const began = outcome === 'done' && instruction.verb === 'recover' ? (instruction.motionEpoch ?? 0) + 1 : 0;
    return { ...reply, latchId, unmet: [...unmet], motionEpoch: Math.max(reply.motionEpoch ?? 0, began) };
  }

  #reply({ commandId, verb, traceId }: Instruction, outcome: CommandOutcome, detail: string): Reply {
    this.#options.log.warn({ command_id: commandId, verb, outcome, detail, trace_id: traceId }, 'command.answered');
    return this.#word({ commandId, verb, traceId }, outcome, detail);
  }

  /** An answer; without an outcome it is not the last one. */
  #word(
    { commandId, verb, traceId }: Pick<Instruction, 'commandId' | 'verb' | 'traceId'>,
    outcome: CommandOutcome | '',
    detail: string,
  ): Reply {
    const { clock, commands, target } = this.#options;
    return {
      commandId,
      verb,
      done: outcome === 'done',
      detail,
      traceId,
      atMs: clock.epochMs(),
      outcome,
      motionEpoch: target?.status()?.motionEpoch ?? 0,
      counterSeen: commands.counterSeen,
    };
  }

  #report(instruction: Instruction, reply: Reply): void {
    const { commandId, reason, requestedBy, traceId } = plain(instruction);
    const { verb, counter } = instruction;
    const confirmed = (instruction.recover?.confirmed ?? []).map((text) => text.slice(0, INSTRUCTION_TEXT_MAX));
    this.#tell(commandId, traceId, reply, { verb, counter, requested_by: requestedBy, reason, confirmed });
  }

  #tell(commandId: string, traceId: string, reply: Reply, more: Readonly<Record<string, unknown>>): void {
    const payload = {
      command_id: commandId,
      outcome: reply.outcome ?? '',
      detail: reply.detail ?? '',
      unmet: reply.unmet ?? [],
      latch_id: reply.latchId ?? 0,
      motion_epoch: reply.motionEpoch ?? 0,
      ...more,
    };
    const { commands, log, record } = this.#options;
    record({
      eventId: `evt_command_${commandId}`,
      type: 'command.answered.v1',
      occurredAtMs: reply.atMs ?? 0,
      traceId: traceId || commandId,
      payload,
    }).then(
      () => {
        try {
          commands.markReported(commandId);
        } catch (error) {
          log.warn({ command_id: commandId, reason: errorMessage(error) }, 'command_log.not_written');
        }
      },
      (error: unknown) => log.error({ command_id: commandId, reason: errorMessage(error) }, 'event.lost'),
    );
  }

  /** After a restart: results that may not have reached the event lane are told, interrupted commands too. */
  #settle(): void {
    const { commands, clock, log } = this.#options;
    for (const { commandId, verb, counter, reply } of commands.unreported()) {
      // A stop without an answer is left: when it comes again it is carried out again, and told then.
      if (!reply && verb === 'trigger') continue;
      const told = reply ?? {
        commandId,
        done: false,
        outcome: 'unknown' satisfies CommandOutcome,
        detail: INTERRUPTED,
        atMs: clock.epochMs(),
        counterSeen: commands.counterSeen,
      };
      log.warn({ command_id: commandId, verb, outcome: told.outcome }, 'command.settled_after_restart');
      const more = { verb, counter, requested_by: '', reason: '', confirmed: [] };
      this.#tell(commandId, told.traceId ?? '', told, more);
    }
  }
}

const NO_GUARD = 'this robot runs without a guard';

const plain = ({ commandId, reason, requestedBy, traceId }: Instruction) => ({
  commandId,
  reason: reason.slice(0, INSTRUCTION_TEXT_MAX),
  requestedBy: requestedBy.slice(0, INSTRUCTION_TEXT_MAX),
  traceId: traceId.slice(0, INSTRUCTION_TEXT_MAX),
});

function explain(problem: string, device: DeviceIdentity): string {
  if (problem === 'no_keys') return 'this robot knows no instruction keys; enrol again';
  if (problem === 'unknown_key') return 'the instruction key is not known here';
  if (problem === 'other_robot') return `this is for another robot than ${deviceName(device)}`;
  return 'the signature is missing or not good';
}
