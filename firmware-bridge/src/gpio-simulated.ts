import { readFileSync } from 'node:fs';
import { type EstopState, EstopWatch, type GpioOptions, type GpioPort } from './gpio-port.ts';

/** How often the file is read. Read, not watched: a change between two looks at its times could be missed. [ms] */
const POLL_MS = 20;

/**
 * Lines that exist in memory. With `file`, the input is what stands in it (`clear` or `pressed`); anything else, and
 * no file at all, is `unknown`, as a cut wire would be: replace the file by renaming, because one that is just being
 * written is empty for a moment. Without `file`, the input starts `clear` and `setEstop` changes it.
 */
export class SimulatedGpio implements GpioPort {
  readonly hasEstop: boolean;
  readonly #watch = new EstopWatch();
  readonly #file: string | undefined;
  readonly #poll: NodeJS.Timeout | undefined;
  #stopAsserted = true;
  #closed = false;

  constructor(options: Pick<GpioOptions, 'file'> = {}) {
    this.hasEstop = true;
    this.#file = options.file;
    if (this.#file === undefined) {
      this.#watch.set('clear');
      return;
    }
    this.#readFile();
    this.#poll = setInterval(() => this.#readFile(), POLL_MS);
    this.#poll.unref();
  }

  readEstop(): EstopState {
    return this.#watch.state;
  }

  onEstop(listener: (state: EstopState) => void): () => void {
    return this.#watch.on(listener);
  }

  /** Presses or clears the simulated button. */
  setEstop(state: EstopState): void {
    this.#watch.set(state);
  }

  setStop(asserted: boolean): void {
    this.#stopAsserted = asserted || this.#closed;
  }

  readStop(): 'asserted' | 'released' {
    return this.#stopAsserted ? 'asserted' : 'released';
  }

  /** What the output says. */
  get stopAsserted(): boolean {
    return this.#stopAsserted;
  }

  close(): void {
    this.#closed = true;
    this.#stopAsserted = true;
    clearInterval(this.#poll);
  }

  #readFile(): void {
    let content = '';
    try {
      content = readFileSync(this.#file ?? '', 'utf8').trim();
    } catch {
      // No file is an open input: `unknown`.
    }
    this.#watch.set(content === 'clear' || content === 'pressed' ? content : 'unknown');
  }
}
