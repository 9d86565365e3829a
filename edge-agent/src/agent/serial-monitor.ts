import type { Service } from '@outrider/shared/service';
import { pause } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import { RateMeter } from '../sources/rate-meter.ts';
import type { SourceStatus } from '../sources/source.ts';
import { monotonicNs } from '../sources/source.ts';

const REPORT_EVERY_MS = 1000;
const STALE_FACTOR = 5;

/** Measures the streams that come from the serial line through the guard, as the other sources measure theirs. */
export class SerialMonitor implements Service {
  readonly name = 'serial-monitor';
  readonly #clock: Clock;
  readonly #onStatus: (status: SourceStatus) => void;
  readonly #isConnected: () => boolean;
  readonly #meters = new Map<string, RateMeter>();

  constructor(clock: Clock, isConnected: () => boolean, onStatus: (status: SourceStatus) => void) {
    this.#clock = clock;
    this.#isConnected = isConnected;
    this.#onStatus = onStatus;
  }

  observe(sample: Sample): void {
    const { stream, declaredRateHz } = sample.layout;
    let meter = this.#meters.get(stream);
    if (!meter) {
      meter = new RateMeter(declaredRateHz, STALE_FACTOR, sample.receivedMonoNs);
      this.#meters.set(stream, meter);
    }
    meter.observe(sample.receivedMonoNs);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#report();
      await pause(REPORT_EVERY_MS, signal);
    }
  }

  #report(): void {
    const nowNs = monotonicNs(this.#clock);
    const isConnected = this.#isConnected();
    this.#onStatus({
      source: 'serial',
      state: isConnected ? (this.#meters.size > 0 ? 'running' : 'starting') : 'failed',
      ...(isConnected ? {} : { code: 'guard_missing', message: 'the guard does not answer; it owns the serial line' }),
    });
    for (const [stream, meter] of this.#meters)
      this.#onStatus({
        source: 'serial',
        stream,
        state: meter.isStale(nowNs) ? 'stale' : 'running',
        measuredRateHz: meter.rateHz(nowNs),
        declaredRateHz: meter.declaredRateHz,
      });
  }
}
