import type { SourceView } from '../local-api/status.ts';
import type { Outbox } from '../outbox/outbox.ts';
import type { SourceStatus } from '../sources/source.ts';

/** Rates alone are reported to the cloud this often; a change of state at once. [ms] */
const REPORT_RATES_MS = 10_000;

/** What every source and stream last said of itself. */
export class SourceBoard {
  readonly #latest = new Map<string, SourceStatus>();
  readonly #outbox: Outbox;
  readonly #nowMs: () => number;
  #reportedMs = Number.NEGATIVE_INFINITY;

  constructor(outbox: Outbox, nowMs: () => number) {
    this.#outbox = outbox;
    this.#nowMs = nowMs;
  }

  update(status: SourceStatus): void {
    const key = `${status.source}\n${status.stream ?? ''}`;
    const before = this.#latest.get(key);
    // Rates and progress stay known; what went wrong in another state is over with that state.
    const { code: _, message: __, ...facts } = before ?? status;
    this.#latest.set(key, before?.state === status.state ? { ...before, ...status } : { ...facts, ...status });
    const hasChanged = before?.state !== status.state || before.code !== status.code;
    if (!hasChanged && this.#nowMs() - this.#reportedMs < REPORT_RATES_MS) return;
    this.#reportedMs = this.#nowMs();
    this.#outbox.appendState('sources', this.views());
  }

  views(): SourceView[] {
    return [...this.#latest.values()].map((status) => ({
      source: status.source,
      stream: status.stream ?? null,
      state: status.state,
      code: status.code ?? null,
      message: status.message ?? null,
      rate_hz: status.measuredRateHz === undefined ? null : Math.round(status.measuredRateHz * 10) / 10,
      declared_rate_hz: status.declaredRateHz ?? null,
      percent: status.progress?.percent ?? null,
    }));
  }
}
