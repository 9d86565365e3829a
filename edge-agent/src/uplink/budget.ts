import { BATCH_BYTES_MAX } from '@outrider/shared/protocol/codec';
import type { Clock } from '@outrider/shared/time';

/** A slow line is held by one batch for about so long at most: events wait behind what is in the socket already. [ms] */
const BATCH_MS_MAX = 1000;
const BATCH_BYTES_MIN = 4096;

export interface BudgetSettings {
  /** For telemetry. 0: no limit. [bytes/s] */
  readonly bytesPerSMax: number;
  /** The link costs by volume. */
  readonly isMetered: boolean;
  /** For telemetry on a metered link. 0: it waits. [bytes/s] */
  readonly meteredBytesPerSMax: number;
}

/** What a person is shown. */
export interface BudgetView {
  readonly telemetry: 'unlimited' | 'limited' | 'paused';
  readonly bytes_per_s_max: number | null;
  readonly metered: boolean;
  /** Telemetry that was sent since the start. */
  readonly sent_bytes: number;
}

/**
 * How much telemetry a link may carry. Events and states are never held: they are small, and what happened must be
 * known. What waits stays in the outbox, which thins it when it is full.
 */
export class Budget {
  readonly #limit: number;
  readonly #isMetered: boolean;
  readonly #clock: Clock;
  #owed = 0;
  #atMs: number;
  #sent = 0;

  constructor({ bytesPerSMax, isMetered, meteredBytesPerSMax }: BudgetSettings, clock: Clock) {
    const unmetered = bytesPerSMax === 0 ? Number.POSITIVE_INFINITY : bytesPerSMax;
    this.#limit = isMetered ? Math.min(unmetered, meteredBytesPerSMax) : unmetered;
    this.#isMetered = isMetered;
    this.#clock = clock;
    this.#atMs = clock.monotonicMs();
  }

  get isLimited(): boolean {
    return Number.isFinite(this.#limit);
  }

  /** Largest batch that is worth sending. [bytes] */
  get batchBytesMax(): number {
    return Math.min(BATCH_BYTES_MAX, Math.max(BATCH_BYTES_MIN, (this.#limit * BATCH_MS_MAX) / 1000));
  }

  /** Whether something may be sent now. What was sent beyond the rate is paid for by waiting. */
  hasRoom(): boolean {
    if (!this.isLimited) return true;
    const nowMs = this.#clock.monotonicMs();
    this.#owed = Math.max(0, this.#owed - ((nowMs - this.#atMs) * this.#limit) / 1000);
    this.#atMs = nowMs;
    return this.#limit > 0 && this.#owed === 0;
  }

  spend(bytes: number): void {
    this.#sent += bytes;
    this.#owed += bytes;
  }

  view(): BudgetView {
    return {
      telemetry: this.isLimited ? (this.#limit > 0 ? 'limited' : 'paused') : 'unlimited',
      bytes_per_s_max: this.isLimited ? this.#limit : null,
      metered: this.#isMetered,
      sent_bytes: this.#sent,
    };
  }
}
