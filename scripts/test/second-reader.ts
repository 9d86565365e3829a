import { readFileSync } from 'node:fs';
import type { MessageDefinition } from '@foxglove/message-definition';
import { ros2humble } from '@foxglove/rosmsg-msgs-common';
import { MessageReader } from '@foxglove/rosmsg2-serialization';
import { McapIndexedReader } from '@mcap/core';
import Database from 'better-sqlite3';
import { decompress } from 'fzstd';

/**
 * A second opinion on recordings, made of published libraries only: `@mcap/core` or plain SQL for the container,
 * `@foxglove/rosmsg2-serialization` for the messages. Nothing here comes from the edge agent.
 */

/** What a mapped message says, in the order in which the fields of its stream are documented. */
export interface ExpectedSample {
  readonly values: Readonly<Record<string, readonly number[]>>;
  readonly names: readonly string[];
}

const MAPPED = ['JointState', 'Imu', 'BatteryState', 'Temperature', 'DiagnosticArray'];

type Vector = { x: number; y: number; z: number; w?: number };
type Message = Record<string, never> & {
  header: { frame_id: string };
  name: string[];
  position: Float64Array;
  velocity: Float64Array;
  effort: Float64Array;
  orientation: Vector & { w: number };
  orientation_covariance: Float64Array;
  angular_velocity: Vector;
  angular_velocity_covariance: Float64Array;
  linear_acceleration: Vector;
  linear_acceleration_covariance: Float64Array;
  voltage: number;
  current: number;
  percentage: number;
  temperature: number;
  variance: number;
  status: { level: number }[];
};

/** Every mapped message of a recording, by topic. */
export async function readExpected(file: string): Promise<Map<string, ExpectedSample[]>> {
  return file.endsWith('.db3') ? readDb3(file) : readMcap(file);
}

function readDb3(file: string): Map<string, ExpectedSample[]> {
  // From a copy in memory: opening the file itself would leave journal files beside it. Bytes 18 and 19 of the header
  // say that there is a write-ahead log, which a copy in memory cannot have (https://sqlite.org/fileformat2.html).
  const bytes = readFileSync(file);
  bytes.fill(1, 18, 20);
  const db = new Database(bytes);
  const rows = db
    .prepare<[], { topic: string; type: string; data: Uint8Array }>(
      'select t.name as topic, t.type as type, m.data as data from messages m join topics t on t.id = m.topic_id order by m.timestamp, m.id',
    )
    .all();
  const result = new Map<string, ExpectedSample[]>();
  for (const { topic, type, data } of rows) add(result, topic, type, data);
  db.close();
  return result;
}

async function readMcap(file: string): Promise<Map<string, ExpectedSample[]>> {
  const bytes = readFileSync(file);
  const reader = await McapIndexedReader.Initialize({
    readable: {
      size: async () => BigInt(bytes.length),
      read: async (offset, size) => bytes.subarray(Number(offset), Number(offset + size)),
    },
    decompressHandlers: { zstd: (packed, size) => decompress(packed, new Uint8Array(Number(size))) },
  });
  const result = new Map<string, ExpectedSample[]>();
  for await (const message of reader.readMessages()) {
    const channel = reader.channelsById.get(message.channelId);
    const schema = channel && reader.schemasById.get(channel.schemaId);
    if (channel && schema) add(result, channel.topic, schema.name, message.data);
  }
  return result;
}

const readers = new Map<string, MessageReader>();

function readerOf(type: string): MessageReader | undefined {
  const name = type.split('/').at(-1) ?? '';
  if (!MAPPED.includes(name)) return undefined;
  let reader = readers.get(name);
  if (!reader) {
    const owner = name === 'DiagnosticArray' ? 'diagnostic_msgs' : 'sensor_msgs';
    const all: Readonly<Record<string, MessageDefinition>> = ros2humble;
    const wanted = all[`${owner}/msg/${name}`] ?? all[`${owner}/${name}`];
    if (!wanted) throw new Error(`no published definition of ${owner}/${name}`);
    reader = new MessageReader([wanted, ...Object.values(all).filter((definition) => definition !== wanted)]);
    readers.set(name, reader);
  }
  return reader;
}

function add(result: Map<string, ExpectedSample[]>, topic: string, type: string, data: Uint8Array): void {
  const reader = readerOf(type);
  if (!reader) return;
  const sample = expected(type.split('/').at(-1) ?? '', reader.readMessage<Message>(data));
  const list = result.get(topic);
  if (list) list.push(sample);
  else result.set(topic, [sample]);
}

function expected(type: string, m: Message): ExpectedSample {
  const xyz = (v: Vector): number[] => [v.x, v.y, v.z];
  switch (type) {
    case 'JointState':
      return { names: m.name, values: { position: [...m.position], velocity: [...m.velocity], effort: [...m.effort] } };
    case 'Imu':
      return {
        names: [],
        values: {
          orientation: [...xyz(m.orientation), m.orientation.w],
          orientation_covariance: [...m.orientation_covariance],
          angular_velocity: xyz(m.angular_velocity),
          angular_velocity_covariance: [...m.angular_velocity_covariance],
          linear_acceleration: xyz(m.linear_acceleration),
          linear_acceleration_covariance: [...m.linear_acceleration_covariance],
        },
      };
    case 'BatteryState':
      // Positive while discharging inside; ROS counts it negative. The sign bit is the one thing that changes.
      return { names: [], values: { voltage: [m.voltage], current: [-m.current], state_of_charge: [m.percentage] } };
    case 'Temperature':
      // A Temperature names its sensor by the frame that the sensor is in.
      return { names: [m.header.frame_id], values: { temperature: [m.temperature], variance: [m.variance] } };
    default:
      return { names: [], values: { level: m.status.map((status) => status.level) } };
  }
}
