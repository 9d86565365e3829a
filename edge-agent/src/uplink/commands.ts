import { errorMessage } from '@outrider/shared/errors';
import { FAILSAFE_MODES, type FailsafeMode } from '@outrider/shared/failsafe/modes';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import type { Clock } from '@outrider/shared/time';

/** Answers kept, so that a command that arrives twice is done once and answered the same. */
const ANSWERS_MAX = 256;
const TEXT_CHARACTERS_MAX = 1024;

/** What the uplink asks of the guard. */
export interface FailsafeTarget {
  trigger(request: {
    readonly commandId: string;
    readonly mode: FailsafeMode;
    readonly reason: string;
    readonly requestedBy: string;
    readonly traceId: string;
    readonly local: boolean;
  }): Promise<{ readonly done: boolean; readonly detail: string; readonly latchId: number }>;
}

type Reply = outrider.v1.CommandReply.$Properties;

/** Carries remote stop requests to the guard and says what came of them. */
export class FailsafeCommands {
  readonly #target: FailsafeTarget | undefined;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #answers = new Map<string, Promise<Reply>>();

  /** @param target Absent when the robot runs without a guard: every request is then answered with a refusal. */
  constructor(target: FailsafeTarget | undefined, clock: Clock, log: Logger) {
    this.#target = target;
    this.#clock = clock;
    this.#log = log;
  }

  /** Never throws: whatever happens becomes the answer. */
  trigger(request: outrider.v1.FailsafeTrigger): Promise<Reply> {
    const known = this.#answers.get(request.commandId);
    if (known) return known;
    const answer = this.#trigger(request);
    this.#answers.set(request.commandId, answer);
    const [oldest] = this.#answers.keys();
    if (this.#answers.size > ANSWERS_MAX && oldest !== undefined) this.#answers.delete(oldest);
    return answer;
  }

  async #trigger({ commandId, mode, reason, requestedBy, traceId }: outrider.v1.FailsafeTrigger): Promise<Reply> {
    const reply = (done: boolean, detail: string, latchId = 0): Reply => {
      this.#log.warn({ command_id: commandId, mode, done, detail, trace_id: traceId }, 'failsafe.trigger_answered');
      return { commandId, done, detail, traceId, atMs: this.#clock.epochMs(), latchId };
    };
    if (commandId === '') return reply(false, 'command_id is missing');
    const known = FAILSAFE_MODES.find((candidate) => candidate === mode);
    if (!known) return reply(false, `mode must be one of ${FAILSAFE_MODES.join(', ')}`);
    if (!this.#target) return reply(false, 'this robot runs without a guard');
    try {
      const { done, detail, latchId } = await this.#target.trigger({
        commandId,
        mode: known,
        reason: reason.slice(0, TEXT_CHARACTERS_MAX),
        requestedBy: requestedBy.slice(0, TEXT_CHARACTERS_MAX),
        traceId: traceId.slice(0, TEXT_CHARACTERS_MAX),
        local: false,
      });
      return reply(done, detail, latchId);
    } catch (error) {
      return reply(false, errorMessage(error));
    }
  }
}
