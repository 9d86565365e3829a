import { setImmediate as yieldOnce } from 'node:timers/promises';
import type { Clock, EpochMs, MonotonicMs } from '@outrider/shared/time';

const BASE_EPOCH_MS = 1_790_000_000_000;

/** Clocks that only move when told; the wall clock can be set to anything, the monotonic one only goes on. */
export class VirtualClock implements Clock {
  #monotonicMs = 1000;
  #wallOffsetMs = BASE_EPOCH_MS;
  #asleepMs = 0;

  epochMs = (): EpochMs => (this.#monotonicMs + this.#wallOffsetMs) as EpochMs;
  monotonicMs = (): MonotonicMs => this.#monotonicMs as MonotonicMs;

  awakeOrAsleepMs = (): number => this.#monotonicMs + this.#asleepMs;

  advance(ms: number): void {
    this.#monotonicMs += ms;
  }

  /** The computer sleeps: only the monotonic clock stands still. */
  sleep(ms: number): void {
    this.#asleepMs += ms;
    this.#wallOffsetMs += ms;
  }

  /** Sets the wall clock forward or, with a negative number, back. */
  stepWall(ms: number): void {
    this.#wallOffsetMs += ms;
  }
}

/** Lets everything go on that waits for no time. */
export async function settle(): Promise<void> {
  await yieldOnce();
}
