import { quantile } from '../bench/measure.ts';

/** How a campaign is to be run. Trial i has the seed `seed + i`, so that a failing one is repeated alone. */
export interface CampaignPlan {
  readonly count: number;
  readonly seed: number;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

/** A trial that did not show what it had to. */
export interface Failure {
  readonly seed: number;
  readonly what: string;
}

export interface CampaignResult {
  /** Trials that were run to their end. */
  readonly count: number;
  readonly failures: readonly Failure[];
  /** Figures of the run in one line. */
  readonly figures: string;
  /** Markdown to be shown below the table: histograms. */
  readonly detail?: string;
}

/** One row of the fault table. */
export interface Campaign {
  readonly id: string;
  readonly title: string;
  /** Trials when nobody says how many, and those of the short form. */
  readonly counts: { readonly full: number; readonly short: number };
  /** Why it cannot run here; `false` when it can. */
  readonly skip: string | false;
  run(plan: CampaignPlan): Promise<CampaignResult>;
}

/** Failures told one by one; the rest is only counted. */
const FAILURES_TOLD_MAX = 20;

/** Runs trials one after the other and keeps what went wrong with its seed. */
export async function runTrials(
  plan: CampaignPlan,
  trial: (seed: number, index: number) => void | Promise<void>,
): Promise<{ count: number; failures: Failure[] }> {
  const failures: Failure[] = [];
  let count = 0;
  for (let index = 0; index < plan.count && !plan.signal.aborted; index += 1) {
    const seed = plan.seed + index;
    try {
      await trial(seed, index);
    } catch (error) {
      failTrial(plan, failures, seed, error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    count += 1;
    if (count % Math.max(1, Math.floor(plan.count / 10)) === 0)
      plan.say(`${count} of ${plan.count}, ${failures.length} failed`);
  }
  return { count, failures };
}

/** Notes a failure, and tells it when there are not too many yet. */
export function failTrial(plan: CampaignPlan, failures: Failure[], seed: number, what: string): void {
  failures.push({ seed, what });
  if (failures.length <= FAILURES_TOLD_MAX) plan.say(`seed ${seed} failed: ${what}`);
}

/** @throws Error with the sentence when it does not hold. */
export function must(holds: boolean, sentence: string): asserts holds {
  if (!holds) throw new Error(sentence);
}

/** Quantiles and a histogram of latencies in milliseconds. */
export function histogram(name: string, valuesMs: readonly number[], edgesMs: readonly number[]): string {
  const lines = [`| ${name} [ms] | count |`, '|---|---|'];
  let low = 0;
  for (const edge of [...edgesMs, Number.POSITIVE_INFINITY]) {
    const inside = valuesMs.filter((value) => value >= low && value < edge).length;
    if (inside > 0) lines.push(`| ${Number.isFinite(edge) ? `${low} – ${edge}` : `from ${low}`} | ${inside} |`);
    low = edge;
  }
  return lines.join('\n');
}

/** "p50 3.1, p99 9.8, p99.9 12, max 14" of latencies in milliseconds. */
export function quantiles(valuesMs: readonly number[]): string {
  const at = (share: number): string => quantile(valuesMs, share).toFixed(1);
  return `p50 ${at(0.5)}, p99 ${at(0.99)}, p99.9 ${at(0.999)}, max ${at(1)} ms`;
}
