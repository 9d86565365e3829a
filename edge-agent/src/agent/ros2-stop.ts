import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import { fieldRange, type Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import type { Ros2ChildStop } from '../sources/ros2-protocol.ts';

/** How a closed gate is said to a robot that is driven over ROS 2. */
export interface Ros2StopSettings {
  readonly cmdVelTopic: string | undefined;
  readonly cmdVelType: 'geometry_msgs/msg/Twist' | 'geometry_msgs/msg/TwistStamped';
  readonly stopTopic: string | undefined;
  readonly everyMs: number;
  /** The robot must stand still so long after the order. [ms] */
  readonly confirmMs: number;
  /** Slower than these is standing still. */
  readonly stillMps: number;
  readonly stillRadps: number;
}

export interface Ros2StopOptions {
  readonly settings: Ros2StopSettings;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether the guard's gate is open; `undefined` while no guard answers, which is closed. */
  readonly isGateOpen: () => boolean | undefined;
  /** Tells the ROS 2 nodes. */
  readonly order: (isGateOpen: boolean) => void;
  /** The robot goes on moving: the guard must take every other path. */
  readonly escalate: (detail: string) => Promise<unknown>;
}

/** The guard's status comes at each change; this only notices a guard that is gone, and the end of the wait. */
const CHECK_MS = 50;
const HEADER = Buffer.from([0, 1, 0, 0]);
const TWIST_BYTES = 48;
/** A stamp of zero, which means now or not known, an empty frame, and the padding before the first double. */
const EMPTY_HEADER = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);

/** What the ROS 2 child publishes: a twist of zero, and `true` on the stop topic, `false` when the gate opens. */
export function ros2StopMessages(settings: Ros2StopSettings): Ros2ChildStop {
  const { cmdVelTopic, cmdVelType, stopTopic, everyMs } = settings;
  const isStamped = cmdVelType === 'geometry_msgs/msg/TwistStamped';
  const zero = Buffer.concat([HEADER, ...(isStamped ? [EMPTY_HEADER] : []), Buffer.alloc(TWIST_BYTES)]);
  const bool = (value: number): Uint8Array => Buffer.concat([HEADER, Buffer.from([value])]);
  return {
    everyMs,
    publishers: [
      ...(cmdVelTopic === undefined ? [] : [{ topic: cmdVelTopic, type: cmdVelType, closed: zero }]),
      ...(stopTopic === undefined
        ? []
        : [{ topic: stopTopic, type: 'std_msgs/msg/Bool', closed: bool(1), opened: bool(0) }]),
    ],
  };
}

/**
 * Orders a stop over ROS 2 when the gate closes, and looks whether the robot obeys: one that does not measurably stand
 * still in time is reported to the guard, which then takes every path it has. The microcontroller's stop never waits
 * for any of this.
 */
export class Ros2Stop implements Service {
  readonly name = 'ros2-stop';
  readonly #options: Ros2StopOptions;
  #isOpen = false;
  /** When the gate closed on a robot that could move; `undefined`: nothing is waited for. */
  #orderedMs: number | undefined;
  /** What was measured last, by source, and whether it stood still. */
  readonly #motion = new Map<string, { atMs: number; isStill: boolean; words: string }>();

  constructor(options: Ros2StopOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.check();
      await pause(CHECK_MS, signal);
    }
    this.#options.order(false);
  }

  /** Takes over the gate's state, and judges a stop that is waited for. */
  check(): void {
    const { clock, isGateOpen, order } = this.#options;
    const isOpen = isGateOpen() ?? false;
    if (isOpen !== this.#isOpen) {
      this.#isOpen = isOpen;
      order(isOpen);
      this.#orderedMs = isOpen ? undefined : clock.monotonicMs();
    }
    this.#judge();
  }

  /** A sample of joints, of the microcontroller or of ROS 2. */
  observe({ layout, values }: Sample): void {
    const range = layout.kind === 'joint_state' ? fieldRange(layout, 'velocity') : undefined;
    if (!range || range.width === 0) return;
    const fastest = values
      .subarray(range.start, range.start + range.width)
      .reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const isStill = fastest < this.#options.settings.stillRadps;
    this.#note(layout.stream, isStill, `${layout.stream} at ${fastest.toFixed(3)} rad/s`);
  }

  /** A measured motion of the whole robot. */
  observeMotion(topic: string, speedMps: number, turnRadps: number): void {
    const { stillMps, stillRadps } = this.#options.settings;
    const words = `${topic} at ${speedMps.toFixed(3)} m/s, ${turnRadps.toFixed(3)} rad/s`;
    this.#note(topic, speedMps < stillMps && turnRadps < stillRadps, words);
  }

  #note(source: string, isStill: boolean, words: string): void {
    this.#motion.set(source, { atMs: this.#options.clock.monotonicMs(), isStill, words });
  }

  #judge(): void {
    const { clock, log, settings, escalate } = this.#options;
    const orderedMs = this.#orderedMs;
    if (orderedMs === undefined) return;
    const waitedMs = clock.monotonicMs() - orderedMs;
    const sources = [...this.#motion];
    const unsure = sources.filter(([, { atMs, isStill }]) => atMs <= orderedMs || !isStill);
    if (sources.length > 0 && unsure.length === 0) {
      this.#orderedMs = undefined;
      log.info({ waitedMs: Math.round(waitedMs) }, 'ros2.stop_confirmed');
      return;
    }
    if (waitedMs < settings.confirmMs) return;
    this.#orderedMs = undefined;
    const words = unsure.map(([source, { atMs, words }]) => (atMs <= orderedMs ? `${source} is silent` : words));
    const detail = `${settings.confirmMs} ms after the stop over ROS 2: ${words.join('; ') || 'nothing measures motion'}`;
    log.error({ detail }, 'ros2.stop_unconfirmed');
    // A robot on which nothing measures motion cannot be confirmed at all; that is said once per stop and no more.
    if (sources.length === 0) return;
    escalate(detail).catch((err: unknown) => log.error({ err }, 'ros2.escalation_failed'));
  }
}
