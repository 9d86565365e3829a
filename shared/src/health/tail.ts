import { quantileOfSorted, sortedFinite } from './statistics.ts';

/** Past this share of the values the tail is an exponential and no longer the values themselves. */
export const TAIL_SHARE = 0.1;
/** Views count in standard deviations: less than this is rounding, however still the normal data was. */
const SCALE_MIN = 0.05;
/** Points that the body of the distribution is kept as. */
const BODY_POINTS = 21;
/** Neighbouring windows overlap: so many say what one does. */
const RUN_WINDOWS = 10;
/** What "never seen" counts as at most: 10^-8. */
const SURPRISE_MAX = 8;

/** How a score is distributed on normal data: points of the body, and an exponential tail beyond the last. */
export interface Tail {
  /** Values at evenly spaced shares from 0 to 1 − TAIL_SHARE. */
  readonly body: readonly number[];
  /** Mean excess over the last point. */
  readonly scale: number;
}

/** Learns a score's distribution from held-out normal values. */
export function fitTail(values: Iterable<number>): Tail {
  const sorted = sortedFinite(values);
  if (sorted.length === 0) return { body: [0, 0], scale: 1 };
  const body = Array.from({ length: BODY_POINTS }, (_, i) =>
    quantileOfSorted(sorted, ((1 - TAIL_SHARE) * i) / (BODY_POINTS - 1)),
  );
  const edge = body[BODY_POINTS - 1] as number;
  let sum = 0;
  let count = 0;
  for (const value of sorted)
    if (value > edge) {
      sum += value - edge;
      count += 1;
    }
  // An exponential's median and its 90 % point lie ln 5 scales apart: a tail is never taken for much shorter than that.
  const middle = quantileOfSorted(sorted, 0.5);
  const shortest = (edge - middle) / Math.log(0.5 / TAIL_SHARE);
  // Few values show too little of a tail, and neighbouring windows overlap.
  const doubt = 1 + 2 / Math.sqrt(Math.max(1, count / RUN_WINDOWS));
  return { body, scale: Math.max((doubt * sum) / Math.max(1, count), shortest, SCALE_MIN) };
}

/** How surprising a value is: −log10 of the share of normal values that are as high. 1 is one in ten. */
export function surprise({ body, scale }: Tail, value: number): number {
  if (Number.isNaN(value)) return 0;
  const last = body.length - 1;
  const edge = body[last] as number;
  if (value >= edge) {
    const beyond = (value - edge) / scale;
    return Math.min(SURPRISE_MAX, 1 + beyond * Math.LOG10E);
  }
  let low = 0;
  let high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((body[middle] as number) <= value) low = middle;
    else high = middle;
  }
  const from = body[low] as number;
  const to = body[high] as number;
  const within = value <= from ? 0 : to > from ? (value - from) / (to - from) : 1;
  const share = ((1 - TAIL_SHARE) * (low + within)) / Math.max(1, last);
  return -Math.log10(Math.max(TAIL_SHARE, 1 - share));
}
