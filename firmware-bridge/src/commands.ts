import type { FaultKind, McuState, Message, MessageOf, NackReason, TelemetryStream } from './messages.ts';

/** A command without its number, which the link gives it. */
export type Command =
  | { readonly kind: 'stop' }
  | { readonly kind: 'hold' }
  | { readonly kind: 'arm'; readonly bootNonce: number; readonly motionEpoch: number }
  | { readonly kind: 'release'; readonly bootNonce: number; readonly motionEpoch: number }
  | { readonly kind: 'setpoints'; readonly motionEpoch: number; readonly positionRad: Float64Array }
  | { readonly kind: 'set_rate'; readonly stream: TelemetryStream; readonly rateHz: number }
  | { readonly kind: 'fault'; readonly fault: FaultKind; readonly joint: number; readonly value: number };

/** How a command ended. `failed`: nobody knows whether the MCU did it. */
export type CommandOutcome =
  | { readonly kind: 'accepted'; readonly state: McuState }
  | { readonly kind: 'refused'; readonly state: McuState; readonly reason: NackReason }
  | {
      readonly kind: 'failed';
      readonly reason: 'timeout' | 'closed' | 'cancelled' | 'busy' | 'not_connected' | 'reset';
    };

/** Commands that wait for an answer at most. */
const PENDING_MAX = 64;

interface Pending {
  readonly message: Message;
  readonly command: Command;
  readonly resolve: (outcome: CommandOutcome) => void;
  attemptsLeft: number;
  timer: NodeJS.Timeout | undefined;
}

export interface CommandQueueOptions {
  readonly send: (message: Message) => void;
  /** How long an answer may take before the command is sent again. [ms] */
  readonly ackTimeoutMs: number;
  /** How often a command is sent again without an answer. */
  readonly retries: number;
}

/**
 * Sends commands until they are answered. A command keeps its number when it is sent again, so the MCU does it at
 * most once; and a stop cancels whatever could still start motion, so that no late retry of an ARM follows it.
 * [FB-15] [FB-16]
 */
export class CommandQueue {
  readonly #options: CommandQueueOptions;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;

  constructor(options: CommandQueueOptions) {
    this.#options = options;
  }

  submit(command: Command): Promise<CommandOutcome> {
    const isStop = command.kind === 'stop';
    if (isStop || command.kind === 'hold') this.#cancelMotion();
    if (this.#pending.size >= PENDING_MAX && !isStop) return Promise.resolve({ kind: 'failed', reason: 'busy' });
    const commandId = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve) => {
      const message: Message = { ...command, commandId };
      const pending: Pending = { message, command, resolve, attemptsLeft: this.#options.retries, timer: undefined };
      // First, because it throws for a value that cannot stand on the line, and then nothing waits.
      this.#options.send(pending.message);
      this.#pending.set(commandId, pending);
      this.#await(commandId, pending);
    });
  }

  /** Takes an ACK or NACK. Answers to nobody's command are ignored: they are late doubles. */
  answered(answer: MessageOf<'ack'> | MessageOf<'nack'>): Command | undefined {
    const pending = this.#pending.get(answer.commandId);
    if (pending === undefined) return undefined;
    const { state, reason } = answer;
    this.#settle(
      answer.commandId,
      answer.kind === 'ack' ? { kind: 'accepted', state } : { kind: 'refused', state, reason },
    );
    return answer.kind === 'ack' ? pending.command : undefined;
  }

  /** Ends every waiting command. */
  failAll(reason: 'closed' | 'reset'): void {
    for (const id of [...this.#pending.keys()]) this.#settle(id, { kind: 'failed', reason });
  }

  #cancelMotion(): void {
    for (const [id, { command }] of [...this.#pending]) {
      const startsMotion = command.kind === 'arm' || command.kind === 'release' || command.kind === 'setpoints';
      if (startsMotion) this.#settle(id, { kind: 'failed', reason: 'cancelled' });
    }
  }

  #await(id: number, pending: Pending): void {
    pending.timer = setTimeout(() => {
      if (pending.attemptsLeft === 0) {
        this.#settle(id, { kind: 'failed', reason: 'timeout' });
        return;
      }
      pending.attemptsLeft -= 1;
      this.#options.send(pending.message);
      this.#await(id, pending);
    }, this.#options.ackTimeoutMs);
  }

  #settle(id: number, outcome: CommandOutcome): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    clearTimeout(pending.timer);
    this.#pending.delete(id);
    pending.resolve(outcome);
  }
}
