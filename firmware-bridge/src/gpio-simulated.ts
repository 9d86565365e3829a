import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { type EstopState, EstopWatch, type GpioOptions, type GpioPort } from './gpio.ts';

/** How often the file is looked at. [ms] */
const POLL_MS = 20;

/**
 * Lines that exist in memory. With `file`, the input is what stands in it (`clear` or `pressed`); anything else, and
 * no file at all, is `unknown`, as a cut wire would be. Without `file`, the input starts `clear` and `setEstop`
 * changes it.
 */
export class SimulatedGpio implements GpioPort {
  readonly hasEstop: boolean;
  readonly #watch = new EstopWatch();
  readonly #file: string | undefined;
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
    watchFile(this.#file, { interval: POLL_MS, persistent: false }, this.#readFile);
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

  /** What the output says. */
  get stopAsserted(): boolean {
    return this.#stopAsserted;
  }

  close(): void {
    this.#closed = true;
    this.#stopAsserted = true;
    if (this.#file !== undefined) unwatchFile(this.#file, this.#readFile);
  }

  readonly #readFile = (): void => {
    let content = '';
    try {
      content = readFileSync(this.#file ?? '', 'utf8').trim();
    } catch {
      // No file is an open input: `unknown`.
    }
    this.#watch.set(content === 'clear' || content === 'pressed' ? content : 'unknown');
  };
}
