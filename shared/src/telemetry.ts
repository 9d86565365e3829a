/** What a stream's samples are about. Decides which fields it has and how a reader understands them. */
export const STREAM_KINDS = ['joint_state', 'imu', 'power', 'temperature', 'diagnostics', 'mcu'] as const;
export type StreamKind = (typeof STREAM_KINDS)[number];

/** A run of `width` values under one name, such as `position` with one value per joint. */
export interface Field {
  readonly name: string;
  readonly width: number;
}

/**
 * The shape that consecutive samples of one stream share. Kept exactly as the source gave it: a JointState with
 * three positions and no names has `names: []` and `position` of width 3.
 *
 * Fields by kind (SI units; empty arrays have width 0; all of a field's values are consecutive in a sample):
 * - `joint_state`: `position` [rad or m], `velocity` [rad/s or m/s], `effort` [N·m or N], and optionally
 *   `temperature` [°C]; `names` are the joints.
 * - `imu`: `orientation` x y z w, `orientation_covariance` (9), `angular_velocity` x y z [rad/s],
 *   `angular_velocity_covariance` (9), `linear_acceleration` x y z [m/s²], `linear_acceleration_covariance` (9).
 * - `power`: `voltage` [V], `current` [A, positive while discharging], `state_of_charge` [0–1], `draw` [W,
 *   positive while discharging], and optionally `temperature` [°C], `charge` [A·h], `capacity` [A·h],
 *   `design_capacity` [A·h], `power_supply_status`, `power_supply_health`, `power_supply_technology`, `present`,
 *   `cell_voltage` (n) [V], `cell_temperature` (n) [°C].
 * - `temperature`: `temperature` [°C] and optionally `variance`; `names` are the sensors.
 * - `diagnostics`: `level`, one value per status; the statuses are in the sample's `text` as JSON.
 * - `mcu`: `flags`, `uptime` [s] and further counters of the microcontroller.
 *
 * Values keep the source's bits. The one conversion at the ROS boundary is the sign of `current`:
 * `sensor_msgs/BatteryState` counts it negative while discharging.
 */
export interface StreamLayout {
  /** Where it came from: a ROS topic, or `mcu/joint_state`. Unique in a robot. */
  readonly stream: string;
  readonly kind: StreamKind;
  readonly names: readonly string[];
  readonly fields: readonly Field[];
  /** Text that rarely changes, such as `frame_id`. A change starts a new block. */
  readonly tags: Readonly<Record<string, string>>;
  /** What the source promises. 0: it promises nothing. [Hz] */
  readonly declaredRateHz: number;
}

/** Oddities of one sample. Bits of `Sample.flags`; never repaired, always said. */
export const SAMPLE_FLAGS = {
  /** `names` and a non-empty array differ in length. */
  nameCountMismatch: 1 << 0,
  /** A value is NaN or infinite. */
  nonFinite: 1 << 1,
  /** A value is outside its physical range (a state of charge of 8). */
  outOfRange: 1 << 2,
  /** The header stamp is zero or absent. */
  noStamp: 1 << 3,
  /** The header stamp went backwards in its stream. */
  stampBackwards: 1 << 4,
  /** A position moved further than the joint can in that time. */
  jump: 1 << 5,
  /** The joint names differ from those this stream or its robot used before. */
  namesChanged: 1 << 6,
  /** The wall clock was not known to be good when this was received. */
  clockUnsure: 1 << 7,
  /** The payload could not be understood whole; `text` says why. */
  malformed: 1 << 8,
  /** Given by a recording, not by a robot in front of us. */
  replayed: 1 << 9,
} as const;
export type SampleFlag = keyof typeof SAMPLE_FLAGS;

/** Names of the set bits, in the order of their values. */
export function sampleFlagNames(flags: number): SampleFlag[] {
  return (Object.keys(SAMPLE_FLAGS) as SampleFlag[]).filter((name) => (flags & SAMPLE_FLAGS[name]) !== 0);
}

/** One reading. All three times are kept: what the source says, when we got it by wall and by monotonic clock. */
export interface Sample {
  readonly layout: StreamLayout;
  /** The source's own stamp, ns since 1970; 0 when it gave none. In a recording: the header's. */
  readonly stampNs: bigint;
  /** Wall clock at reception, ns since 1970. In a recording: the recording's receive time. */
  readonly receivedNs: bigint;
  /** Monotonic clock at reception, ns. Staleness is judged by this one. */
  readonly receivedMonoNs: bigint;
  readonly flags: number;
  /** All fields' values in the layout's order. Length: the sum of the widths. */
  readonly values: Float64Array;
  /** Free text of `diagnostics` and of malformed samples. */
  readonly text?: string;
}

/** Sum of a layout's widths: how many values each sample has. */
export const valueCount = (layout: StreamLayout): number => layout.fields.reduce((sum, field) => sum + field.width, 0);

/** Where a field's values start in a sample, and how many there are; `undefined` when the layout lacks it. */
export function fieldRange(layout: StreamLayout, name: string): { start: number; width: number } | undefined {
  let start = 0;
  for (const field of layout.fields) {
    if (field.name === name) return { start, width: field.width };
    start += field.width;
  }
  return undefined;
}

/** Whether two layouts describe samples of the same shape, so that they may share a block. */
export function sameLayout(a: StreamLayout, b: StreamLayout): boolean {
  if (a === b) return true;
  if (a.stream !== b.stream || a.kind !== b.kind || a.declaredRateHz !== b.declaredRateHz) return false;
  if (a.names.length !== b.names.length || a.fields.length !== b.fields.length) return false;
  if (a.names.some((name, i) => name !== b.names[i])) return false;
  if (a.fields.some((field, i) => field.name !== b.fields[i]?.name || field.width !== b.fields[i]?.width)) return false;
  const keys = Object.keys(a.tags);
  return keys.length === Object.keys(b.tags).length && keys.every((key) => a.tags[key] === b.tags[key]);
}
