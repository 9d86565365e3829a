/** Arrivals that the rate is measured over, at most. */
const WINDOW_ARRIVALS = 128;
/** Arrivals older than this no longer count. [ns] */
const WINDOW_NS = 5_000_000_000n;
/** No stream is called stale sooner than this, however fast it is: one late scheduler tick is not an outage. [ms] */
const STALE_MS_MIN = 100;
/** Streams that promise no rate are stale after this. [ms] */
const STALE_MS_UNDECLARED = 5_000;

/**
 * Measures one stream's rate and staleness against what its source declared, by monotonic receive time. Header
 * stamps and the wall clock play no part: they may jump.
 */
export class RateMeter {
  readonly declaredRateHz: number;
  readonly #staleAfterNs: bigint;
  readonly #arrivalsNs: bigint[] = [];
  #sinceNs: bigint;

  /**
   * @param staleFactor How many declared periods may pass without a sample.
   * @param nowNs When the wait for the first sample began.
   */
  constructor(declaredRateHz: number, staleFactor: number, nowNs: bigint) {
    this.declaredRateHz = declaredRateHz;
    const staleMs = declaredRateHz > 0 ? (1000 / declaredRateHz) * staleFactor : STALE_MS_UNDECLARED;
    this.#staleAfterNs = BigInt(Math.round(Math.max(staleMs, STALE_MS_MIN) * 1e6));
    this.#sinceNs = nowNs;
  }

  /** Counts a sample. Times before an earlier one are taken as that one. */
  observe(receivedMonoNs: bigint): void {
    const at = receivedMonoNs < this.#sinceNs ? this.#sinceNs : receivedMonoNs;
    this.#sinceNs = at;
    this.#arrivalsNs.push(at);
    if (this.#arrivalsNs.length > WINDOW_ARRIVALS) this.#arrivalsNs.shift();
  }

  /** Mean rate over the window that ends now; 0 with fewer than two samples in it. [Hz] */
  rateHz(nowNs: bigint): number {
    while (this.#arrivalsNs.length > 0 && nowNs - (this.#arrivalsNs[0] as bigint) > WINDOW_NS) this.#arrivalsNs.shift();
    const first = this.#arrivalsNs[0];
    const last = this.#arrivalsNs.at(-1);
    if (first === undefined || last === undefined || last === first) return 0;
    return (this.#arrivalsNs.length - 1) / (Number(last - first) / 1e9);
  }

  /** Time since the last sample, or since the wait for the first one began. [ms] */
  ageMs(nowNs: bigint): number {
    return Number(nowNs - this.#sinceNs) / 1e6;
  }

  isStale(nowNs: bigint): boolean {
    return nowNs - this.#sinceNs > this.#staleAfterNs;
  }
}
