import { readdirSync } from 'node:fs';
import { type Sample, sampleFlagNames } from '@outrider/shared/telemetry';
import t from 'tap';
import { ROS_TYPE_NAMES } from '../src/sources/ros-messages.ts';
import {
  recording,
  recordings,
  replayAll,
  type SecondMessage,
  SecondReader,
  type SecondReading,
  skipWithoutRecordings,
} from './replay-recordings.ts';

const DASHING_NAMES = ROS_TYPE_NAMES.map((name) => name.replace('/msg/', '/'));

/** A message's values in the order that a sample has them. */
function expectedValues(type: string, message: SecondMessage): number[] {
  const list = (name: string): number[] => [...(message[name] as Iterable<number>)];
  const xyz = (name: string): number[] => {
    const { x, y, z, w } = message[name] as { x: number; y: number; z: number; w?: number };
    return w === undefined ? [x, y, z] : [x, y, z, w];
  };
  const number = (name: string): number => Number(message[name]);
  switch (type.split('/').at(-1)) {
    case 'JointState':
      return [...list('position'), ...list('velocity'), ...list('effort')];
    case 'Imu':
      return ['orientation', 'angular_velocity', 'linear_acceleration'].flatMap((name) => [
        ...xyz(name),
        ...list(`${name}_covariance`),
      ]);
    case 'BatteryState': {
      const discharge = -number('current');
      const amounts = ['temperature', 'charge', 'capacity', 'design_capacity'];
      const states = ['power_supply_status', 'power_supply_health', 'power_supply_technology', 'present'];
      const fixed = [number('voltage'), discharge, number('percentage'), number('voltage') * discharge];
      return [...fixed, ...[...amounts, ...states].map(number), ...list('cell_voltage'), ...list('cell_temperature')];
    }
    case 'Temperature':
      return [number('temperature'), number('variance')];
    case 'DiagnosticArray':
      return (message['status'] as { level: number }[]).map(({ level }) => level);
    default:
      throw new Error(`unexpected ${type}`);
  }
}

const bits = (values: Float64Array): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('hex');

/** The first difference between our sample and the second reader's message, or nothing. */
function difference(sample: Sample, { topic, type, logTimeNs, message }: SecondReading): string | undefined {
  const { sec, nanosec } = message.header.stamp;
  if (sample.layout.stream !== topic) return `stream ${sample.layout.stream} instead of ${topic}`;
  if (sample.receivedNs !== logTimeNs) return `received at ${sample.receivedNs} instead of ${logTimeNs}`;
  if (sample.stampNs !== BigInt(sec) * 1_000_000_000n + BigInt(nanosec)) return `stamp ${sample.stampNs}`;
  if (sample.layout.tags['frame_id'] !== message.header.frame_id) return `frame ${sample.layout.tags['frame_id']}`;
  const expected = bits(Float64Array.from(expectedValues(type, message)));
  if (bits(sample.values) !== expected) return `values ${sample.values}`;
  if (type.endsWith('JointState') && JSON.stringify(sample.layout.names) !== JSON.stringify(message['name']))
    return `names ${sample.layout.names}`;
  if (type.endsWith('DiagnosticArray') && sample.text !== JSON.stringify(message['status']))
    return `text ${sample.text}`;
  return undefined;
}

const countBy = <Item>(items: readonly Item[], key: (item: Item) => string): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const item of items) counts[key(item)] = (counts[key(item)] ?? 0) + 1;
  return counts;
};

t.test(
  'every recording gives the samples that a second reader finds, to the bit',
  { skip: skipWithoutRecordings },
  async (t) => {
    const second = new SecondReader();
    const before = readdirSync(recordings).sort();
    const mapped: string[] = [];
    for (const name of before.filter((file) => file.endsWith('.mcap') || file.endsWith('.db3'))) {
      const expected = second.readAll(recording(name), [...ROS_TYPE_NAMES, ...DASHING_NAMES]);
      const played = await replayAll({ file: recording(name) }).catch((error: Error) => error);
      if (played instanceof Error) {
        t.equal(expected.length, 0, `${name}: refused, and nothing to replay: ${played.message.slice(0, 80)}`);
        t.match(played.message, /becomes telemetry.*it has/);
        continue;
      }
      mapped.push(name);
      const { samples, positions, statuses } = played;
      t.strictSame(
        countBy(samples, (sample) => sample.layout.stream),
        countBy(expected, (reading) => reading.topic),
        `${name}: as many per topic`,
      );
      // Ties in log time may come in either order; within a topic the order is fixed.
      for (const topic of new Set(expected.map((reading) => reading.topic))) {
        const ours = samples.filter((sample) => sample.layout.stream === topic);
        const theirs = expected.filter((reading) => reading.topic === topic);
        const differing = theirs.findIndex((reading, i) => difference(ours[i] as Sample, reading) !== undefined);
        t.equal(
          differing === -1 ? '' : difference(ours[differing] as Sample, theirs[differing] as SecondReading),
          '',
          `${name} ${topic}`,
        );
      }
      t.strictSame(
        positions,
        samples.map((_, i) => i + 1),
        `${name}: positions count from 1`,
      );
      t.match(statuses.at(-1), { state: 'finished', progress: { percent: 100, samples: samples.length } });
      t.ok(samples.every((sample) => sampleFlagNames(sample.flags).includes('replayed')));
    }
    t.equal(mapped.length, 10, 'no recording with a known type was refused');
    t.strictSame(readdirSync(recordings).sort(), before, 'nothing was left beside the recordings');
  },
);
