import { quantileOfSorted, sortedFinite } from './statistics.ts';

/** One question: is feature `feature` above `threshold`? */
export interface Stump {
  readonly feature: number;
  readonly threshold: number;
  readonly below: number;
  readonly above: number;
}

/** A question whose answer chooses the next: "still" and "holding a load" only mean something together. */
export interface Tree {
  readonly feature: number;
  readonly threshold: number;
  readonly below: Stump;
  readonly above: Stump;
}

/** Boosted trees of two questions: the log odds of a fault, a sum over small answers. */
export interface Classifier {
  readonly trees: readonly Tree[];
}

export interface BoostOptions {
  readonly rounds: number;
  /** How much of each stump is believed. */
  readonly step: number;
  /** Thresholds tried for a feature. */
  readonly cuts: number;
}

export const DEFAULT_BOOST: BoostOptions = { rounds: 60, step: 0.15, cuts: 10 };
/** Keeps a leaf that few rows reach from being certain. */
const LEAF_PRIOR = 5;
const LEAF_MAX = 4;

/**
 * Learns from labelled windows: Newton steps on the logistic loss, a tree a round. Faults are few, so both classes
 * get the same weight in sum.
 */
export function trainBoost(
  rows: readonly Float64Array[],
  isFault: readonly boolean[],
  options: BoostOptions = DEFAULT_BOOST,
): Classifier {
  const faults = isFault.filter(Boolean).length;
  const width = rows[0]?.length ?? 0;
  if (faults === 0 || faults === rows.length || width === 0) return { trees: [] };
  const weightOf = [rows.length / (2 * (rows.length - faults)), rows.length / (2 * faults)] as const;
  const cuts = Array.from({ length: width }, (_, feature) => cutsOf(rows, feature, options.cuts));
  // The bin of each value is found once: a round is then a pass over small integers.
  const bins = cuts.map((edges, feature) => Uint8Array.from(rows, (row) => binOf(edges, row[feature] as number)));
  const odds = new Float64Array(rows.length);
  const gradients = new Float64Array(rows.length);
  const curvatures = new Float64Array(rows.length);
  const all = Uint32Array.from(rows, (_, i) => i);
  const trees: Tree[] = [];
  for (let round = 0; round < options.rounds; round += 1) {
    for (let i = 0; i < rows.length; i += 1) {
      const chance = 1 / (1 + Math.exp(-(odds[i] as number)));
      const weight = isFault[i] ? weightOf[1] : weightOf[0];
      gradients[i] = weight * ((isFault[i] ? 1 : 0) - chance);
      curvatures[i] = weight * Math.max(1e-6, chance * (1 - chance));
    }
    const search: Search = { cuts, bins, gradients, curvatures, step: options.step };
    const root = bestStump(search, all);
    if (!root) break;
    const isAbove = (i: number): boolean => ((rows[i] as Float64Array)[root.feature] as number) > root.threshold;
    const tree: Tree = {
      feature: root.feature,
      threshold: root.threshold,
      below: bestStump(
        search,
        all.filter((i) => !isAbove(i)),
      ) ?? { ...root, above: root.below },
      above: bestStump(search, all.filter(isAbove)) ?? { ...root, below: root.above },
    };
    trees.push(tree);
    for (let i = 0; i < rows.length; i += 1) odds[i] = (odds[i] as number) + vote(tree, rows[i] as Float64Array);
  }
  return { trees };
}

/** Log odds that the window shows a fault, both being equally likely beforehand. */
export function logOdds({ trees }: Classifier, row: ArrayLike<number>): number {
  let sum = 0;
  for (const tree of trees) sum += vote(tree, row);
  return sum;
}

function vote({ feature, threshold, below, above }: Tree, row: ArrayLike<number>): number {
  const next = (row[feature] as number) > threshold ? above : below;
  return (row[next.feature] as number) > next.threshold ? next.above : next.below;
}

interface Search {
  readonly cuts: readonly (readonly number[])[];
  readonly bins: readonly Uint8Array[];
  readonly gradients: Float64Array;
  readonly curvatures: Float64Array;
  readonly step: number;
}

function cutsOf(rows: readonly Float64Array[], feature: number, count: number): number[] {
  const sorted = sortedFinite(rows.map((row) => row[feature] as number));
  const cuts = Array.from({ length: count }, (_, i) => quantileOfSorted(sorted, (i + 1) / (count + 1)));
  return [...new Set(cuts)].filter((cut) => cut < (sorted[sorted.length - 1] as number));
}

function binOf(edges: readonly number[], value: number): number {
  let bin = 0;
  while (bin < edges.length && value > (edges[bin] as number)) bin += 1;
  return bin;
}

/** The question about these rows that gains most; `undefined` when none gains anything. */
function bestStump({ cuts, bins, gradients, curvatures, step }: Search, rows: Uint32Array): Stump | undefined {
  let best: Stump | undefined;
  let bestGain = 1e-9;
  for (let feature = 0; feature < cuts.length; feature += 1) {
    const edges = cuts[feature] as readonly number[];
    if (edges.length === 0) continue;
    const gradientOf = new Float64Array(edges.length + 1);
    const curvatureOf = new Float64Array(edges.length + 1);
    const bin = bins[feature] as Uint8Array;
    for (const i of rows) {
      const b = bin[i] as number;
      gradientOf[b] = (gradientOf[b] as number) + (gradients[i] as number);
      curvatureOf[b] = (curvatureOf[b] as number) + (curvatures[i] as number);
    }
    const gradientSum = gradientOf.reduce((a, b) => a + b, 0);
    const curvatureSum = curvatureOf.reduce((a, b) => a + b, 0);
    let gradient = 0;
    let curvature = 0;
    for (let cut = 0; cut < edges.length; cut += 1) {
      gradient += gradientOf[cut] as number;
      curvature += curvatureOf[cut] as number;
      const rest = gradientSum - gradient;
      const restCurvature = curvatureSum - curvature;
      const gain = gradient ** 2 / (curvature + LEAF_PRIOR) + rest ** 2 / (restCurvature + LEAF_PRIOR);
      if (gain <= bestGain) continue;
      bestGain = gain;
      best = {
        feature,
        threshold: edges[cut] as number,
        below: leaf(gradient, curvature, step),
        above: leaf(rest, restCurvature, step),
      };
    }
  }
  return best;
}

const leaf = (gradient: number, curvature: number, step: number): number =>
  step * Math.max(-LEAF_MAX, Math.min(LEAF_MAX, gradient / (curvature + LEAF_PRIOR)));
