import type { Logger } from '@outrider/shared/log';
import type { Service } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import type { RosSignal } from './ros-signals.ts';

/** `stale`: running, but a stream gives nothing. `failed`: not running; the source tries again by itself. */
export const SOURCE_STATES = ['starting', 'running', 'stale', 'failed', 'finished'] as const;
export type SourceState = (typeof SOURCE_STATES)[number];

/** How a source, or one of its streams, is doing. Sent when it changes and with each measured rate. */
export interface SourceStatus {
  /** The source's name. */
  readonly source: string;
  /** Absent when this is about the source as a whole. */
  readonly stream?: string;
  readonly state: SourceState;
  /** Stable word for a failure or an oddity: `ros_not_sourced`, `incompatible_qos`, `recording_truncated`. */
  readonly code?: string;
  /** For a person: what happened and what to do about it. */
  readonly message?: string;
  /** Over the last window, by monotonic receive time. [Hz] */
  readonly measuredRateHz?: number;
  readonly declaredRateHz?: number;
  /** ROS publishers seen on the stream's topic, whether or not their QoS matches ours. */
  readonly publishers?: number;
  /** Messages that were thrown away because the way to the agent was full, since the source started. */
  readonly dropped?: number;
  /** Of a recording. */
  readonly progress?: ReplayProgress;
}

export interface ReplayProgress {
  /** 0 to 100. */
  readonly percent: number;
  /** Samples given since the recording's first, those before `startAfter` included. */
  readonly samples: number;
}

/** What every source is given. */
export interface SourcePorts {
  readonly log: Logger;
  readonly clock: Clock;
  /**
   * Takes a sample. A source that can wait (a recording) awaits the promise, which is the agent's way to slow it down.
   *
   * @param position Where the recording stands after this sample; see ReplaySource. Absent for live sources.
   */
  readonly emit: (sample: Sample, position?: number) => void | Promise<void>;
  readonly onStatus: (status: SourceStatus) => void;
  /** Takes what only the failsafe looks at. */
  readonly onSignal?: (signal: RosSignal, topic: string, declaredRateHz: number, receivedMonoNs: bigint) => void;
}

/**
 * The port behind which ROS 2, recordings and the serial line look alike. `run` ends when the signal aborts or when
 * there is nothing more to give; trouble is reported through `onStatus` and retried, not thrown, except for settings
 * that can never work.
 */
export interface Source extends Service {}

/** Both reception times of a sample that arrives now. */
export function receptionNow(clock: Clock): { receivedNs: bigint; receivedMonoNs: bigint } {
  return { receivedNs: BigInt(clock.epochMs()) * 1_000_000n, receivedMonoNs: monotonicNs(clock) };
}

/** CLOCK_MONOTONIC in ns, at the clock's resolution of 1 µs. */
export const monotonicNs = (clock: Clock): bigint => BigInt(Math.round(clock.monotonicMs() * 1000)) * 1000n;
