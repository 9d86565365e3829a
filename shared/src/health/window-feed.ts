import { SignalWindows, type WindowOptions } from './windows.ts';

/** Without a sample for this long, and for so many usual intervals, what follows is a new beginning. */
const BREAK_MS = 30_000;
const BREAK_INTERVALS = 10;

/** Cuts one stream's samples into windows, across small disorder and not across breaks. */
export class WindowFeed {
  readonly #indices: ArrayLike<number>;
  readonly #windows: SignalWindows;
  #lastMs = Number.NaN;
  #intervalMs = 0;

  constructor(indices: ArrayLike<number>, options: WindowOptions) {
    this.#indices = indices;
    this.#windows = new SignalWindows(indices.length, options);
  }

  /** Grows when a hop ends, with a whole window or without one. */
  get hopsEnded(): number {
    return this.#windows.hopsEnded;
  }

  /** @returns The features of the window that ends with this sample, when one does. */
  push(givenMs: number, values: ArrayLike<number>): Float64Array | undefined {
    let atMs = givenMs;
    const stepMs = atMs - this.#lastMs;
    if (Math.abs(stepMs) > Math.max(BREAK_MS, BREAK_INTERVALS * this.#intervalMs)) this.#windows.reset();
    // A little disorder is no break: it belongs to the present window.
    else if (stepMs < 0) atMs = this.#lastMs;
    else if (stepMs > 0) this.#intervalMs += (stepMs - this.#intervalMs) / (this.#intervalMs === 0 ? 1 : 20);
    this.#lastMs = atMs;
    return this.#windows.push(atMs, values, this.#indices);
  }
}
