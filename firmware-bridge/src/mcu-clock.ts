import type { Clock } from '@outrider/shared/time';

/** Round trips from which the one with the least delay is believed. At one heartbeat per 20 ms: 2.56 s. */
const WINDOW_ROUND_TRIPS = 128;
/** How fast the offset follows a new estimate, so that stamps do not jump. Crystals drift by about 50 ppm. [ppm] */
const SLEW_PPM_MAX = 500;
/** An estimate further away than this is a different clock, not drift: followed at once. [µs] */
const STEP_US = 50_000;
/** A wall clock further from where it should be than this has been set: followed at once. [ns] */
const WALL_STEP_NS = 20_000_000;

/**
 * Translates the MCU's time to ours. [FB-14]
 *
 * A HELLO or heartbeat leaves at t0 and its answer comes back at t1, both on our monotonic clock; the answer says
 * when the MCU wrote it. Had both ways taken the same time, the MCU wrote it at (t0 + t1) / 2; the error is at most
 * half the round trip, so of each window the round trip with the least delay gives the offset. Wall time is our
 * wall clock's offset to our monotonic clock, read anew only when somebody has set the wall clock, because its own
 * millisecond steps would otherwise show up in the stamps.
 */
export class McuClock {
  readonly #clock: Clock;
  #offsetUs: number | undefined;
  #targetUs = 0;
  #lastMonoUs = 0;
  #windowBestUs = Number.POSITIVE_INFINITY;
  #windowOffsetUs = 0;
  #windowCount = 0;
  #wallMinusMonoNs: bigint | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Our monotonic clock in whole microseconds, as HELLO and HEARTBEAT carry it. */
  monotonicUs(): number {
    return Math.floor(this.#clock.monotonicMs() * 1000);
  }

  /** Wall and monotonic time of now. [ns] */
  now(): { receivedNs: bigint; receivedMonoNs: bigint } {
    return {
      receivedNs: BigInt(Math.round(this.#clock.epochMs())) * 1_000_000n,
      receivedMonoNs: BigInt(Math.round(this.#clock.monotonicMs() * 1e6)),
    };
  }

  /** Forgets the MCU's clock: it was reset, and counts from zero again. */
  reset(): void {
    this.#offsetUs = undefined;
    this.#windowCount = 0;
    this.#windowBestUs = Number.POSITIVE_INFINITY;
  }

  /**
   * Learns from one answered HELLO or heartbeat.
   *
   * @returns The round trip. [ms]
   */
  roundTrip(sentMonoUs: number, mcuUs: number): number {
    const receivedMonoUs = this.monotonicUs();
    const roundTripUs = Math.max(0, receivedMonoUs - sentMonoUs);
    const offsetUs = sentMonoUs + roundTripUs / 2 - mcuUs;
    if (this.#offsetUs === undefined) {
      this.#offsetUs = offsetUs;
      this.#targetUs = offsetUs;
      this.#lastMonoUs = receivedMonoUs;
    }
    if (roundTripUs < this.#windowBestUs) {
      this.#windowBestUs = roundTripUs;
      this.#windowOffsetUs = offsetUs;
    }
    this.#windowCount += 1;
    if (this.#windowCount >= WINDOW_ROUND_TRIPS) {
      this.#targetUs = this.#windowOffsetUs;
      if (Math.abs(this.#targetUs - this.#offsetUs) > STEP_US) this.#offsetUs = this.#targetUs;
      this.#windowCount = 0;
      this.#windowBestUs = Number.POSITIVE_INFINITY;
    }
    this.#slew(receivedMonoUs);
    return roundTripUs / 1000;
  }

  /** MCU time as wall time. 0 while no round trip has been seen. [ns since 1970] */
  stampNs(mcuUs: number): bigint {
    if (this.#offsetUs === undefined) return 0n;
    const { receivedNs, receivedMonoNs } = this.now();
    const wallMinusMonoNs = receivedNs - receivedMonoNs;
    const known = this.#wallMinusMonoNs;
    const change = known === undefined ? 0n : wallMinusMonoNs - known;
    if (known === undefined || change > WALL_STEP_NS || change < -WALL_STEP_NS) this.#wallMinusMonoNs = wallMinusMonoNs;
    return BigInt(Math.round(mcuUs + this.#offsetUs)) * 1000n + (this.#wallMinusMonoNs ?? wallMinusMonoNs);
  }

  #slew(nowMonoUs: number): void {
    const elapsedUs = nowMonoUs - this.#lastMonoUs;
    this.#lastMonoUs = nowMonoUs;
    if (this.#offsetUs === undefined) return;
    const stepMaxUs = (elapsedUs * SLEW_PPM_MAX) / 1e6;
    const wantedUs = this.#targetUs - this.#offsetUs;
    this.#offsetUs += Math.max(-stepMaxUs, Math.min(stepMaxUs, wantedUs));
  }
}
