/** The value below which a share `q` of the sorted values lies, interpolated. NaN when there are none. */
export function quantileOfSorted(sorted: ArrayLike<number>, q: number): number {
  if (sorted.length === 0) return Number.NaN;
  const at = Math.min(1, Math.max(0, q)) * (sorted.length - 1);
  const low = Math.floor(at);
  const below = sorted[low] as number;
  const above = sorted[Math.min(low + 1, sorted.length - 1)] as number;
  return below + (above - below) * (at - low);
}

/** Sorted copy of the finite values. */
export const sortedFinite = (values: Iterable<number>): Float64Array =>
  Float64Array.from(values).filter(Number.isFinite).sort();

/** Where values usually lie and how far they usually stray; outliers count little. */
export interface RobustScale {
  readonly center: number;
  readonly scale: number;
}

/** MAD, and the spread of the middle half, as a standard deviation. */
const MAD_TO_SIGMA = 1.4826;
const IQR_TO_SIGMA = 1 / 1.349;
/** A robust scale may be 0 for a signal that rarely moves: the standard deviation then speaks for the rare moves. */
const SIGMA_SHARE = 0.5;

/**
 * Median and scale. The scale is never 0: a signal that never moved gets a thousandth of its level, so that rounding
 * alone is no anomaly and a real change still is one.
 */
export function robustScale(values: Iterable<number>): RobustScale {
  const sorted = sortedFinite(values);
  if (sorted.length === 0) return { center: 0, scale: 1 };
  const center = quantileOfSorted(sorted, 0.5);
  const deviations = sorted.map((value) => Math.abs(value - center)).sort();
  let sum = 0;
  for (const deviation of deviations) sum += deviation * deviation;
  const scale = Math.max(
    MAD_TO_SIGMA * quantileOfSorted(deviations, 0.5),
    IQR_TO_SIGMA * (quantileOfSorted(sorted, 0.75) - quantileOfSorted(sorted, 0.25)),
    SIGMA_SHARE * Math.sqrt(sum / sorted.length),
    1e-3 * Math.abs(center),
    1e-9,
  );
  return { center, scale };
}

/** A value kept within ±limit; NaN becomes 0, which says nothing. */
export const clip = (value: number, limit: number): number =>
  value > limit ? limit : value < -limit ? -limit : Number.isNaN(value) ? 0 : value;
