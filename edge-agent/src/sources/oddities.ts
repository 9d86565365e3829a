import { fieldRange, SAMPLE_FLAGS, type StreamLayout } from '@outrider/shared/telemetry';
import { sameStrings } from './layout-cache.ts';

/** Fastest that a joint without a stated limit may move before it counts as a jump. Servos and wheels stay below. */
export const JOINT_VELOCITY_MAX_RADPS_DEFAULT = 60;
/** Position noise that never counts as a jump, however close two stamps are. [rad or m] */
const JUMP_TOLERANCE = 0.05;
const ABSOLUTE_ZERO_C = -273.15;
/** How far a quaternion's squared norm may be from 1. */
const QUATERNION_TOLERANCE = 0.1;

/** What the streams of one robot have called their joints. Shared by the robot's sources. */
export class JointNames {
  /** In the order in which the streams appeared. */
  readonly #byStream = new Map<string, readonly string[]>();

  /**
   * Whether these names share some, but not all, joints with a stream that appeared earlier: `q1 q2 q3` beside
   * `q0 q1 q2`. A subset is normal (a gripper's own topic), and so is no overlap.
   */
  note(stream: string, names: readonly string[]): boolean {
    if (!this.#byStream.has(stream)) this.#byStream.set(stream, names);
    let contradicts = false;
    for (const [other, known] of this.#byStream) {
      if (other === stream) break;
      const shared = names.filter((name) => known.includes(name)).length;
      contradicts ||= shared > 0 && shared < Math.min(names.length, known.length);
    }
    this.#byStream.set(stream, names);
    return contradicts;
  }
}

/** Judges the samples of one stream, in order. Finds what is odd and says so; changes nothing. */
export class StreamOddities {
  readonly #jointNames: JointNames;
  readonly #velocityMaxRadps: Readonly<Record<string, number>>;
  #layout: StreamLayout | undefined;
  #contradictsOthers = false;
  #values: Float64Array = new Float64Array(0);
  #stampNs = 0n;
  #receivedNs = 0n;

  /** @param velocityMaxRadps Limits by joint name; others get JOINT_VELOCITY_MAX_RADPS_DEFAULT. */
  constructor(jointNames: JointNames, velocityMaxRadps: Readonly<Record<string, number>> = {}) {
    this.#jointNames = jointNames;
    this.#velocityMaxRadps = velocityMaxRadps;
  }

  /** Bits of SAMPLE_FLAGS for a sample that could be read whole. */
  flagsOf(layout: StreamLayout, values: Float64Array, stampNs: bigint, receivedNs: bigint): number {
    let flags = isEveryFinite(values) ? 0 : SAMPLE_FLAGS.nonFinite;
    if (isOutOfRange(layout, values)) flags |= SAMPLE_FLAGS.outOfRange;
    if (stampNs !== 0n && this.#stampNs !== 0n && stampNs < this.#stampNs) flags |= SAMPLE_FLAGS.stampBackwards;
    if (layout.kind === 'joint_state') flags |= this.#jointFlags(layout, values, stampNs, receivedNs);
    this.#layout = layout;
    this.#values = values;
    this.#receivedNs = receivedNs;
    if (stampNs !== 0n) this.#stampNs = stampNs;
    return flags;
  }

  #jointFlags(layout: StreamLayout, values: Float64Array, stampNs: bigint, receivedNs: bigint): number {
    let flags = 0;
    if (layout !== this.#layout) {
      const before = this.#layout;
      if (before && !sameStrings(before.names, layout.names)) flags |= SAMPLE_FLAGS.namesChanged;
      this.#contradictsOthers = this.#jointNames.note(layout.stream, layout.names);
    }
    if (this.#contradictsOthers) flags |= SAMPLE_FLAGS.namesChanged;
    if (this.#jumped(layout, values, stampNs, receivedNs)) flags |= SAMPLE_FLAGS.jump;
    return flags;
  }

  #jumped(layout: StreamLayout, values: Float64Array, stampNs: bigint, receivedNs: bigint): boolean {
    const before = this.#layout;
    const width = fieldRange(layout, 'position')?.width ?? 0;
    if (!before || fieldRange(before, 'position')?.width !== width || !sameStrings(before.names, layout.names))
      return false;
    // Positions are the first field of a joint state, so that both samples have them at the same place.
    const elapsedNs = stampNs !== 0n && this.#stampNs !== 0n ? stampNs - this.#stampNs : receivedNs - this.#receivedNs;
    const elapsedS = Math.max(0, Number(elapsedNs) / 1e9);
    for (let joint = 0; joint < width; joint += 1) {
      const moved = Math.abs((values[joint] as number) - (this.#values[joint] as number));
      const limit = this.#velocityMaxRadps[layout.names[joint] ?? ''] ?? JOINT_VELOCITY_MAX_RADPS_DEFAULT;
      if (moved > limit * elapsedS + JUMP_TOLERANCE) return true;
    }
    return false;
  }
}

function isEveryFinite(values: Float64Array): boolean {
  for (const value of values) if (!Number.isFinite(value)) return false;
  return true;
}

/** Whether a value cannot be true of any robot. NaN is no such value: it has its own flag. */
function isOutOfRange(layout: StreamLayout, values: Float64Array): boolean {
  const of = (name: string): Float64Array => {
    const range = fieldRange(layout, name);
    return range ? values.subarray(range.start, range.start + range.width) : values.subarray(0, 0);
  };
  switch (layout.kind) {
    case 'power':
      return (
        of('state_of_charge').some((ratio) => ratio < 0 || ratio > 1) ||
        of('voltage').some((volts) => volts < 0) ||
        of('temperature').some((celsius) => celsius < ABSOLUTE_ZERO_C) ||
        of('cell_temperature').some((celsius) => celsius < ABSOLUTE_ZERO_C) ||
        of('present').some((present) => present !== 0 && present !== 1)
      );
    case 'temperature':
      return (
        of('temperature').some((celsius) => celsius < ABSOLUTE_ZERO_C) ||
        of('variance').some((variance) => variance < 0)
      );
    case 'joint_state':
      return of('temperature').some((celsius) => celsius < ABSOLUTE_ZERO_C);
    case 'imu': {
      // sensor_msgs/Imu: a first covariance of -1 says that there is no orientation. All zeros is what lazy drivers send.
      if (of('orientation_covariance')[0] === -1) return false;
      const norm = of('orientation').reduce((sum, component) => sum + component * component, 0);
      return norm !== 0 && Math.abs(norm - 1) > QUATERNION_TOLERANCE;
    }
    case 'diagnostics':
      return of('level').some((level) => level > 3);
    case 'mcu':
      return false;
  }
}
