import { logOdds } from './boost.ts';
import {
  groupRow,
  prototypeRow,
  type Shape,
  type StreamModel,
  scale,
  transform,
  VIEWS,
  type View,
} from './stream-model.ts';
import { surprise, type Tail } from './tail.ts';
import { FEATURES_PER_SIGNAL, TIMING_FEATURES } from './windows.ts';

/** CUSUM: what a window may stray without counting, how fast the sum forgets, and how far one window can move it. */
const DRIFT_SLACK = 1;
const DRIFT_MEMORY = 0.97;
const DRIFT_STEP_MAX = 3;
/** Nearest prototypes whose distances are averaged. */
const NEIGHBOURS = 3;
/** Spread, rough and size: what is small when nothing moves. */
const QUIET_FEATURES = [2, 3, 4] as const;
/** Share of a new window in the smoothed score. */
const SMOOTHING = 0.35;
/** What the views say on average counts beside the one that says most. */
const CHORUS_SHARE = 1;

/** With a classifier: how much the other views and the classifier count. */
const UNLABELLED_SHARE = 0.3;
const LEARNT_SHARE = 2;

/** One window as the model's views see it. */
export interface RawViews {
  readonly values: Readonly<Record<View, number>>;
  readonly scaled: Float64Array;
}

/** Walks over the windows of one stream. Keeps what must be remembered between them. */
export class StreamScorer {
  readonly #shape: Shape;
  readonly #classifier: StreamModel['classifier'];
  readonly #up: Float64Array;
  readonly #down: Float64Array;
  readonly #residuals: Float64Array;
  /** From nothing, so that one odd window at the start is not the whole score. */
  #smoothed = 0;

  constructor(shape: Shape, classifier: StreamModel['classifier']) {
    this.#shape = shape;
    this.#classifier = classifier;
    this.#up = new Float64Array(shape.signals.length);
    this.#down = new Float64Array(shape.signals.length);
    this.#residuals = new Float64Array(shape.signals.length);
  }

  /** Every view's own number for the next window. */
  look(window: ArrayLike<number>): RawViews {
    const { floors, signals, groups, prototypes } = this.#shape;
    const scaled = scale(transform(window, floors), this.#shape);
    let level = 0;
    let rate = 0;
    let spread = 0;
    let drift = 0;
    let quiet = 0;
    for (let i = 0; i < signals.length; i += 1) {
      const at = i * FEATURES_PER_SIGNAL;
      const z = scaled[at] as number;
      level = Math.max(level, Math.abs(z));
      rate = Math.max(rate, Math.abs(scaled[at + 1] as number));
      spread = Math.max(spread, Math.abs(scaled[at + 2] as number), Math.abs(scaled[at + 3] as number));
      const step = Math.max(-DRIFT_STEP_MAX, Math.min(DRIFT_STEP_MAX, z));
      const up = Math.max(0, DRIFT_MEMORY * (this.#up[i] as number) + step - DRIFT_SLACK);
      const down = Math.max(0, DRIFT_MEMORY * (this.#down[i] as number) - step - DRIFT_SLACK);
      this.#up[i] = up;
      this.#down[i] = down;
      drift = Math.max(drift, up, down);
      for (const offset of QUIET_FEATURES) quiet -= Math.min(0, scaled[at + offset] as number);
    }
    let together = 0;
    let residual = 0;
    for (const { members, precision } of groups) {
      const row = groupRow(scaled, members);
      const size = row.length;
      let form = 0;
      for (let i = 0; i < size; i += 1) {
        let sum = 0;
        for (let j = 0; j < size; j += 1) sum += (precision[i * size + j] as number) * (row[j] as number);
        form += (row[i] as number) * sum;
        // (P·x)i / √Pii is the distance of value i from what the others predict.
        const distance = Math.abs(sum) / Math.sqrt(precision[i * size + i] as number);
        residual = Math.max(residual, distance);
        const signal = members[i >> 1] as number;
        this.#residuals[signal] = i % 2 === 0 ? distance : Math.max(this.#residuals[signal] as number, distance);
      }
      together = Math.max(together, Math.sqrt(Math.max(0, form)) / Math.sqrt(size));
    }
    const timing = scaled.length - TIMING_FEATURES.length;
    return {
      values: {
        level,
        rate,
        spread,
        drift,
        residual,
        together,
        novelty: nearest(prototypes, prototypeRow(scaled, signals.length)),
        quiet: quiet / Math.max(1, signals.length),
        timing: Math.max(Math.abs(scaled[timing] as number), Math.abs(scaled[timing + 1] as number)),
        learnt: this.#classifier ? logOdds(this.#classifier, learntRow(scaled)) : Number.NaN,
      },
      scaled,
    };
  }

  /** One number of all views, smoothed over time: how surprising this is on normal data, −log10. */
  combine(raw: RawViews, tails: Readonly<Partial<Record<View, Tail>>>): number {
    let highest = 0;
    let sum = 0;
    let count = 0;
    for (const view of VIEWS) {
      const tail = tails[view];
      if (!tail || view === 'learnt') continue;
      const said = surprise(tail, raw.values[view]);
      highest = Math.max(highest, said);
      sum += said;
      count += 1;
    }
    const unlabelled = highest + (CHORUS_SHARE * sum) / Math.max(1, count);
    this.#smoothed += SMOOTHING * (unlabelled - this.#smoothed);
    // A classifier knows what its faults look like: many of them are calm and short. The rest stays with the others.
    return tails.learnt
      ? UNLABELLED_SHARE * this.#smoothed + LEARNT_SHARE * surprise(tails.learnt, raw.values.learnt)
      : this.#smoothed;
  }

  /** How surprising each signal is by itself, 0 to SURPRISE_MAX, after `look`. */
  blame(raw: RawViews, tails: Readonly<Partial<Record<View, Tail>>>): Float64Array {
    const by = (view: View, value: number): number => {
      const tail = tails[view];
      return tail ? surprise(tail, value) : 0;
    };
    return Float64Array.from(this.#shape.signals, (_, i) => {
      const at = i * FEATURES_PER_SIGNAL;
      const z = raw.scaled;
      return Math.max(
        by('level', Math.abs(z[at] as number)),
        by('rate', Math.abs(z[at + 1] as number)),
        by('spread', Math.max(Math.abs(z[at + 2] as number), Math.abs(z[at + 3] as number))),
        by('drift', Math.max(this.#up[i] as number, this.#down[i] as number)),
        by('residual', this.#residuals[i] as number),
      );
    });
  }
}

/** What the classifier sees: each signal's distances, and the stream as a whole. */
export function learntRow(scaled: Float64Array): Float64Array {
  const signals = Math.floor((scaled.length - TIMING_FEATURES.length) / FEATURES_PER_SIGNAL);
  const row = new Float64Array(scaled.length + 2 * FEATURES_PER_SIGNAL);
  row.set(scaled);
  for (let feature = 0; feature < FEATURES_PER_SIGNAL; feature += 1) {
    let sum = 0;
    let size = 0;
    for (let i = 0; i < signals; i += 1) {
      const z = scaled[i * FEATURES_PER_SIGNAL + feature] as number;
      sum += z;
      size += Math.abs(z);
    }
    row[scaled.length + 2 * feature] = sum / Math.max(1, signals);
    row[scaled.length + 2 * feature + 1] = size / Math.max(1, signals);
  }
  return row;
}

function nearest(prototypes: readonly Float32Array[], row: Float64Array): number {
  const best = new Float64Array(NEIGHBOURS).fill(Number.POSITIVE_INFINITY);
  for (const prototype of prototypes) {
    let sum = 0;
    const worst = best[NEIGHBOURS - 1] as number;
    for (let i = 0; i < row.length; i += 1) {
      const difference = (row[i] as number) - (prototype[i] as number);
      sum += difference * difference;
      if (sum >= worst) break;
    }
    if (sum >= worst) continue;
    let at = NEIGHBOURS - 1;
    while (at > 0 && (best[at - 1] as number) > sum) {
      best[at] = best[at - 1] as number;
      at -= 1;
    }
    best[at] = sum;
  }
  const found = best.filter(Number.isFinite);
  return found.length === 0 ? 0 : Math.sqrt(found.reduce((a, b) => a + b, 0) / found.length / Math.max(1, row.length));
}
