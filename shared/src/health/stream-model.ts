import type { AlarmBasis } from './alarm-level.ts';
import type { Classifier } from './boost.ts';
import { precisionOf } from './matrix.ts';
import { clip, quantileOfSorted, robustScale } from './statistics.ts';
import type { Tail } from './tail.ts';
import { FEATURES_PER_SIGNAL, TIMING_FEATURES, type WindowOptions } from './windows.ts';

/** The ways in which a window is looked at. Each has a distribution of its own on normal data. */
export const VIEWS = [
  /** A signal lies where it never lies. */
  'level',
  /** A signal moves faster than ever. */
  'rate',
  /** A signal is more, or less, restless than ever. */
  'spread',
  /** A signal creeps away (CUSUM). */
  'drift',
  /** A signal is not what the others say that it should be. */
  'residual',
  /** The signals together are where they never were (Mahalanobis). */
  'together',
  /** No learnt window is like this one (nearest neighbours). */
  'novelty',
  /** Everything is calmer than usual at once. */
  'quiet',
  /** Samples come at another rate, or with gaps. */
  'timing',
  /** It looks like the labelled faults. */
  'learnt',
] as const;
export type View = (typeof VIEWS)[number];

/** Signals whose windows are judged by one precision matrix. */
export interface SignalGroup {
  readonly members: readonly number[];
  /** Of level and spread of each member: (2·members)². */
  readonly precision: Float32Array;
}

/** What normal windows of one stream look like. */
export interface StreamModel {
  readonly signals: readonly string[];
  /** Time from one window to the next, as measured. [ms] */
  readonly windowMs: number;
  /** Added to a spread or a step before its logarithm: what counts as "still". */
  readonly floors: Float64Array;
  readonly centers: Float64Array;
  readonly scales: Float64Array;
  /** Per signal 1 when it wanders on normal data: its lean then speaks for its level. */
  readonly wanders: Uint8Array;
  readonly groups: readonly SignalGroup[];
  /** Scaled levels and spreads of some normal windows. */
  readonly prototypes: readonly Float32Array[];
  readonly tails: Readonly<Partial<Record<View, Tail>>>;
  readonly alarm: AlarmBasis;
  readonly classifier: Classifier | undefined;
  /** The windows that it was learnt from and judges; absent: those of whoever loads it. */
  readonly windows?: WindowOptions;
}

/** A model without what only held-out windows can tell. */
export type Shape = Omit<StreamModel, 'tails' | 'alarm' | 'classifier' | 'windows'>;

/** Past this the distance of a feature says no more. [standard deviations] */
export const Z_MAX = 8;
/** Spread, rough and size, which go by their logarithm. */
const MAGNITUDES = [2, 3, 4] as const;
const SIZE = 4;
const LEAN = 5;
const GROUP_SIGNALS_MAX = 32;
const PROTOTYPES_MAX = 96;
/** A source that keeps its rate perfectly may still be a tenth off once. */
const TIMING_SCALE_MIN = 0.1;
/** A spread below this share of its usual value is "still". */
const STILL_SHARE = 0.02;

/** Work in small pieces, so that whoever learns beside other duties can stop in between. */
export type Steps<T> = Generator<undefined, T, undefined>;

/** Does all of it at once. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** Features, or windows, that one piece of the work looks at. */
const PIECE = 8;

/**
 * Learns what windows look like from normal ones in order of time.
 *
 * @param later The normal windows after those. They only tell which signals wander.
 */
export function* fitShape(
  signals: readonly string[],
  windows: readonly ArrayLike<number>[],
  windowMs: number,
  later: readonly ArrayLike<number>[] = [],
): Steps<Shape> {
  const count = signals.length;
  const width = count * FEATURES_PER_SIGNAL + TIMING_FEATURES.length;
  const floors = new Float64Array(width);
  const centers = new Float64Array(width);
  const scales = new Float64Array(width);
  const wanders = new Uint8Array(count);
  for (let i = 0; i < count; i += 1) {
    for (const offset of MAGNITUDES) {
      const at = i * FEATURES_PER_SIGNAL + offset;
      const usual = robustScale(windows.map((window) => window[at] as number));
      floors[at] = Math.max(STILL_SHARE * (usual.center + usual.scale), 1e-9);
    }
    wanders[i] = Number(doesWander([...windows, ...later], i * FEATURES_PER_SIGNAL));
    if (i % PIECE === PIECE - 1) yield;
  }
  const transformed = windows.map((window) => transform(window, floors));
  yield;
  for (let at = 0; at < width; at += 1) {
    const usual = robustScale(transformed.map((window) => window[at] as number));
    centers[at] = usual.center;
    scales[at] = at < count * FEATURES_PER_SIGNAL ? usual.scale : Math.max(usual.scale, TIMING_SCALE_MIN);
    if (at % (4 * PIECE) === 4 * PIECE - 1) yield;
  }
  const scaled = transformed.map((window) => scale(window, { centers, scales, wanders }));
  const groups: SignalGroup[] = [];
  for (let from = 0; from < count; from += GROUP_SIGNALS_MAX) {
    yield;
    const members = Array.from({ length: Math.min(GROUP_SIGNALS_MAX, count - from) }, (_, i) => from + i);
    const rows = scaled.map((window) => groupRow(window, members));
    groups.push({ members, precision: Float32Array.from(precisionOf(rows, members.length * 2)) });
  }
  const every = Math.max(1, scaled.length / PROTOTYPES_MAX);
  const prototypes = Array.from({ length: Math.min(PROTOTYPES_MAX, scaled.length) }, (_, i) =>
    Float32Array.from(prototypeRow(scaled[Math.floor(i * every)] as Float64Array, count)),
  );
  return { signals, windowMs, floors, centers, scales, wanders, groups, prototypes };
}

/** Spreads and steps go by their logarithm, so that "too quiet" is as far away as "too loud". */
export function transform(window: ArrayLike<number>, floors: ArrayLike<number>): Float64Array {
  const result = Float64Array.from(window);
  for (let at = 0; at < result.length; at += 1) {
    const floor = floors[at] as number;
    if (floor > 0) result[at] = Math.log((result[at] as number) + floor);
  }
  const timing = result.length - TIMING_FEATURES.length;
  for (let at = timing; at < result.length; at += 1) result[at] = Math.log((result[at] as number) + 1e-3);
  return result;
}

/** Fewer windows do not show whether a signal wanders. */
const WANDER_WINDOWS_MIN = 60;
/** Windows this far apart share no samples. */
const WANDER_LAG = 10;
/** Share of a level's variance that shows between windows this near: 1 for noise and motion, near 0 for what creeps. */
const WANDER_RATIO_MAX = 0.35;
/** A signal that went up and down as often has shown where it lies. */
const RETURNS_MIN = 8;
/** What the level of a signal that wanders can say at most. [standard deviations] */
const WANDER_Z_MAX = 2.5;

/**
 * Whether a level creeps to where it never was without being wrong, as temperatures and charges do: neighbouring
 * windows are alike (von Neumann's ratio), and it has not come back often.
 */
function doesWander(windows: readonly ArrayLike<number>[], at: number): boolean {
  if (windows.length < WANDER_WINDOWS_MIN) return false;
  const levels = windows.map((window) => window[at] as number).filter(Number.isFinite);
  const sorted = levels.toSorted((a, b) => a - b);
  const [low, high] = [quantileOfSorted(sorted, 0.2), quantileOfSorted(sorted, 0.8)];
  let returns = 0;
  let side = 0;
  let steps = 0;
  let variance = 0;
  const mean = levels.reduce((sum, level) => sum + level, 0) / Math.max(1, levels.length);
  levels.forEach((level, i) => {
    const now = level > high ? 1 : level < low ? -1 : side;
    if (side !== 0 && now !== side) returns += 1;
    side = now;
    variance += (level - mean) ** 2;
    if (i >= WANDER_LAG) steps += (level - (levels[i - WANDER_LAG] as number)) ** 2;
  });
  return returns < RETURNS_MIN && steps < WANDER_RATIO_MAX * 2 * variance;
}

/**
 * Distances from normal in standard deviations, bounded; 0 for what was not measured. The level of a signal that
 * wanders is its lean.
 */
export function scale(
  transformed: ArrayLike<number>,
  { centers, scales, wanders }: Pick<Shape, 'centers' | 'scales' | 'wanders'>,
): Float64Array {
  const result = new Float64Array(transformed.length);
  for (let at = 0; at < result.length; at += 1)
    result[at] = clip(((transformed[at] as number) - (centers[at] as number)) / (scales[at] as number), Z_MAX);
  for (let i = 0; i < wanders.length; i += 1) {
    if (wanders[i] !== 1) continue;
    const at = i * FEATURES_PER_SIGNAL;
    result[at] = clip(result[at + LEAN] as number, WANDER_Z_MAX);
    result[at + SIZE] = 0;
  }
  return result;
}

/** Level and spread of a group's signals. */
export function groupRow(scaled: Float64Array, members: readonly number[]): Float64Array {
  const row = new Float64Array(members.length * 2);
  for (let i = 0; i < members.length; i += 1) {
    const at = (members[i] as number) * FEATURES_PER_SIGNAL;
    row[2 * i] = scaled[at] as number;
    row[2 * i + 1] = scaled[at + 2] as number;
  }
  return row;
}

/** Level and spread of all signals. */
export function prototypeRow(scaled: Float64Array, signals: number): Float64Array {
  const row = new Float64Array(signals * 2);
  for (let i = 0; i < signals; i += 1) {
    row[2 * i] = scaled[i * FEATURES_PER_SIGNAL] as number;
    row[2 * i + 1] = scaled[i * FEATURES_PER_SIGNAL + 2] as number;
  }
  return row;
}
