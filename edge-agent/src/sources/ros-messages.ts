import { DomainError } from '@outrider/shared/errors';
import { SAMPLE_FLAGS, type StreamKind, type StreamLayout } from '@outrider/shared/telemetry';
import { CdrReader } from './cdr.ts';
import { HeadCache, type LayoutCache, type MessageHead } from './layout-cache.ts';

/** The ROS 2 message types that become samples, as `ros2 topic type` spells them. */
export const ROS_TYPE_NAMES = [
  'sensor_msgs/msg/JointState',
  'sensor_msgs/msg/Imu',
  'sensor_msgs/msg/BatteryState',
  'sensor_msgs/msg/Temperature',
  'diagnostic_msgs/msg/DiagnosticArray',
  'outrider_msgs/msg/Temperatures',
] as const;
export type RosTypeName = (typeof ROS_TYPE_NAMES)[number];

export const ROS_TYPE_KINDS: Readonly<Record<RosTypeName, StreamKind>> = {
  'sensor_msgs/msg/JointState': 'joint_state',
  'sensor_msgs/msg/Imu': 'imu',
  'sensor_msgs/msg/BatteryState': 'power',
  'sensor_msgs/msg/Temperature': 'temperature',
  'diagnostic_msgs/msg/DiagnosticArray': 'diagnostics',
  'outrider_msgs/msg/Temperatures': 'temperature',
};

/** The mapped type that a name means, in today's spelling or in Dashing's (`sensor_msgs/Imu`). */
export function rosTypeName(name: string): RosTypeName | undefined {
  return ROS_TYPE_NAMES.find((known) => known === name || known.replace('/msg/', '/') === name);
}

/** What one message says, before it is judged against the messages around it. */
export interface MessageBody {
  readonly layout: StreamLayout;
  readonly stampNs: bigint;
  readonly values: Float64Array;
  readonly flags: number;
  readonly text?: string;
}

/** Longest message that is looked at. The five types stay far below. */
export const MESSAGE_BYTES_MAX = 256 * 1024;
/** What a telemetry block takes per sample. */
const VALUES_MAX = 4096;
const NAME_CHARACTERS_MAX = 256;
const TEXT_CHARACTERS_MAX = 65_536;

const JOINT_FIELDS = ['position', 'velocity', 'effort'];
const IMU_FIELDS = [
  'orientation',
  'orientation_covariance',
  'angular_velocity',
  'angular_velocity_covariance',
  'linear_acceleration',
  'linear_acceleration_covariance',
];
const IMU_WIDTHS = [4, 9, 3, 9, 3, 9];
const IMU_VALUES = 37;
const POWER_FIELDS = [
  'voltage',
  'current',
  'state_of_charge',
  'draw',
  'temperature',
  'charge',
  'capacity',
  'design_capacity',
  'power_supply_status',
  'power_supply_health',
  'power_supply_technology',
  'present',
  'cell_voltage',
  'cell_temperature',
];
const POWER_FIELDS_DASHING = POWER_FIELDS.filter((name) => name !== 'temperature');
const TEMPERATURE_FIELDS = ['temperature', 'variance'];
const TEMPERATURE_WIDTHS = [1, 1];
const DIAGNOSTIC_FIELDS = ['level'];

/**
 * Reads messages of one type on one stream.
 *
 * `read` throws DomainError `invalid` when the payload cannot be read whole. Values keep the message's bits; the one
 * conversion is the sign of a battery's current, which ROS counts negative while discharging and we count positive.
 */
export class MessageReader {
  readonly #type: RosTypeName;
  readonly #layouts: LayoutCache;
  readonly #heads = new HeadCache();

  constructor(type: RosTypeName, layouts: LayoutCache) {
    this.#type = type;
    this.#layouts = layouts;
  }

  read(payload: Uint8Array): MessageBody {
    if (payload.length > MESSAGE_BYTES_MAX)
      throw new DomainError('invalid', `${payload.length} bytes are more than a message's ${MESSAGE_BYTES_MAX}`);
    switch (this.#type) {
      case 'sensor_msgs/msg/JointState':
        return this.#jointState(new CdrReader(payload));
      case 'sensor_msgs/msg/Imu':
        return this.#imu(new CdrReader(payload));
      case 'sensor_msgs/msg/BatteryState':
        return this.#batteryState(payload);
      case 'sensor_msgs/msg/Temperature':
        return this.#temperature(new CdrReader(payload));
      case 'diagnostic_msgs/msg/DiagnosticArray':
        return this.#diagnosticArray(new CdrReader(payload));
      case 'outrider_msgs/msg/Temperatures':
        return this.#temperatures(new CdrReader(payload));
    }
  }

  #jointState(cdr: CdrReader): MessageBody {
    const stamp = readStamp(cdr);
    const { names, tags } = this.#heads.read(cdr, readNamedHead);
    const widths: number[] = [];
    const starts: number[] = [];
    for (const _ of JOINT_FIELDS) {
      const width = cdr.sequenceLength(8);
      starts.push(cdr.skipFloat64s(width));
      widths.push(width);
    }
    cdr.end();
    const values = new Float64Array(checkedCount(widths));
    let at = 0;
    let isMismatched = false;
    widths.forEach((width, field) => {
      cdr.float64sAt(starts[field] as number, width, values, at);
      at += width;
      isMismatched ||= width !== 0 && width !== names.length;
    });
    const layout = this.#layouts.layout(names, JOINT_FIELDS, widths, tags);
    return { layout, ...stamp, values, flags: stamp.flags | (isMismatched ? SAMPLE_FLAGS.nameCountMismatch : 0) };
  }

  #imu(cdr: CdrReader): MessageBody {
    const stamp = readStamp(cdr);
    const { names, tags } = this.#heads.read(cdr, readHead);
    const values = new Float64Array(IMU_VALUES);
    cdr.float64sAt(cdr.skipFloat64s(IMU_VALUES), IMU_VALUES, values, 0);
    cdr.end();
    return { layout: this.#layouts.layout(names, IMU_FIELDS, IMU_WIDTHS, tags), ...stamp, values };
  }

  #batteryState(payload: Uint8Array): MessageBody {
    try {
      return this.#batteryStateOf(new CdrReader(payload), true);
    } catch (error) {
      // Before ROS 2 Foxy the message had no temperature. Only a message that ends where it should is believed.
      try {
        return this.#batteryStateOf(new CdrReader(payload), false);
      } catch {
        throw error;
      }
    }
  }

  #batteryStateOf(cdr: CdrReader, hasTemperature: boolean): MessageBody {
    const stamp = readStamp(cdr);
    const { tags } = this.#heads.read(cdr, readHead);
    const voltage = cdr.float32();
    const temperature = hasTemperature ? [cdr.float32()] : [];
    const current = -cdr.float32();
    const amounts = [cdr.float32(), cdr.float32(), cdr.float32()];
    const stateOfCharge = cdr.float32();
    const states = [cdr.uint8(), cdr.uint8(), cdr.uint8(), cdr.uint8()];
    const cellVoltages = readFloat32s(cdr);
    const cellTemperatures = readFloat32s(cdr);
    const allTags = { ...tags, location: cdr.string(), serial_number: cdr.string() };
    cdr.end();
    const fixed = [voltage, current, stateOfCharge, voltage * current, ...temperature, ...amounts, ...states];
    const widths = [...fixed.map(() => 1), cellVoltages.length, cellTemperatures.length];
    checkedCount(widths);
    const fields = hasTemperature ? POWER_FIELDS : POWER_FIELDS_DASHING;
    const layout = this.#layouts.layout(NO_NAMES, fields, widths, allTags);
    return { layout, ...stamp, values: Float64Array.from([...fixed, ...cellVoltages, ...cellTemperatures]) };
  }

  #temperature(cdr: CdrReader): MessageBody {
    const stamp = readStamp(cdr);
    const { names, tags } = this.#heads.read(cdr, readSensorHead);
    const values = new Float64Array(2);
    cdr.float64sAt(cdr.skipFloat64s(2), 2, values, 0);
    cdr.end();
    return { layout: this.#layouts.layout(names, TEMPERATURE_FIELDS, TEMPERATURE_WIDTHS, tags), ...stamp, values };
  }

  /** Our own recordings: ROS has a type for one sensor only. */
  #temperatures(cdr: CdrReader): MessageBody {
    const stamp = readStamp(cdr);
    const { names, tags } = this.#heads.read(cdr, readNamedHead);
    const width = cdr.sequenceLength(8);
    const values = new Float64Array(checkedCount([width]));
    cdr.float64sAt(cdr.skipFloat64s(width), width, values, 0);
    cdr.end();
    const flags = stamp.flags | (width === names.length ? 0 : SAMPLE_FLAGS.nameCountMismatch);
    return { layout: this.#layouts.layout(names, ['temperature'], [width], tags), ...stamp, flags, values };
  }

  #diagnosticArray(cdr: CdrReader): MessageBody {
    const stamp = readStamp(cdr);
    const { names, tags } = this.#heads.read(cdr, readHead);
    const count = checkedCount([cdr.sequenceLength(16)]);
    const values = new Float64Array(count);
    const statuses: unknown[] = [];
    for (let i = 0; i < count; i += 1) {
      const level = cdr.uint8();
      values[i] = level;
      const status = { level, name: cdr.string(), message: cdr.string(), hardware_id: cdr.string() };
      const pairs = cdr.sequenceLength(8);
      const pairsRead: { key: string; value: string }[] = [];
      for (let k = 0; k < pairs; k += 1) pairsRead.push({ key: cdr.string(), value: cdr.string() });
      statuses.push({ ...status, values: pairsRead });
    }
    cdr.end();
    const text = JSON.stringify(statuses);
    if (text.length > TEXT_CHARACTERS_MAX)
      throw new DomainError('invalid', `the statuses take ${text.length} characters, more than ${TEXT_CHARACTERS_MAX}`);
    return { layout: this.#layouts.layout(names, DIAGNOSTIC_FIELDS, [count], tags), ...stamp, values, text };
  }
}

const NO_NAMES: readonly string[] = [];

function readStamp(cdr: CdrReader): { stampNs: bigint; flags: number } {
  const seconds = cdr.int32();
  const nanoseconds = cdr.uint32();
  const stampNs = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const flags =
    (stampNs === 0n ? SAMPLE_FLAGS.noStamp : 0) |
    (seconds < 0 || nanoseconds >= 1_000_000_000 ? SAMPLE_FLAGS.outOfRange : 0);
  return { stampNs, flags };
}

function readHead(cdr: CdrReader): MessageHead {
  return { names: NO_NAMES, tags: { frame_id: checkedName(cdr.string()) } };
}

/** A Temperature's only name for its sensor is its frame. */
function readSensorHead(cdr: CdrReader): MessageHead {
  const { tags } = readHead(cdr);
  const frame = tags['frame_id'] as string;
  return { names: frame === '' ? NO_NAMES : [frame], tags };
}

function readNamedHead(cdr: CdrReader): MessageHead {
  const { tags } = readHead(cdr);
  const count = checkedCount([cdr.sequenceLength(4)]);
  const names: string[] = [];
  for (let i = 0; i < count; i += 1) names.push(checkedName(cdr.string()));
  return { names, tags };
}

function readFloat32s(cdr: CdrReader): number[] {
  const values: number[] = [];
  const count = cdr.sequenceLength(4);
  for (let i = 0; i < count; i += 1) values.push(cdr.float32());
  return values;
}

function checkedCount(widths: readonly number[]): number {
  const count = widths.reduce((sum, width) => sum + width, 0);
  if (count > VALUES_MAX) throw new DomainError('invalid', `${count} values or names are more than ${VALUES_MAX}`);
  return count;
}

function checkedName(name: string): string {
  if (name.length > NAME_CHARACTERS_MAX)
    throw new DomainError('invalid', `a name has ${name.length} characters, more than ${NAME_CHARACTERS_MAX}`);
  return name;
}
