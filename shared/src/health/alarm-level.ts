import { quantileOfSorted, sortedFinite } from './statistics.ts';
import { TAIL_SHARE } from './tail.ts';

/** What normal scores show of how high they go. A few numbers, kept in the model and refined while nothing is wrong. */
export interface AlarmBasis {
  /** Normal scores lie below this in all but TAIL_SHARE of the windows. */
  readonly edge: number;
  /** Mean height over the edge of the peaks: runs of higher scores, each counted once. */
  readonly excess: number;
  readonly peaks: number;
  /** So many peaks say as much as one independent one. */
  readonly clumping: number;
  /** Normal windows behind all this. */
  readonly windows: number;
  /** The edge follows normal scores no further up than here: the alarm level as it was learnt. */
  readonly ceiling: number;
}

/** When an alarm begins and when it is over. */
export interface AlarmRule {
  /** A score from here on begins an alarm. */
  readonly raiseAt: number;
  /** Below this it is over, once it stayed there. */
  readonly clearAt: number;
}

/** An alarm is over when the score stayed below `clearAt` for so many windows. */
export const CLEAR_WINDOWS = 10;
const CLEAR_SHARE = 0.75;
/** Blocks whose differences show how much less than their number the windows say. */
const BLOCKS = 10;
const BLOCK_WINDOWS_MIN = 5;
/** What is older than so many normal windows fades. */
const MEMORY_WINDOWS = 86_400;
const MS_PER_HOUR = 3_600_000;
/** Without an alarm in so many times the set interval, the rate is below the setting (95 %): the rule of three. */
const INTERVALS_SHOWN = 3;

/** Learns the basis from the scores of consecutive held-out normal windows. */
export function alarmBasis(scores: readonly number[], windowMs: number, perHour: number): AlarmBasis {
  const edge = quantileOfSorted(sortedFinite(scores), 1 - TAIL_SHARE) || 0;
  const peaks = peaksOver(scores, edge);
  const sum = peaks.reduce((total, peak) => total + peak - edge, 0);
  const basis = {
    edge,
    excess: Math.max(sum / Math.max(1, peaks.length), 1e-3 * Math.abs(edge), 1e-6),
    peaks: peaks.length,
    clumping: clumpingOf(scores, edge, peaks.length),
    windows: scores.length,
  };
  return { ...basis, ceiling: levelOf(basis, windowMs, perHour) };
}

/**
 * The level that normal data crosses `perHour` times an hour: peaks over a threshold. How their number falls with the
 * level is an exponential. A peak more than was seen is assumed, as in a conformal test: the data is finite.
 */
function levelOf(basis: Omit<AlarmBasis, 'ceiling'>, windowMs: number, perHour: number): number {
  const { edge, peaks, windows } = basis;
  const wanted = (Math.max(1e-9, perHour) * Math.max(1, windows) * windowMs) / MS_PER_HOUR;
  return edge + scaleOf(basis) * Math.max(0.1, Math.log((peaks + 1) / wanted));
}

/** So much higher, normal data crosses the level e times more rarely. Few independent peaks say little of it. */
const scaleOf = ({ excess, peaks, clumping }: Omit<AlarmBasis, 'ceiling'>): number =>
  excess * (1 + 1 / Math.sqrt(Math.max(1, peaks / clumping)));

/** The highest score of each run of exceedances; runs are apart when CLEAR_WINDOWS windows lie below the level. */
function peaksOver(scores: readonly number[], level: number): number[] {
  const peaks: number[] = [];
  let quiet = CLEAR_WINDOWS;
  for (const score of scores) {
    if (!(score > level)) {
      quiet += 1;
      continue;
    }
    if (quiet >= CLEAR_WINDOWS) peaks.push(score);
    else peaks[peaks.length - 1] = Math.max(peaks[peaks.length - 1] as number, score);
    quiet = 0;
  }
  return peaks;
}

/**
 * How many peaks are worth one independent one: windows that resemble each other for long, or a work that changes, make
 * the exceedances of blocks differ by more than chance does.
 */
function clumpingOf(scores: readonly number[], edge: number, peaks: number): number {
  const blocks = Math.min(BLOCKS, Math.floor(scores.length / BLOCK_WINDOWS_MIN));
  if (blocks < 2 || peaks === 0) return 1;
  const size = scores.length / blocks;
  const counts = new Float64Array(blocks);
  scores.forEach((score, i) => {
    if (score > edge) counts[Math.floor(i / size)] = (counts[Math.floor(i / size)] as number) + 1;
  });
  const mean = counts.reduce((sum, count) => sum + count, 0) / blocks;
  const variance = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / (blocks - 1);
  const byChance = size * TAIL_SHARE * (1 - TAIL_SHARE);
  const independent = (scores.length * TAIL_SHARE) / Math.max(1, variance / byChance);
  return Math.max(1, peaks / independent);
}

/**
 * Follows a score: says when an alarm begins and ends, and goes on learning how high normal scores go.
 *
 * The edge follows by steps that shrink as more was seen, so that many hours count as many hours and a fast change is
 * never taken for normal; while an alarm stands nothing is learnt; and the edge never passes the level that was learnt
 * first, so that wear, however slow, is an alarm in the end.
 */
export class AlarmLevel {
  readonly #windowMs: number;
  readonly #perHour: number;
  #basis: AlarmBasis;
  #rule: AlarmRule;
  #below = 0;
  #quiet = CLEAR_WINDOWS;
  /** Highest score of the run of exceedances that is not over yet. */
  #peak = Number.NaN;
  isActive = false;

  constructor(basis: AlarmBasis, windowMs: number, perHour: number) {
    this.#windowMs = windowMs;
    this.#perHour = perHour;
    this.#basis = basis;
    this.#rule = this.#ruleOf(basis);
  }

  get rule(): AlarmRule {
    return this.#rule;
  }

  get basis(): AlarmBasis {
    return this.#basis;
  }

  /** @returns Whether this score began or ended an alarm. */
  observe(score: number): 'raised' | 'cleared' | undefined {
    const change = this.#follow(score);
    if (!this.isActive && !Number.isNaN(score)) this.#learn(score);
    return change;
  }

  #follow(score: number): 'raised' | 'cleared' | undefined {
    const { raiseAt, clearAt } = this.#rule;
    if (!this.isActive) {
      if (!(score >= raiseAt)) return undefined;
      this.isActive = true;
      this.#below = 0;
      this.#quiet = 0;
      // How far beyond does not matter: a fault must not teach that faults are normal.
      this.#peak = raiseAt;
      return 'raised';
    }
    this.#below = score < clearAt ? this.#below + 1 : 0;
    if (this.#below < CLEAR_WINDOWS) return undefined;
    this.isActive = false;
    return 'cleared';
  }

  #learn(score: number): void {
    const { edge, excess, peaks, clumping, ceiling } = this.#basis;
    const windows = Math.min(this.#basis.windows + 1, MEMORY_WINDOWS);
    const isOver = score > edge;
    if (isOver) {
      this.#peak = Number.isNaN(this.#peak) ? score : Math.max(this.#peak, score);
      this.#quiet = 0;
    } else this.#quiet += 1;
    const kept = windows === MEMORY_WINDOWS ? peaks * (1 - 1 / MEMORY_WINDOWS) : peaks;
    const isPeak = this.#quiet === CLEAR_WINDOWS && !Number.isNaN(this.#peak);
    const height = isPeak ? Math.max(0, this.#peak - edge) : 0;
    if (isPeak) this.#peak = Number.NaN;
    // The step of a stochastic quantile whose density at the edge is that of the exponential.
    const step = (((isOver ? 1 : 0) - TAIL_SHARE) * excess) / (TAIL_SHARE * windows);
    this.#basis = {
      edge: Math.min(edge + step, ceiling),
      excess: isPeak ? excess + (height - excess) / (kept + 1) : excess,
      peaks: kept + (isPeak ? 1 : 0),
      clumping,
      windows,
      ceiling,
    };
    this.#rule = this.#ruleOf(this.#basis);
  }

  #ruleOf(basis: AlarmBasis): AlarmRule {
    const raiseAt = levelOf(basis, this.#windowMs, this.#perHour);
    return { raiseAt, clearAt: CLEAR_SHARE * raiseAt };
  }
}

/** Hours of normal work after which a false-alarm rate is shown by data and no longer an extrapolation. */
export const hoursToShow = (perHour: number): number => INTERVALS_SHOWN / perHour;

export const hoursOf = ({ windows }: AlarmBasis, windowMs: number): number => (windows * windowMs) / MS_PER_HOUR;
