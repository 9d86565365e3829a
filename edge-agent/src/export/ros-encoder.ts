import { fieldRange, SAMPLE_FLAGS, type Sample, type StreamLayout, sampleFlagNames } from '@outrider/shared/telemetry';
import { CdrWriter } from './cdr-writer.ts';
import {
  BATTERY_STATE,
  IMU,
  JOINT_STATE,
  JSON_SAMPLE,
  type MessageSchema,
  TEMPERATURE,
  TEMPERATURES,
  VALUES,
} from './ros-schemas.ts';
import { valuesByField } from './sample-json.ts';

/** One message of a recording. */
export interface EncodedMessage {
  readonly topic: string;
  readonly schema: MessageSchema;
  readonly data: Uint8Array;
}

const NS_PER_S = 1_000_000_000n;
const SECONDS_MIN = -(2n ** 31n);
const SECONDS_MAX = 2n ** 31n - 1n;
const COVARIANCE_WIDTH = 9;
const BATTERY_FIELDS = ['voltage', 'temperature', 'current', 'charge', 'capacity', 'design_capacity'] as const;
const BATTERY_STATES = ['power_supply_status', 'power_supply_health', 'power_supply_technology', 'present'] as const;
const NO_VALUES = new Float64Array(0);

/**
 * A sample as ROS 2 messages, so that other tools read it. Nothing is rounded: what a message cannot hold bit by bit
 * goes into a second message beside it.
 */
export function encodeSample(sample: Sample): EncodedMessage[] {
  const { kind, stream } = sample.layout;
  if ((sample.flags & SAMPLE_FLAGS.malformed) !== 0) return [jsonMessage(`${stream}/malformed`, sample)];
  switch (kind) {
    case 'joint_state':
      return jointState(sample);
    case 'imu':
      return [imu(sample)];
    case 'power':
      return batteryState(sample);
    case 'temperature':
      return temperature(sample);
    case 'diagnostics':
    case 'mcu':
      return [jsonMessage(stream, sample)];
  }
}

function jointState(sample: Sample): EncodedMessage[] {
  const { stream, names } = sample.layout;
  const cdr = header(sample).strings(names);
  for (const name of ['position', 'velocity', 'effort']) cdr.float64Sequence(field(sample, name));
  const messages = [{ topic: stream, schema: JOINT_STATE, data: cdr.finish() }];
  const celsius = field(sample, 'temperature');
  return celsius.length === 0 ? messages : [...messages, temperatures(`${stream}/temperature`, sample, celsius)];
}

function imu(sample: Sample): EncodedMessage {
  const cdr = header(sample);
  for (const [name, width] of [
    ['orientation', 4],
    ['angular_velocity', 3],
    ['linear_acceleration', 3],
  ] as const) {
    const values = field(sample, name);
    cdr.float64s(values.length === width ? values : new Float64Array(width));
    const covariance = Float64Array.from(field(sample, `${name}_covariance`));
    const known = covariance.length === COVARIANCE_WIDTH ? covariance : new Float64Array(COVARIANCE_WIDTH);
    // sensor_msgs/Imu: -1 in the first element says that there is no estimate at all.
    if (values.length !== width) known[0] = -1;
    cdr.float64s(known);
  }
  return { topic: sample.layout.stream, schema: IMU, data: cdr.finish() };
}

function batteryState(sample: Sample): EncodedMessage[] {
  const { stream, tags } = sample.layout;
  const value = (name: string, missing: number): number => field(sample, name)[0] ?? missing;
  const cdr = header(sample);
  for (const name of BATTERY_FIELDS) {
    const reading = value(name, Number.NaN);
    // REP: BatteryState counts the current negative while discharging, we count it positive.
    cdr.float32(name === 'current' ? -reading : reading);
  }
  cdr.float32(value('state_of_charge', Number.NaN));
  for (const name of BATTERY_STATES) cdr.uint8(value(name, name === 'present' ? 1 : 0));
  cdr.float32Sequence(field(sample, 'cell_voltage')).float32Sequence(field(sample, 'cell_temperature'));
  cdr.string(tags['location'] ?? '').string(tags['serial_number'] ?? '');
  const message = { topic: stream, schema: BATTERY_STATE, data: cdr.finish() };
  return isHeldByBatteryState(sample) ? [message] : [message, values(`${stream}/values`, sample)];
}

/** Whether a BatteryState has every bit of the sample. The draw follows from voltage and current where it is theirs. */
function isHeldByBatteryState(sample: Sample): boolean {
  const drawRange = fieldRange(sample.layout, 'draw');
  const [draw, voltage, current] = ['draw', 'voltage', 'current'].map((name) => field(sample, name)[0] ?? Number.NaN);
  const followsDraw = draw === undefined || Object.is(draw, (voltage as number) * (current as number));
  return (
    (drawRange === undefined || followsDraw) &&
    sample.values.every((reading, i) => i === drawRange?.start || Object.is(Math.fround(reading), reading))
  );
}

function temperature(sample: Sample): EncodedMessage[] {
  const { stream } = sample.layout;
  const celsius = field(sample, 'temperature');
  if (celsius.length !== 1) return [temperatures(stream, sample, celsius)];
  const frame = sample.layout.tags['frame_id'] ?? sample.layout.names[0] ?? '';
  const variance = field(sample, 'variance');
  const cdr = header(sample, frame)
    .float64s(celsius)
    .float64s(variance.length === 1 ? variance : new Float64Array(1));
  return [{ topic: stream, schema: TEMPERATURE, data: cdr.finish() }];
}

function temperatures(topic: string, sample: Sample, celsius: Float64Array): EncodedMessage {
  const data = header(sample).strings(sample.layout.names).float64Sequence(celsius).finish();
  return { topic, schema: TEMPERATURES, data };
}

function values(topic: string, sample: Sample): EncodedMessage {
  const data = header(sample).strings(valueNames(sample.layout)).float64Sequence(sample.values).finish();
  return { topic, schema: VALUES, data };
}

function jsonMessage(topic: string, sample: Sample): EncodedMessage {
  const { layout, stampNs, flags, text } = sample;
  const body = {
    stamp_ns: String(stampNs),
    flags: sampleFlagNames(flags),
    ...(layout.names.length > 0 && { names: layout.names }),
    values: valuesByField(sample),
    ...(text !== undefined && { text }),
  };
  return { topic, schema: JSON_SAMPLE, data: Buffer.from(JSON.stringify(body)) };
}

/** One name per value of a layout: `position.hip_left`, `voltage`, `orientation.2`. */
export function valueNames({ fields, names }: StreamLayout): string[] {
  return fields.flatMap(({ name, width }) => {
    if (width === 1 && names.length !== 1) return [name];
    return Array.from({ length: width }, (_, i) => `${name}.${width === names.length ? names[i] : i}`);
  });
}

function header(sample: Sample, frame = sample.layout.tags['frame_id'] ?? ''): CdrWriter {
  const { stampNs } = sample;
  let seconds = stampNs / NS_PER_S;
  let nanoseconds = stampNs % NS_PER_S;
  if (nanoseconds < 0n) {
    seconds -= 1n;
    nanoseconds += NS_PER_S;
  }
  // A stamp that ROS cannot say stays exact as the message's publish time.
  const isSayable = seconds >= SECONDS_MIN && seconds <= SECONDS_MAX;
  return new CdrWriter()
    .int32(isSayable ? Number(seconds) : 0)
    .uint32(isSayable ? Number(nanoseconds) : 0)
    .string(frame);
}

function field(sample: Sample, name: string): Float64Array {
  const range = fieldRange(sample.layout, name);
  return range ? sample.values.subarray(range.start, range.start + range.width) : NO_VALUES;
}
