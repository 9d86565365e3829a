import { DomainError } from '@outrider/shared/errors';
import { PROTOCOL_VERSION } from './frame.ts';
import type { McuHello } from './messages.ts';
import type { ParserStats } from './parser.ts';

export interface HandshakeOptions {
  readonly sendHello: () => void;
  /** How often HELLO is sent until it is answered. [ms] */
  readonly intervalMs: number;
  /** How long a caller waits. [ms] */
  readonly timeoutMs: number;
  /** What was heard meanwhile, for the error when nobody answers. */
  readonly stats: Readonly<ParserStats>;
}

interface Waiter {
  readonly resolve: (hello: McuHello) => void;
  readonly reject: (error: Error) => void;
}

/** Sends HELLO until it is answered. [FB-12] */
export class Handshake {
  readonly #options: HandshakeOptions;
  #timer: NodeJS.Timeout | undefined;
  #waiters: Waiter[] = [];
  #otherVersion: number | undefined;

  constructor(options: HandshakeOptions) {
    this.#options = options;
  }

  /** @throws DomainError `timeout`, `unsupported`, `unavailable` (given up), or what `fail` was called with. */
  async run(signal?: AbortSignal): Promise<McuHello> {
    const answered = new Promise<McuHello>((resolve, reject) => this.#waiters.push({ resolve, reject }));
    // What came earlier on this line says nothing of who answers now.
    const before = { ...this.#options.stats };
    const expired = setTimeout(() => this.fail(this.#silence(before)), this.#options.timeoutMs);
    const abandon = (): void => this.fail(new DomainError('unavailable', 'the handshake was given up'));
    signal?.addEventListener('abort', abandon, { once: true });
    if (signal?.aborted) abandon();
    else this.begin();
    try {
      return await answered;
    } finally {
      clearTimeout(expired);
      signal?.removeEventListener('abort', abandon);
    }
  }

  /** Starts to ask, with nobody waiting. Harmless while asking already. */
  begin(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(this.#options.sendHello, this.#options.intervalMs);
    this.#options.sendHello();
  }

  answered(hello: McuHello): void {
    this.#stop();
    for (const waiter of this.#waiters.splice(0)) waiter.resolve(hello);
  }

  fail(error: Error): void {
    this.#stop();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }

  /** A whole frame of another protocol version came. */
  heardOtherVersion(version: number): void {
    this.#otherVersion = version;
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #silence(before: Readonly<ParserStats>): DomainError {
    if (this.#otherVersion !== undefined) {
      const versions = `protocol ${this.#otherVersion}, this program ${PROTOCOL_VERSION}`;
      return new DomainError('unsupported', `the MCU speaks ${versions}: update the firmware or this program`);
    }
    const { timeoutMs, stats } = this.#options;
    const start = `no answer to HELLO within ${timeoutMs} ms: `;
    const bytes = stats.bytesReceived - before.bytesReceived;
    if (bytes === 0) {
      return new DomainError('timeout', `${start}not one byte came; check the path, the cable and the MCU's power`);
    }
    if (stats.framesOk === before.framesOk) {
      const heard = `${bytes} bytes came but no valid frame`;
      return new DomainError('timeout', `${start}${heard}; check the baud rate and that this is the right device`);
    }
    return new DomainError('timeout', `${start}the MCU sends but does not hear us; check the line to it (TX)`);
  }
}
