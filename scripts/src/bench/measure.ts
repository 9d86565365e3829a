import { cpus, release, totalmem } from 'node:os';

/** One line of the benchmark table. */
export interface Row {
  readonly name: string;
  /** What it is held against, measured in the same run. */
  readonly peer: string;
  readonly goal: string;
  readonly ours: string;
  readonly theirs: string;
  /** Ours over theirs: median of the pairs, and their lowest and highest. */
  readonly ratio: Spread;
  readonly met: boolean;
}

/** What every row gets to work with. */
export interface BenchContext {
  /** How many times each side is measured. */
  readonly pairs: number;
  /** A folder for this run, removed afterwards. */
  readonly directory: string;
  readonly say: (line: string) => void;
}

/** One or more rows that are measured together. */
export interface RowPlan {
  /** What `--only` is matched against. */
  readonly name: string;
  measure(context: BenchContext): Promise<Row[]>;
}

/** This machine lacks what a row needs; the message says what. */
export class RowSkipped extends Error {}

export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly runs: number;
}

/** Middle, lowest and highest of some measurements. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] as number;
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  return { median, low: at(0), high: at(sorted.length - 1), runs: sorted.length };
}

/**
 * Measures two ways alternately, so that what the machine does meanwhile hits both: A B, B A, A B, …
 *
 * @param pairs How many times each.
 * @returns The measurements of each, in order, and the spread of their ratios pair by pair.
 */
export async function alternate(
  pairs: number,
  ours: () => number | Promise<number>,
  theirs: () => number | Promise<number>,
): Promise<{ ours: number[]; theirs: number[]; ratio: Spread }> {
  const a: number[] = [];
  const b: number[] = [];
  await ours();
  await theirs();
  for (let pair = 0; pair < pairs; pair += 1) {
    if (pair % 2 === 0) {
      a.push(await ours());
      b.push(await theirs());
    } else {
      b.push(await theirs());
      a.push(await ours());
    }
  }
  return { ours: a, theirs: b, ratio: spreadOf(a.map((value, i) => value / (b[i] as number))) };
}

/** Wall time of some work. [ms] */
export async function wallMs(work: () => unknown | Promise<unknown>): Promise<number> {
  const from = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - from) / 1e6;
}

/** The value below which a share of the measurements lies, by nearest rank. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** What the figures were measured on. */
export const machine = (): string =>
  `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.versions.node}`;

export const format = (value: number, digits = 3): string => Number(value.toPrecision(digits)).toLocaleString('en-US');
