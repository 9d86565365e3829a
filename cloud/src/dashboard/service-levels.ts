import type { Registry } from 'prom-client';

/** Operations that have a target of their own (SigmaPrompt §13). */
export const OPERATION_CLASSES = ['read', 'dispatch', 'failsafe'] as const;
export type OperationClass = (typeof OPERATION_CLASSES)[number];

const MINUTE_MS = 60_000;
/** How far back the levels look. */
const MINUTES = 60;
/** Upper ends of the classes of duration, 12 % apart: from 0.1 ms to 100 s. [s] */
const BOUNDS: readonly number[] = Array.from({ length: 123 }, (_, index) => 0.0001 * 1.12 ** index);

interface Minute {
  readonly minute: number;
  readonly counts: Uint32Array;
  count: number;
  failed: number;
}

/** What the last hour of one kind of operation looked like. */
export interface Level {
  readonly count: number;
  readonly failed: number;
  /** Within 12 %, from above. Null: there was none. [s] */
  readonly p95S: number | null;
  readonly p99S: number | null;
}

/** How one of our Prometheus histograms looks since the start. */
export async function levelOf(
  registry: Registry,
  name: string,
  labels: Readonly<Record<string, string>>,
): Promise<Level> {
  const found = await registry.getSingleMetric(name)?.get();
  const buckets = (found?.values ?? [])
    .filter((value) => Object.entries(labels).every(([key, text]) => value.labels[key as never] === text))
    .flatMap((value) => {
      const end: unknown = value.labels['le' as never];
      return end === undefined
        ? []
        : [{ end: end === '+Inf' ? Number.POSITIVE_INFINITY : Number(end), upTo: value.value }];
    })
    .toSorted((a, b) => a.end - b.end);
  const count = buckets.at(-1)?.upTo ?? 0;
  const at = (share: number): number | null =>
    count === 0 ? null : (buckets.find(({ upTo }) => upTo >= count * share)?.end ?? null);
  return { count, failed: 0, p95S: at(0.95), p99S: at(0.99) };
}

/** Durations and failures of the last hour, in little memory however many there are. */
export class LevelMeter {
  readonly #minutes: Minute[] = [];

  observe(seconds: number, isFailed: boolean, nowMs: number): void {
    const minute = Math.floor(nowMs / MINUTE_MS);
    let current = this.#minutes.at(-1);
    if (!current || current.minute < minute) {
      current = { minute, counts: new Uint32Array(BOUNDS.length + 1), count: 0, failed: 0 };
      this.#minutes.push(current);
      while ((this.#minutes[0]?.minute ?? minute) <= minute - MINUTES) this.#minutes.shift();
    }
    const index = placeOf(seconds);
    current.counts[index] = (current.counts[index] ?? 0) + 1;
    current.count += 1;
    if (isFailed) current.failed += 1;
  }

  level(nowMs: number): Level {
    const oldest = Math.floor(nowMs / MINUTE_MS) - MINUTES;
    const recent = this.#minutes.filter(({ minute }) => minute > oldest);
    const sums = Array.from({ length: BOUNDS.length + 1 }, (_, index) =>
      recent.reduce((sum, { counts }) => sum + (counts[index] ?? 0), 0),
    );
    const count = recent.reduce((sum, each) => sum + each.count, 0);
    const failed = recent.reduce((sum, each) => sum + each.failed, 0);
    return { count, failed, p95S: quantile(sums, count, 0.95), p99S: quantile(sums, count, 0.99) };
  }
}

function placeOf(seconds: number): number {
  const place = BOUNDS.findIndex((bound) => seconds <= bound);
  return place < 0 ? BOUNDS.length : place;
}

function quantile(sums: readonly number[], count: number, share: number): number | null {
  if (count === 0) return null;
  let left = Math.ceil(count * share);
  for (const [index, sum] of sums.entries()) {
    left -= sum;
    if (left <= 0) return BOUNDS[Math.min(index, BOUNDS.length - 1)] ?? null;
  }
  return null;
}

/** One target and how it is kept. */
export interface Target {
  readonly name: 'read_latency_p95' | 'command_dispatch_p95' | 'failsafe_availability' | 'decision_window_p95';
  readonly unit: 'ms' | 'ratio';
  /** `ms`: at most; `ratio`: at least. */
  readonly target: number;
  readonly measured: number | null;
  readonly count: number;
  /** Null: nothing was measured. */
  readonly isMet: boolean | null;
}

/** The last hour of this process, operation by operation. */
export class ServiceLevels {
  readonly #meters: Readonly<Record<OperationClass, LevelMeter>> = {
    read: new LevelMeter(),
    dispatch: new LevelMeter(),
    failsafe: new LevelMeter(),
  };

  /** @param isFailed The service failed the caller; a robot that is away, or a refusal, is an answer. */
  observe(operation: OperationClass, seconds: number, isFailed: boolean, nowMs: number): void {
    this.#meters[operation].observe(seconds, isFailed, nowMs);
  }

  /** @param decision How long decisions took, which is measured elsewhere. */
  targets(nowMs: number, decision: Level): Target[] {
    const { read, dispatch, failsafe } = this.#meters;
    const available = failsafe.level(nowMs);
    const share = available.count === 0 ? null : (available.count - available.failed) / available.count;
    return [
      latency('read_latency_p95', 200, read.level(nowMs)),
      latency('command_dispatch_p95', 350, dispatch.level(nowMs)),
      {
        name: 'failsafe_availability',
        unit: 'ratio',
        target: 0.9999,
        measured: share,
        count: available.count,
        isMet: share === null ? null : share >= 0.9999,
      },
      latency('decision_window_p95', 500, decision),
    ];
  }
}

function latency(name: Target['name'], targetMs: number, { p95S, count }: Level): Target {
  const measured = p95S === null ? null : Math.round(p95S * 1_000_000) / 1000;
  return { name, unit: 'ms', target: targetMs, measured, count, isMet: measured === null ? null : measured < targetMs };
}
