/** What a window says of each signal, in this order; `FEATURES_PER_SIGNAL` numbers a signal. */
export const SIGNAL_FEATURES = ['level', 'rate', 'spread', 'rough', 'size', 'lean'] as const;
export const FEATURES_PER_SIGNAL = SIGNAL_FEATURES.length;
/** After the signals: samples a second, and the longest gap between two samples. [Hz], [s] */
export const TIMING_FEATURES = ['sample_rate', 'gap'] as const;

export interface WindowOptions {
  /** A window moves on by this much, or by one sample where those are further apart. [ms] */
  readonly hopMs: number;
  /** Hops that a window spans. */
  readonly hops: number;
}

export const DEFAULT_WINDOWS: WindowOptions = { hopMs: 1000, hops: 10 };

/** Windows over which `lean`'s reference follows a signal that wanders, such as a temperature. */
const REFERENCE_WINDOWS = 200;

/** Sums of one hop, from which the sums of several follow. */
interface Hop {
  readonly count: Float64Array;
  readonly mean: Float64Array;
  readonly squares: Float64Array;
  readonly steps: Float64Array;
  readonly sizes: Float64Array;
  samples: number;
  startMs: number;
  gapMs: number;
}

/**
 * Turns samples into windows of statistics. Each sample costs a few additions a signal; the rest happens once a hop.
 *
 * Features of a signal: `level`, the newest hop's mean; `rate`, that level less the mean of the window before; `spread`,
 * the standard deviation in the window; `rough`, the mean step from sample to sample; `size`, the newest hop's mean
 * magnitude, which is small when a speed of either sign is; `lean`, the level less a slowly following mean, for signals
 * that wander without being wrong. NaN where nothing was measured.
 */
export class SignalWindows {
  readonly signalCount: number;
  readonly #options: WindowOptions;
  readonly #hops: Hop[] = [];
  readonly #last: Float64Array;
  #open: Hop;
  #spare: Hop | undefined;
  readonly #reference: Float64Array;
  #referenceWindows = 0;
  #lastMs = Number.NaN;
  #hopsEnded = 0;

  constructor(signalCount: number, options: WindowOptions = DEFAULT_WINDOWS) {
    this.signalCount = signalCount;
    this.#options = options;
    this.#last = new Float64Array(signalCount).fill(Number.NaN);
    this.#reference = new Float64Array(signalCount).fill(Number.NaN);
    this.#open = emptyHop(signalCount);
  }

  /** Grows when a hop ends, with a whole window or without one. */
  get hopsEnded(): number {
    return this.#hopsEnded;
  }

  get featureCount(): number {
    return this.signalCount * FEATURES_PER_SIGNAL + TIMING_FEATURES.length;
  }

  /**
   * Adds a sample.
   *
   * @param values The signals' values; `indices[i]` says where signal i is among them.
   * @returns The window's features when this sample begins a new hop and the window before it is whole. The sample
   * itself belongs to the next window.
   */
  push(atMs: number, values: ArrayLike<number>, indices: ArrayLike<number>): Float64Array | undefined {
    const open = this.#open;
    let features: Float64Array | undefined;
    if (open.samples > 0 && (atMs - open.startMs >= this.#options.hopMs || atMs < this.#lastMs)) {
      features = this.#close(atMs);
    }
    this.#add(this.#open, atMs, values, indices);
    return features;
  }

  /** Ends the open hop although no sample follows. @returns The window's features when it is whole. */
  flush(nextMs: number): Float64Array | undefined {
    return this.#open.samples > 0 ? this.#close(nextMs) : undefined;
  }

  /** Forgets the past, as after a break in the data. */
  reset(): void {
    this.#hops.length = 0;
    this.#hopsEnded += 1;
    this.#open = emptyHop(this.signalCount);
    this.#last.fill(Number.NaN);
    this.#reference.fill(Number.NaN);
    this.#referenceWindows = 0;
    this.#lastMs = Number.NaN;
  }

  #add(hop: Hop, atMs: number, values: ArrayLike<number>, indices: ArrayLike<number>): void {
    if (hop.samples === 0) hop.startMs = atMs;
    if (!Number.isNaN(this.#lastMs)) hop.gapMs = Math.max(hop.gapMs, atMs - this.#lastMs);
    hop.samples += 1;
    this.#lastMs = atMs;
    const { count, mean, squares, steps, sizes } = hop;
    const last = this.#last;
    for (let i = 0; i < this.signalCount; i += 1) {
      const value = values[indices[i] as number] as number;
      // NaN and infinities measure nothing.
      if (!(value - value === 0)) continue;
      const n = (count[i] as number) + 1;
      const delta = value - (mean[i] as number);
      const center = (mean[i] as number) + delta / n;
      count[i] = n;
      mean[i] = center;
      squares[i] = (squares[i] as number) + delta * (value - center);
      const step = value - (last[i] as number);
      if (!Number.isNaN(step)) steps[i] = (steps[i] as number) + (step < 0 ? -step : step);
      last[i] = value;
      sizes[i] = (sizes[i] as number) + (value < 0 ? -value : value);
    }
  }

  #close(nextMs: number): Float64Array | undefined {
    const hops = this.#hops;
    this.#hopsEnded += 1;
    hops.push(this.#open);
    if (hops.length > this.#options.hops) this.#spare = hops.shift();
    const features = hops.length === this.#options.hops ? this.#features(nextMs) : undefined;
    const next = this.#spare ?? emptyHop(this.signalCount);
    this.#spare = undefined;
    clearHop(next);
    this.#open = next;
    return features;
  }

  #features(nextMs: number): Float64Array {
    const hops = this.#hops;
    const newest = hops[hops.length - 1] as Hop;
    const features = new Float64Array(this.featureCount);
    this.#referenceWindows += 1;
    const follow = 1 / Math.min(this.#referenceWindows, REFERENCE_WINDOWS);
    for (let i = 0; i < this.signalCount; i += 1) {
      let n = 0;
      let mean = 0;
      let squares = 0;
      let steps = 0;
      let meanBefore = Number.NaN;
      for (const hop of hops) {
        if (hop === newest) meanBefore = n > 0 ? mean : Number.NaN;
        const count = hop.count[i] as number;
        if (count === 0) continue;
        const delta = (hop.mean[i] as number) - mean;
        const total = n + count;
        squares += (hop.squares[i] as number) + (delta * delta * n * count) / total;
        mean += (delta * count) / total;
        n = total;
        steps += hop.steps[i] as number;
      }
      const level = (newest.count[i] as number) > 0 ? (newest.mean[i] as number) : Number.NaN;
      const at = i * FEATURES_PER_SIGNAL;
      features[at] = level;
      features[at + 1] = level - meanBefore;
      features[at + 2] = n > 1 ? Math.sqrt(Math.max(0, squares) / n) : Number.NaN;
      features[at + 3] = n > 1 ? steps / n : Number.NaN;
      const newestCount = newest.count[i] as number;
      features[at + 4] = newestCount > 0 ? (newest.sizes[i] as number) / newestCount : Number.NaN;
      const reference = this.#reference[i] as number;
      const before = Number.isNaN(reference) ? level : reference;
      features[at + 5] = level - before;
      if (!Number.isNaN(level)) this.#reference[i] = before + follow * (level - before);
    }
    const timing = this.signalCount * FEATURES_PER_SIGNAL;
    const first = hops[0] as Hop;
    let samples = 0;
    let gapMs = 0;
    for (const hop of hops) {
      samples += hop.samples;
      gapMs = Math.max(gapMs, hop.gapMs);
    }
    features[timing] = samples / Math.max(1e-3, (nextMs - first.startMs) / 1000);
    features[timing + 1] = gapMs / 1000;
    return features;
  }
}

function emptyHop(signals: number): Hop {
  return {
    count: new Float64Array(signals),
    mean: new Float64Array(signals),
    squares: new Float64Array(signals),
    steps: new Float64Array(signals),
    sizes: new Float64Array(signals),
    samples: 0,
    startMs: 0,
    gapMs: 0,
  };
}

function clearHop(hop: Hop): void {
  hop.count.fill(0);
  hop.mean.fill(0);
  hop.squares.fill(0);
  hop.steps.fill(0);
  hop.sizes.fill(0);
  hop.samples = 0;
  hop.gapMs = 0;
}
