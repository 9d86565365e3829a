import { existsSync } from 'node:fs';
import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';

/** Empty: nobody says. */
export type ClockQualityWord = 'good' | 'unsure' | 'bad' | '';

/** systemd-timesyncd leaves it once the clock was set. */
const SYNCHRONIZED_MARK = '/run/systemd/timesync/synchronized';
/** A clock before this was never set. (2024-01-01) */
const EPOCH_MS_MIN = 1_704_067_200_000;
/** As near to the cloud's clock as instructions need it. [ms] */
const GOOD_WITHIN_MS = 2000;
const BAD_BEYOND_MS = 60_000;
const LOOK_MS = 5000;

/**
 * Whether the wall clock is known to be right: the system says so, or the cloud's clock agreed and nobody has set ours
 * since, which the monotonic clock tells.
 */
export class ClockQuality {
  readonly #clock: Clock;
  readonly #markFile: string;
  #word: ClockQualityWord = '';
  #lookedMs = Number.NEGATIVE_INFINITY;
  /** What the cloud's clock is ahead of the monotonic one. [ms] */
  #cloudLessMonotonicMs: number | undefined;

  constructor(clock: Clock, markFile = SYNCHRONIZED_MARK) {
    this.#clock = clock;
    this.#markFile = markFile;
  }

  /** What the cloud's clock is ahead of ours. [ms] */
  noteSkew(skewMs: number): void {
    this.#cloudLessMonotonicMs = this.#clock.epochMs() + skewMs - this.#clock.monotonicMs();
    this.#lookedMs = Number.NEGATIVE_INFINITY;
  }

  word(): ClockQualityWord {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lookedMs >= LOOK_MS) {
      this.#lookedMs = nowMs;
      this.#word = this.#look(nowMs);
    }
    return this.#word;
  }

  /** The sample, with a flag when its wall time is not known to be right. A recording has its own times. */
  mark(sample: Sample): Sample {
    if (this.word() === 'good' || (sample.flags & SAMPLE_FLAGS.replayed) !== 0) return sample;
    return { ...sample, flags: sample.flags | SAMPLE_FLAGS.clockUnsure };
  }

  #look(nowMs: number): ClockQualityWord {
    const wallMs = this.#clock.epochMs();
    if (wallMs < EPOCH_MS_MIN) return 'bad';
    if (this.#cloudLessMonotonicMs !== undefined) {
      const offMs = Math.abs(wallMs - nowMs - this.#cloudLessMonotonicMs);
      if (offMs > BAD_BEYOND_MS) return 'bad';
      return offMs <= GOOD_WITHIN_MS ? 'good' : 'unsure';
    }
    return existsSync(this.#markFile) ? 'good' : '';
  }
}
