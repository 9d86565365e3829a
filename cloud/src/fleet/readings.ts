import { fieldRange, type Sample } from '@outrider/shared/telemetry';
import type { LatestSample, ShadowEntry } from '../telemetry/ports.ts';

/** One joint as last measured. Unknown quantities are null. */
export interface JointView {
  readonly name: string;
  readonly position: number | null;
  readonly velocity: number | null;
  readonly effort: number | null;
  readonly temperature_c: number | null;
}

/** A number, or null for what is missing, NaN or infinite: JSON has no word for those. */
export const finiteOrNull = (value: number | undefined): number | null =>
  value !== undefined && Number.isFinite(value) ? value : null;

/** The values of a field in a sample; empty when the stream has none. */
export function fieldValues(sample: Sample, field: string): number[] {
  const range = fieldRange(sample.layout, field);
  return range ? Array.from(sample.values.subarray(range.start, range.start + range.width)) : [];
}

/** The joints of a joint_state sample. Joints without a name get their position in the message as one. */
export function jointsOf(sample: Sample): JointView[] {
  const columns = ['position', 'velocity', 'effort', 'temperature'].map((field) => fieldValues(sample, field));
  const count = Math.max(sample.layout.names.length, ...columns.map((column) => column.length));
  return Array.from({ length: count }, (_, index) => ({
    name: sample.layout.names[index] ?? `#${index}`,
    position: finiteOrNull(columns[0]?.[index]),
    velocity: finiteOrNull(columns[1]?.[index]),
    effort: finiteOrNull(columns[2]?.[index]),
    temperature_c: finiteOrNull(columns[3]?.[index]),
  }));
}

/** State of charge as a percentage. Null when it was not measured or is outside 0 to 1. */
export function batteryPercentage(sample: Sample): number | null {
  const ratio = fieldValues(sample, 'state_of_charge')[0];
  // 1e-9 of slack: a ratio that was once a percentage may be a hair over 1.
  if (ratio === undefined || !(ratio >= 0 && ratio <= 1 + 1e-9)) return null;
  // 15 digits are what a double keeps of a decimal: 0.29 becomes 29 and not 28.999999999999996.
  return Math.min(100, Number((ratio * 100).toPrecision(15)));
}

/** Orientation x y z w as WIA's object. Null when the IMU does not measure one. */
export function orientationOf(sample: Sample): { w: number; x: number; y: number; z: number } | null {
  const [x, y, z, w] = fieldValues(sample, 'orientation');
  if (x === undefined || y === undefined || z === undefined || w === undefined) return null;
  const norm = Math.hypot(x, y, z, w);
  // sensor_msgs/Imu: covariance[0] = -1 says that there is no orientation.
  if (!(norm > 0.5 && norm < 2) || fieldValues(sample, 'orientation_covariance')[0] === -1) return null;
  return { w, x, y, z };
}

/** Every temperature of a sample. [°C] */
export const temperaturesOf = (sample: Sample): number[] =>
  fieldValues(sample, 'temperature').filter((value) => Number.isFinite(value));

/** The newest sample of each kind's freshest stream. */
export function newestOfKind(latest: readonly LatestSample[], kind: LatestSample['kind']): LatestSample | undefined {
  return latest.filter((entry) => entry.kind === kind).sort((a, b) => b.recordedAt - a.recordedAt)[0];
}

/** The failsafe as the robot last reported it. */
export interface FailsafeView {
  readonly phase: string;
  readonly mode: string | null;
  readonly action: string;
  readonly latch_id: number | null;
  readonly motion_epoch: number | null;
  readonly causes: readonly string[];
  readonly at: number;
}

/** Reads the shadow's `failsafe` key, which is the robot's own words and so may have any shape. */
export function failsafeOf(shadow: readonly ShadowEntry[]): FailsafeView | undefined {
  const entry = shadow.find(({ key }) => key === 'failsafe');
  if (!entry || typeof entry.value !== 'object' || entry.value === null) return undefined;
  const value = entry.value as Record<string, unknown>;
  const latchId = value['latch_id'] ?? value['latchId'];
  const motionEpoch = value['motion_epoch'];
  const causes = Array.isArray(value['causes']) ? value['causes'] : [];
  return {
    phase: textOr(value['phase'], 'UNKNOWN'),
    mode: textOr(value['mode'], '') || null,
    action: textOr(value['action'], 'NONE'),
    latch_id: typeof latchId === 'number' && latchId > 0 ? latchId : null,
    motion_epoch: typeof motionEpoch === 'number' && motionEpoch >= 0 ? motionEpoch : null,
    causes: causes.map((cause: unknown) =>
      typeof cause === 'string' ? cause : textOr((cause as Record<string, unknown> | null)?.['cause'], 'unknown'),
    ),
    at: entry.at,
  };
}

const textOr = (value: unknown, otherwise: string): string => (typeof value === 'string' ? value : otherwise);
