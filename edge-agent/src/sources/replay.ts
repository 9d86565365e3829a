import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { pause } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import { openPlayback, type Playback, type PlaybackOptions } from './playback.ts';
import { RateMeter } from './rate-meter.ts';
import { monotonicNs, type Source, type SourcePorts, type SourceStatus } from './source.ts';

export interface ReplayOptions extends PlaybackOptions {
  /** Defaults to `replay`. */
  readonly name?: string;
  /** Recorded seconds per second; 0: as fast as the agent takes them. Default 1. */
  readonly speed?: number;
  /** Start again at the end, with the original stamps. Default false. */
  readonly loop?: boolean;
  /** Position of the last sample that is safe already: go on behind it. Default 0. */
  readonly startAfter?: number;
}

/** How often progress and rates are reported. [ns] */
const REPORT_EVERY_NS = 1_000_000_000n;
/** Samples given before other work gets a turn when nothing else makes us wait. */
const SAMPLES_PER_TURN = 64;
/** Shorter waits than this are not worth a timer. [ns] */
const WAIT_NS_MIN = 2_000_000n;
/** Declared periods without a sample, in the recording's own time, before a stream is called stale. */
const STALE_FACTOR = 5;
const FINGERPRINT_BYTES = 64 * 1024;

/**
 * Replays a recording as if the robot were there: original header stamps, the recording's own receive times, and a
 * fresh monotonic time; every sample flagged `replayed`.
 *
 * The order is the same each time, so the number of a sample (counted from 1) is a position that survives a crash:
 * keep it with the sample, and start again with `startAfter`. What lies before is still read, not given, so that the
 * flags which look at earlier samples come out as they would have.
 */
export class ReplaySource implements Source {
  readonly name: string;
  readonly #options: ReplayOptions;
  readonly #ports: SourcePorts;
  readonly #meters = new Map<string, RateMeter>();
  #position = 0;
  #reportedNs = 0n;

  constructor(options: ReplayOptions, ports: SourcePorts) {
    this.name = options.name ?? 'replay';
    this.#options = options;
    this.#ports = ports;
  }

  /** Position of the last sample that was given and taken. */
  get position(): number {
    return this.#position;
  }

  /**
   * Resolves at the recording's end, or when the signal aborts.
   *
   * @throws DomainError when the file cannot be read, is damaged, or holds nothing to replay; reported first.
   */
  async run(signal: AbortSignal): Promise<void> {
    this.#status({ state: 'starting' });
    try {
      const playback = await openPlayback(this.#options);
      try {
        await this.#play(playback, signal);
      } finally {
        await playback.close();
      }
    } catch (error) {
      this.#status({ state: 'failed', code: failureCode(error), message: errorMessage(error) });
      throw error;
    }
  }

  async #play(playback: Playback, signal: AbortSignal): Promise<void> {
    const { startAfter = 0, loop = false } = this.#options;
    let seen = 0;
    for (;;) {
      const pace = new Pace(this.#ports, this.#options.speed ?? 1);
      const seenBefore = seen;
      for await (const sample of playback.samples()) {
        seen += 1;
        if (signal.aborted) return;
        if (seen > startAfter) {
          await pace.until(sample.receivedNs, signal);
          if (signal.aborted) return;
          await this.#give(sample, seen, playback);
        }
        if (seen % SAMPLES_PER_TURN === 0) await nextTurn();
      }
      if (!loop || seen === seenBefore) break;
    }
    const remark = playback.remark();
    if (remark) this.#ports.log.warn({ source: this.name, ...remark }, 'replay.remarked');
    if (startAfter > seen)
      this.#ports.log.warn({ source: this.name, start_after: startAfter, samples: seen }, 'replay.position_beyond_end');
    this.#status({ state: 'finished', progress: { percent: 100, samples: seen }, ...remark });
  }

  async #give(sample: Sample, position: number, playback: Playback): Promise<void> {
    const nowNs = monotonicNs(this.#ports.clock);
    await this.#ports.emit({ ...sample, receivedMonoNs: nowNs }, position);
    this.#position = position;
    const { stream, declaredRateHz } = sample.layout;
    let meter = this.#meters.get(stream);
    if (!meter) {
      meter = new RateMeter(declaredRateHz, STALE_FACTOR, sample.receivedNs);
      this.#meters.set(stream, meter);
    }
    // By the recording's own receive times: at ten times the speed the robot did not measure ten times as often.
    meter.observe(sample.receivedNs);
    if (nowNs - this.#reportedNs >= REPORT_EVERY_NS) this.#report(nowNs, sample.receivedNs, playback);
  }

  #report(nowNs: bigint, logTimeNs: bigint, playback: Playback): void {
    this.#reportedNs = nowNs;
    const percent = Math.round(1000 * Math.min(1, Math.max(0, playback.fractionRead(logTimeNs)))) / 10;
    this.#status({ state: 'running', progress: { percent, samples: this.#position } });
    for (const [stream, meter] of this.#meters)
      this.#status({
        stream,
        state: meter.isStale(logTimeNs) ? 'stale' : 'running',
        measuredRateHz: meter.rateHz(logTimeNs),
        declaredRateHz: meter.declaredRateHz,
      });
  }

  #status(status: Omit<SourceStatus, 'source'>): void {
    this.#ports.onStatus({ source: this.name, ...status });
  }
}

/** Whose fault it was: the recording's, or that of whoever took the samples. */
function failureCode(error: unknown): string {
  if (!(error instanceof DomainError) || error.subject !== 'recording') return 'replay_failed';
  return error.code === 'not_found' ? 'recording_missing' : 'recording_unusable';
}

/** Waits so that recorded time passes `speed` times as fast as real time. */
class Pace {
  readonly #ports: SourcePorts;
  readonly #speed: number;
  #startMonoNs: bigint | undefined;
  #startLogNs = 0n;

  constructor(ports: SourcePorts, speed: number) {
    this.#ports = ports;
    this.#speed = speed;
  }

  async until(logTimeNs: bigint, signal: AbortSignal): Promise<void> {
    if (this.#speed === 0) return;
    const nowNs = monotonicNs(this.#ports.clock);
    if (this.#startMonoNs === undefined) {
      this.#startMonoNs = nowNs;
      this.#startLogNs = logTimeNs;
    }
    const dueNs = this.#startMonoNs + BigInt(Math.round(Number(logTimeNs - this.#startLogNs) / this.#speed));
    if (dueNs - nowNs >= WAIT_NS_MIN) await pause(Number(dueNs - nowNs) / 1e6, signal);
  }
}

/**
 * Tells one recording and mapping from another: a position is only worth something together with it. Reads the two
 * ends of the file, so it is quick on a large one.
 */
export async function replayFingerprint(options: PlaybackOptions): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([options.topics ?? null, options.columns ?? null]));
  const handle = await open(options.file, 'r');
  try {
    const { size } = await handle.stat();
    hash.update(String(size));
    for (const from of [0, Math.max(0, size - FINGERPRINT_BYTES)]) {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(FINGERPRINT_BYTES), 0, FINGERPRINT_BYTES, from);
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
  return hash.digest('hex');
}
