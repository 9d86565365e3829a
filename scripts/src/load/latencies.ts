/** Up to here buckets are 0.1 ms wide; above they grow by half a percent. */
const FINE_MS = 100;
const FINE_STEP_MS = 0.1;
const FINE_BUCKETS = FINE_MS / FINE_STEP_MS;
const GROWTH = Math.log(1.005);
const LAST = FINE_BUCKETS + Math.ceil(Math.log(3_600_000 / FINE_MS) / GROWTH);

/** How long many things took, in buckets, so that processes can add up what they saw. */
export class Latencies {
  readonly #buckets = new Map<number, number>();
  #count = 0;
  #maxMs = 0;

  static of(entries: LatencyData): Latencies {
    const made = new Latencies();
    made.merge(entries);
    return made;
  }

  get count(): number {
    return this.#count;
  }

  get maxMs(): number {
    return this.#maxMs;
  }

  add(ms: number): void {
    const bucket =
      ms < FINE_MS
        ? Math.max(0, Math.floor(ms / FINE_STEP_MS))
        : Math.min(LAST, FINE_BUCKETS + Math.floor(Math.log(ms / FINE_MS) / GROWTH));
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + 1);
    this.#count += 1;
    if (ms > this.#maxMs) this.#maxMs = ms;
  }

  merge({ buckets, maxMs }: LatencyData): void {
    for (const [bucket, count] of buckets) {
      this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + count);
      this.#count += count;
    }
    this.#maxMs = Math.max(this.#maxMs, maxMs);
  }

  /** The upper edge of the bucket below which a share of the measurements lies; NaN without any. [ms] */
  quantile(share: number): number {
    if (this.#count === 0) return Number.NaN;
    let left = Math.max(1, Math.ceil(share * this.#count));
    for (const bucket of [...this.#buckets.keys()].sort((a, b) => a - b)) {
      left -= this.#buckets.get(bucket) ?? 0;
      if (left <= 0) return Math.min(this.#maxMs, upperEdge(bucket));
    }
    return this.#maxMs;
  }

  /** In a form that goes between processes. */
  toData(): LatencyData {
    return { buckets: [...this.#buckets], maxMs: this.#maxMs };
  }
}

export interface LatencyData {
  readonly buckets: readonly (readonly [number, number])[];
  readonly maxMs: number;
}

const upperEdge = (bucket: number): number =>
  bucket < FINE_BUCKETS ? (bucket + 1) * FINE_STEP_MS : FINE_MS * Math.exp((bucket - FINE_BUCKETS + 1) * GROWTH);
