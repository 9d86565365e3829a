import { MessageType, type ParsedMessage, ULog } from '@foxglove/ulog';
import { FileReader } from '@foxglove/ulog/node.js';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { SAMPLE_FLAGS, type Sample, type StreamKind } from '@outrider/shared/telemetry';
import { LayoutCache } from './layout-cache.ts';
import { JointNames, StreamOddities } from './oddities.ts';
import type { ReplayTopic } from './options.ts';
import type { Playback } from './playback.ts';
import { damaged, type Remark, refuse } from './recording.ts';

const READ_BYTES = 1 << 20;
/** Instances of one topic that are told apart: `px4/battery_status`, `px4/battery_status.1`, … */
const INSTANCES_MAX = 8;

/** How a PX4 topic becomes a stream. */
interface TopicReader {
  readonly kind: StreamKind;
  /** Fields and the widths they have. */
  readonly fields: readonly (readonly [string, number])[];
  /** The fields' values one after the other; NaN for what is not there. */
  readonly values: (message: ParsedMessage) => number[];
}

/**
 * The topics that the failsafe can judge. PX4 counts in its own frames (body forward-right-down in a world
 * north-east-down); a turn by half a circle about x makes them ours (forward-left-up, z up when level, REP 103).
 */
const TOPICS: Readonly<Record<string, TopicReader>> = {
  vehicle_attitude: {
    kind: 'imu',
    fields: [['orientation', 4]],
    values: (message) => {
      const [w, x, y, z] = numbers(message, 'q', 4) as [number, number, number, number];
      return [x, -y, -z, w];
    },
  },
  sensor_combined: {
    kind: 'imu',
    fields: [
      ['angular_velocity', 3],
      ['linear_acceleration', 3],
    ],
    values: (message) => [...upright(message, 'gyro_rad'), ...upright(message, 'accelerometer_m_s2')],
  },
  battery_status: {
    kind: 'power',
    fields: [
      ['voltage', 1],
      ['current', 1],
      ['state_of_charge', 1],
      ['draw', 1],
      ['temperature', 1],
    ],
    values: (message) => {
      const [voltage, current] = [measured(message, 'voltage_v', 0), measured(message, 'current_a', -1)];
      const charge = measured(message, 'remaining', -1);
      return [voltage, current, charge, voltage * current, number(message, 'temperature')];
    },
  },
  manual_control_setpoint: { kind: 'mcu', fields: [['valid', 1]], values: (message) => [number(message, 'valid')] },
  input_rc: {
    kind: 'mcu',
    fields: [
      ['rssi', 1],
      ['rc_lost', 1],
    ],
    values: (message) => [number(message, 'rssi'), number(message, 'rc_lost')],
  },
};

/** Opens a PX4 log. Its times count from the vehicle's start, so they are marked as unsure. */
export async function openULog(file: string, topics: readonly ReplayTopic[] | undefined): Promise<Playback> {
  const reader = new FileReader(file);
  const log = new ULog(reader, { chunkSize: READ_BYTES });
  try {
    await log.open();
    return new ULogPlayback(file, log, reader, topics);
  } catch (cause) {
    await reader.close();
    if (cause instanceof DomainError) throw cause;
    throw refuse(file, `is a ULog that cannot be read: ${errorMessage(cause)}`, cause);
  }
}

class ULogPlayback implements Playback {
  readonly #file: string;
  readonly #log: ULog;
  readonly #reader: FileReader;
  readonly #topics: readonly ReplayTopic[] | undefined;

  constructor(file: string, log: ULog, reader: FileReader, topics: readonly ReplayTopic[] | undefined) {
    this.#file = file;
    this.#log = log;
    this.#reader = reader;
    this.#topics = topics;
    const found = [...log.subscriptions.values()].map(({ name }) => `px4/${name}`);
    for (const { topic } of topics ?? [])
      if (!found.includes(topic.replace(/\.\d+$/, '')))
        throw refuse(file, `has no topic ${topic}; it has ${found.join(', ')}`);
    if (this.#readers().size === 0)
      throw refuse(file, `has no topic that becomes telemetry (${Object.keys(TOPICS).join(', ')})`);
  }

  async *samples(): AsyncGenerator<Sample, void, void> {
    const readers = this.#readers();
    const jointNames = new JointNames();
    const oddities = new Map([...readers.keys()].map((id) => [id, new StreamOddities(jointNames)]));
    try {
      for await (const message of this.#log.readMessages({ msgIds: new Set(readers.keys()), includeLogs: false })) {
        if (message.type !== MessageType.Data) continue;
        const reader = readers.get(message.msgId);
        // 0: the topic was logged before anybody had published it.
        if (!reader || message.value.timestamp === 0n) continue;
        const { topic, layouts } = reader;
        const layout = layouts.layout(
          [],
          topic.fields.map(([name]) => name),
          topic.fields.map(([, width]) => width),
          {},
        );
        const values = Float64Array.from(topic.values(message.value));
        const receivedNs = message.value.timestamp * 1000n;
        const measuredAt = message.value['timestamp_sample'];
        const stampNs = typeof measuredAt === 'bigint' && measuredAt > 0n ? measuredAt * 1000n : receivedNs;
        const odd = oddities.get(message.msgId)?.flagsOf(layout, values, stampNs, receivedNs) ?? 0;
        const flags = SAMPLE_FLAGS.replayed | SAMPLE_FLAGS.clockUnsure | odd;
        yield { layout, stampNs, receivedNs, receivedMonoNs: 0n, flags, values };
      }
    } catch (error) {
      throw damaged(this.#file, 'inside', error);
    }
  }

  fractionRead(logTimeNs: bigint): number {
    const [, endUs] = this.#log.timeRange() ?? [0n, 0n];
    const startUs = this.#log.header?.timestamp ?? 0n;
    return endUs > startUs ? Number(logTimeNs / 1000n - startUs) / Number(endUs - startUs) : 1;
  }

  remark(): Remark | undefined {
    return undefined;
  }

  close(): Promise<void> {
    return this.#reader.close();
  }

  /** The readers by the log's own numbers. */
  #readers(): Map<number, { readonly topic: TopicReader; readonly layouts: LayoutCache }> {
    const readers = new Map<number, { topic: TopicReader; layouts: LayoutCache }>();
    for (const [id, { name, multiId }] of this.#log.subscriptions) {
      const topic = TOPICS[name];
      const path = `px4/${name}${multiId === 0 ? '' : `.${multiId}`}`;
      const wanted = this.#topics?.find((mapping) => mapping.topic === path);
      if (!topic || multiId >= INSTANCES_MAX || (this.#topics && !wanted)) continue;
      readers.set(id, { topic, layouts: new LayoutCache(wanted?.stream ?? path, topic.kind, wanted?.rateHz ?? 0) });
    }
    return readers;
  }
}

function number(message: ParsedMessage, name: string): number {
  const value = message[name];
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint'
    ? Number(value)
    : Number.NaN;
}

/** A reading, where PX4 has a number that says there was none. */
function measured(message: ParsedMessage, name: string, unknown: number): number {
  const value = number(message, name);
  return value === unknown ? Number.NaN : value;
}

function numbers(message: ParsedMessage, name: string, count: number): number[] {
  const value = message[name];
  const all = Array.isArray(value) ? value : [];
  return Array.from({ length: count }, (_, i) => (typeof all[i] === 'number' ? all[i] : Number.NaN));
}

function upright(message: ParsedMessage, name: string): [number, number, number] {
  const [x, y, z] = numbers(message, name, 3) as [number, number, number];
  return [x, -y, -z];
}
