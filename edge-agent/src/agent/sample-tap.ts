import type { Sample } from '@outrider/shared/telemetry';

/** What a listener may fall behind. */
const QUEUE_MAX = 1000;
const LISTENERS_MAX = 8;

/** Shows live samples to whoever looks. A slow listener loses the oldest, and is told how many; it slows down nobody. */
export class SampleTap {
  readonly #listeners = new Set<Listener>();

  add(sample: Sample): void {
    for (const listener of this.#listeners) listener.add(sample);
  }

  /** @returns `undefined` when there are too many listeners already. */
  open(stream: string | undefined): Listener | undefined {
    if (this.#listeners.size >= LISTENERS_MAX) return undefined;
    const listener = new Listener(stream, () => this.#listeners.delete(listener));
    this.#listeners.add(listener);
    return listener;
  }
}

/** One listener's bounded queue. */
export class Listener {
  readonly #stream: string | undefined;
  readonly #onClose: () => void;
  readonly #queue: Sample[] = [];
  #dropped = 0;
  #wake: () => void = () => {};
  #isClosed = false;

  constructor(stream: string | undefined, onClose: () => void) {
    this.#stream = stream;
    this.#onClose = onClose;
  }

  add(sample: Sample): void {
    if (this.#stream !== undefined && sample.layout.stream !== this.#stream) return;
    if (this.#queue.length >= QUEUE_MAX) {
      this.#queue.shift();
      this.#dropped += 1;
    }
    this.#queue.push(sample);
    this.#wake();
  }

  /** Everything that waits; waits for the first when nothing does. Empty once closed. */
  async next(): Promise<{ readonly samples: readonly Sample[]; readonly dropped: number }> {
    if (this.#queue.length === 0 && !this.#isClosed)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    const dropped = this.#dropped;
    this.#dropped = 0;
    return { samples: this.#queue.splice(0), dropped };
  }

  /** Closing twice is harmless. */
  close(): void {
    this.#isClosed = true;
    this.#onClose();
    this.#wake();
  }
}
