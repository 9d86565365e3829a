import { COMMAND_JOINTS_MAX, COMMAND_KINDS } from '@outrider/shared/command';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/messages';
import { COMMAND_OUTCOMES, type CommandOutcome } from '@outrider/shared/protocol/instruction';
import type { CommandLog, LoggedCommand, Reply } from './command-log.ts';

type Instruction = outrider.v1.Instruction;

/** How something that the guard was asked ended. */
export interface ExecutionOutcome {
  readonly done: boolean;
  readonly detail: string;
  readonly latchId: number;
  readonly outcome?: string;
}

/** What carries commands out: the guard. */
export interface ExecutionTarget {
  execute(
    request: {
      readonly commandId: string;
      readonly order: outrider.v1.CommandOrder.$Properties;
      readonly motionEpoch: number;
      readonly requestedBy: string;
      readonly traceId: string;
    },
    onProgress: (progress: number) => void,
  ): Promise<ExecutionOutcome>;
  cancel(commandId: string, requestedBy: string, traceId: string): Promise<ExecutionOutcome>;
}

export interface CommandExecutorOptions {
  readonly commands: CommandLog;
  readonly target: ExecutionTarget;
  /** Makes an answer to an instruction. */
  readonly reply: (instruction: Instruction, outcome: CommandOutcome, detail: string) => Reply;
  /** Says how far an instruction has come. */
  readonly stage: (instruction: Instruction, stage: 'delivered' | 'executing', progress: number) => Reply;
  /** Says something to the cloud now, if there is a line. */
  readonly say: (reply: Reply) => void;
  /** Puts a last word into the event lane. */
  readonly report: (instruction: Instruction, reply: Reply) => void;
  /** Writes to the log of commands; a failure is logged and changes nothing. */
  readonly write: (instruction: Instruction, write: () => void) => void;
  readonly nowMs: () => number;
}

/**
 * Has commands for the actuators carried out, each at most once: it is on disk before it is begun, and one that was
 * begun and has no answer on disk was interrupted and is not tried again.
 */
export class CommandExecutor {
  readonly #options: CommandExecutorOptions;
  /** What is being carried out, with what was last said of it. */
  readonly #running = new Map<string, Reply>();

  constructor(options: CommandExecutorOptions) {
    this.#options = options;
  }

  /** How a command that is being carried out stands; `undefined` when it is not. */
  stage(commandId: string): Reply | undefined {
    return this.#running.get(commandId);
  }

  /** Takes a command that was found good. @returns That it is on disk; the rest is said later. */
  begin(instruction: Instruction): Reply {
    const { commands, nowMs, reply } = this.#options;
    const { commandId, verb, counter } = instruction;
    const order = outrider.v1.CommandOrder.create(instruction.command ?? {});
    const problem = orderProblem(order);
    if (problem !== undefined) return this.settle(instruction, reply(instruction, 'refused', problem));
    try {
      commands.begin({ commandId, verb, counter, beganAtMs: nowMs() });
    } catch (error) {
      const detail = `what is done cannot be written down here: ${errorMessage(error)}`;
      return this.settle(instruction, reply(instruction, 'refused', detail));
    }
    const delivered = this.#stage(instruction, 'delivered', 0);
    // After the answer that it is here, which goes out first.
    setImmediate(() => void this.#execute(instruction, order));
    return delivered;
  }

  /** Keeps and tells the last word on a command that was not begun. */
  settle(instruction: Instruction, reply: Reply): Reply {
    const { commands, write, report, nowMs } = this.#options;
    const { commandId, verb, counter } = instruction;
    write(instruction, () => {
      commands.begin({ commandId, verb, counter, beganAtMs: nowMs() });
      commands.finish(commandId, reply);
    });
    report(instruction, reply);
    return reply;
  }

  /** Calls a command off, whatever is known of it. A cancellation is like a stop: it is never too late or too old. */
  async cancel(instruction: Instruction): Promise<Reply> {
    const { commands, target, reply, say } = this.#options;
    const { commandId = '', onlyUnbegun = false } = instruction.cancel ?? {};
    const aimed = aimedAt(instruction, commandId ?? '');
    const running = this.#running.get(aimed.commandId);
    if (running) {
      say(running);
      if (onlyUnbegun) return reply(instruction, 'conflict', 'it is being carried out');
      try {
        const { done, detail } = await target.cancel(aimed.commandId, instruction.requestedBy, instruction.traceId);
        return reply(instruction, done ? 'done' : 'conflict', detail);
      } catch (error) {
        return reply(instruction, 'unknown', errorMessage(error));
      }
    }
    const known = commands.find(aimed.commandId);
    if (known) {
      const last = this.lastWord(aimed, known);
      say(last);
      return reply(instruction, 'conflict', `it has ended: ${last.outcome}`);
    }
    // Its message may still come: then it is answered with this.
    const word = onlyUnbegun ? 'expired' : 'cancelled';
    const detail = onlyUnbegun ? 'its time was over before it came' : `called off by ${instruction.requestedBy}`;
    say(this.settle(aimed, reply(aimed, word, detail)));
    return reply(instruction, 'done', detail);
  }

  /** The answer on disk, or that the agent was stopped over it. */
  lastWord(instruction: Instruction, known: LoggedCommand): Reply {
    return known.reply ?? this.#options.reply(instruction, 'unknown', INTERRUPTED);
  }

  async #execute(instruction: Instruction, order: outrider.v1.CommandOrder): Promise<void> {
    const { commands, target, reply, say, report, write } = this.#options;
    const { commandId, requestedBy, traceId } = instruction;
    const motionEpoch = instruction.motionEpoch ?? 0;
    let last: Reply;
    try {
      const ended = await target.execute({ commandId, order, motionEpoch, requestedBy, traceId }, (progress) =>
        say(this.#stage(instruction, 'executing', progress)),
      );
      const word = COMMAND_OUTCOMES.find((known) => known === ended.outcome) ?? (ended.done ? 'done' : 'refused');
      last = reply(instruction, word, ended.detail);
    } catch (error) {
      // Whoever did not answer may have done it; whoever was not there has not.
      const isUnknown = !(error instanceof DomainError) || error.code !== 'unavailable' || this.#hasBegun(commandId);
      last = reply(instruction, isUnknown ? 'unknown' : 'refused', errorMessage(error));
    }
    write(instruction, () => commands.finish(commandId, last));
    this.#running.delete(commandId);
    say(last);
    report(instruction, last);
  }

  #hasBegun(commandId: string): boolean {
    return this.#running.get(commandId)?.stage === 'executing';
  }

  #stage(instruction: Instruction, stage: 'delivered' | 'executing', progress: number): Reply {
    const said = this.#options.stage(instruction, stage, progress);
    this.#running.set(instruction.commandId, said);
    return said;
  }
}

export const INTERRUPTED = 'the agent was stopped while this was carried out; what came of it is not known here';

/** The command that a cancellation is about, as an instruction of its own. */
const aimedAt = (instruction: Instruction, commandId: string): Instruction =>
  outrider.v1.Instruction.create({ ...instruction, commandId, verb: 'command', counter: 0, cancel: null });

/** What is wrong with an order before anybody looks at the robot. */
function orderProblem({ kind, joints }: outrider.v1.CommandOrder): string | undefined {
  if (!(COMMAND_KINDS as readonly string[]).includes(kind)) return `'${kind.slice(0, 64)}' is not known here`;
  if (joints.length > COMMAND_JOINTS_MAX) return `it names more than ${COMMAND_JOINTS_MAX} joints`;
  return undefined;
}
