import { uptime } from 'node:os';

/** Wall clock, milliseconds since 1970-01-01 UTC. For records, never for deadlines. */
export type EpochMs = number & { readonly __brand: 'EpochMs' };

/** Monotonic clock, milliseconds since an arbitrary origin of this boot. For deadlines, never for records. */
export type MonotonicMs = number & { readonly __brand: 'MonotonicMs' };

/** Where time comes from. Passed in, so that tests can step it. */
export interface Clock {
  /** Wall clock for records. */
  epochMs(): EpochMs;
  /** Monotonic clock for deadlines. On Linux it is CLOCK_MONOTONIC, so it compares across processes. */
  monotonicMs(): MonotonicMs;
  /** Like `monotonicMs`, from another origin, and it goes on while the computer sleeps. Absent: it never sleeps. */
  awakeOrAsleepMs?(): number;
}

/** The machine's clocks. */
export const systemClock: Clock = {
  epochMs: () => Date.now() as EpochMs,
  monotonicMs: () => (Number(process.hrtime.bigint() / 1000n) / 1000) as MonotonicMs,
  // CLOCK_BOOTTIME, to 10 ms.
  awakeOrAsleepMs: () => 1000 * uptime(),
};

/** Renders a wall time as the wire wants it: ISO 8601, UTC, milliseconds. */
export const toIso = (at: EpochMs): string => new Date(at).toISOString();
