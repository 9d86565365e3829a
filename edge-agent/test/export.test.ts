import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse as parseRosMsg } from '@foxglove/rosmsg';
import { MessageReader } from '@foxglove/rosmsg2-serialization';
import { McapIndexedReader } from '@mcap/core';
import { SAMPLE_FLAGS, type Sample, type StreamKind, type StreamLayout } from '@outrider/shared/telemetry';
import t from 'tap';
import { exportSamples } from '../src/export/export.ts';
import { samplesOfAgent, samplesOfDisk } from '../src/export/outbox-samples.ts';
import { packRecords } from '../src/local-api/record-page.ts';
import { openPlayback } from '../src/sources/playback.ts';
import { openOutbox } from './outbox-rig.ts';

const STAMP_NS = 1_763_640_000_123_456_789n;
/** A quiet NaN with a payload, a denormal, a negative zero and more digits than a float has. */
const ODD = [Number.NaN, 5e-324, -0, Math.PI, -Infinity, 1 / 3];

const layoutOf = (
  stream: string,
  kind: StreamKind,
  fields: readonly (readonly [string, number])[],
  names: readonly string[] = [],
  tags: Readonly<Record<string, string>> = {},
): StreamLayout => ({
  stream,
  kind,
  names,
  fields: fields.map(([name, width]) => ({ name, width })),
  tags,
  declaredRateHz: 50,
});

const JOINTS = ['hip_l', 'hip_r', 'knee_l'];
const LAYOUTS = {
  joints: layoutOf(
    'mcu/joint_state',
    'joint_state',
    [
      ['position', 3],
      ['velocity', 3],
      ['effort', 0],
      ['temperature', 3],
    ],
    JOINTS,
  ),
  imu: layoutOf(
    '/imu/data',
    'imu',
    [
      ['orientation', 4],
      ['orientation_covariance', 9],
      ['angular_velocity', 3],
      ['angular_velocity_covariance', 9],
      ['linear_acceleration', 3],
      ['linear_acceleration_covariance', 9],
    ],
    [],
    { frame_id: 'imu_link' },
  ),
  bareImu: layoutOf('mcu/imu', 'imu', [
    ['orientation', 4],
    ['angular_velocity', 3],
  ]),
  power: layoutOf('mcu/power', 'power', [
    ['voltage', 1],
    ['current', 1],
    ['state_of_charge', 1],
    ['draw', 1],
  ]),
  battery: layoutOf('/battery', 'power', [
    ['voltage', 1],
    ['current', 1],
    ['state_of_charge', 1],
    ['draw', 1],
    ['cell_voltage', 2],
  ]),
  sensor: layoutOf(
    '/temp',
    'temperature',
    [
      ['temperature', 1],
      ['variance', 1],
    ],
    ['core'],
    { frame_id: 'core' },
  ),
  sensors: layoutOf('mcu/temperature', 'temperature', [['temperature', 2]], ['board', 'driver']),
  status: layoutOf('mcu/status', 'mcu', [
    ['flags', 1],
    ['lease_age', 1],
  ]),
} as const;

const f32 = Math.fround;
const sampleOf = (layout: StreamLayout, values: readonly number[], at = 0n, flags = 0, text?: string): Sample => ({
  layout,
  stampNs: STAMP_NS + at,
  receivedNs: STAMP_NS + 1_000_000n + at,
  receivedMonoNs: at,
  flags,
  values: Float64Array.from(values),
  ...(text !== undefined && { text }),
});

const SAMPLES: readonly Sample[] = [
  sampleOf(LAYOUTS.joints, [...ODD, 40.1, 41.25, 1 / 7]),
  sampleOf(
    LAYOUTS.imu,
    Array.from({ length: 37 }, (_, i) => Math.sqrt(i + 0.5)),
  ),
  sampleOf(LAYOUTS.bareImu, [0, 0, 0, 1, 0.1, 0.2, 0.3]),
  sampleOf(LAYOUTS.power, [f32(24.3), f32(1.7), f32(0.61), f32(41.31)]),
  sampleOf(LAYOUTS.battery, [f32(24.3), f32(1.7), f32(0.61), f32(24.3) * f32(1.7), f32(4.1), f32(4.2)]),
  sampleOf(LAYOUTS.sensor, [36.6, 0.01]),
  sampleOf(LAYOUTS.sensors, [50.125, 1 / 3]),
  sampleOf(LAYOUTS.status, [3, Number.NaN]),
  sampleOf(
    { ...LAYOUTS.joints, stream: '/broken', fields: [], names: [] },
    [],
    0n,
    SAMPLE_FLAGS.malformed,
    'too short',
  ),
];

interface Message {
  readonly topic: string;
  readonly type: string;
  readonly logTime: bigint;
  readonly publishTime: bigint;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Reads a file with the published readers alone. */
async function readWithPublishedReaders(path: string): Promise<Message[]> {
  const handle = await open(path, 'r');
  const readable = {
    size: async () => BigInt((await handle.stat()).size),
    read: async (offset: bigint, length: bigint) => {
      const buffer = new Uint8Array(Number(length));
      await handle.read(buffer, 0, buffer.length, Number(offset));
      return buffer;
    },
  };
  const reader = await McapIndexedReader.Initialize({ readable });
  const messages: Message[] = [];
  for await (const { channelId, logTime, publishTime, data } of reader.readMessages()) {
    const channel = reader.channelsById.get(channelId);
    const schema = reader.schemasById.get(channel?.schemaId ?? 0);
    const text = new TextDecoder().decode(schema?.data);
    const body =
      channel?.messageEncoding === 'cdr'
        ? new MessageReader(parseRosMsg(text, { ros2: true })).readMessage(data)
        : JSON.parse(new TextDecoder().decode(data));
    messages.push({ topic: channel?.topic ?? '', type: schema?.name ?? '', logTime, publishTime, body });
  }
  await handle.close();
  return messages;
}

const bits = (values: ArrayLike<number>): string => Buffer.from(Float64Array.from(values).buffer).toString('hex');
const request = (out: string) =>
  ({ out, format: 'mcap', streams: [], fromNs: undefined, toNs: undefined, facts: {} }) as const;

t.test('an exported MCAP opens in published readers with values that are equal to the bit', async (t) => {
  const out = join(t.testdir(), 'all.mcap');
  const result = await exportSamples(SAMPLES, request(out));
  t.equal(result.samples, SAMPLES.length);
  const messages = await readWithPublishedReaders(out);
  const bodyOf = (topic: string): Message['body'] => {
    const found = messages.find((message) => message.topic === topic);
    if (!found) throw new Error(`no message on ${topic}`);
    return found.body;
  };
  const [joints, imu, , power, battery, , sensors] = SAMPLES.map(({ values }) => values) as Float64Array[];

  const jointState = bodyOf('mcu/joint_state');
  t.strictSame(jointState['name'], JOINTS);
  t.equal(bits(jointState['position'] as ArrayLike<number>), bits(joints?.subarray(0, 3) ?? []));
  t.equal(bits(jointState['velocity'] as ArrayLike<number>), bits(joints?.subarray(3, 6) ?? []));
  t.equal((jointState['effort'] as ArrayLike<number>).length, 0);
  t.match(jointState['header'], { stamp: { sec: 1_763_640_000, nanosec: 123_456_789 } });
  t.equal(
    bits(bodyOf('mcu/joint_state/temperature')['temperature'] as ArrayLike<number>),
    bits(joints?.subarray(6) ?? []),
  );

  const { x, y, z, w } = bodyOf('/imu/data')['orientation'] as { x: number; y: number; z: number; w: number };
  t.equal(bits([x, y, z, w]), bits(imu?.subarray(0, 4) ?? []));
  t.equal(
    bits(bodyOf('/imu/data')['linear_acceleration_covariance'] as ArrayLike<number>),
    bits(imu?.subarray(28) ?? []),
  );
  t.equal((bodyOf('mcu/imu')['linear_acceleration_covariance'] as number[])[0], -1, 'what was not measured says so');

  t.equal(bodyOf('/battery')['voltage'], battery?.[0]);
  t.equal(bodyOf('/battery')['current'], -(battery?.[1] ?? 0), 'ROS counts a discharging current negative');
  t.notOk(
    messages.some(({ topic }) => topic === '/battery/values'),
    'a BatteryState that holds every bit is enough',
  );
  t.equal(
    bits(bodyOf('mcu/power/values')['value'] as ArrayLike<number>),
    bits(power ?? []),
    'one that does not has its values beside',
  );
  t.strictSame(bodyOf('mcu/power/values')['name'], ['voltage', 'current', 'state_of_charge', 'draw']);

  t.equal(bodyOf('/temp')['temperature'], 36.6);
  t.equal(bits(bodyOf('mcu/temperature')['temperature'] as ArrayLike<number>), bits(sensors ?? []));
  t.match(bodyOf('mcu/status'), { values: { flags: 3, lease_age: 'NaN' } });
  t.match(bodyOf('/broken/malformed'), { text: 'too short', flags: ['malformed'] });
  t.ok(
    messages.every(({ logTime, publishTime }) => logTime - publishTime === 1_000_000n),
    'both times are kept',
  );
});

t.test('an exported MCAP replays through our own readers as the same samples', async (t) => {
  const out = join(t.testdir(), 'again.mcap');
  await exportSamples(SAMPLES, request(out));
  const playback = await openPlayback({ file: out });
  const again = new Map<string, Sample>();
  for await (const sample of playback.samples()) again.set(sample.layout.stream, sample);
  await playback.close();
  for (const original of SAMPLES.filter(({ layout }) =>
    ['/imu/data', '/temp', 'mcu/temperature'].includes(layout.stream),
  )) {
    const found = again.get(original.layout.stream);
    t.equal(bits(found?.values ?? []), bits(original.values), original.layout.stream);
    t.equal(found?.stampNs, original.stampNs);
    t.strictSame(found?.layout.names, original.layout.names);
  }
});

t.test(
  'CSV holds every digit, a file per stream, and a stream that changes shape goes on in a further file',
  async (t) => {
    const folder = t.testdir();
    const wider = { ...LAYOUTS.joints, names: ['a'], fields: [{ name: 'position', width: 1 }] };
    const joints = [SAMPLES[0] as Sample, sampleOf(wider, [0.1], 20n)];
    const csv = { ...request(join(folder, 'joints.csv')), format: 'csv', streams: ['mcu/joint_state'] } as const;
    const { files } = await exportSamples([...joints, ...SAMPLES.slice(1)], csv);
    t.strictSame(files, [join(folder, 'joints.csv'), join(folder, 'joints-2.csv')]);
    const [head, row] = (await readFile(files[0] ?? '', 'utf8')).split('\n');
    t.equal(head?.split(',').slice(0, 6).join(), 'received,received_ns,stamp_ns,flags,position.hip_l,position.hip_r');
    t.equal(bits((row?.split(',').slice(4) ?? []).map(Number)), bits(SAMPLES[0]?.values ?? []));
    const all = await exportSamples(SAMPLES, { ...request(join(folder, 'all')), format: 'csv' });
    t.equal(all.files.length, SAMPLES.length);
  },
);

t.test('the outbox is exported from the disk and, page by page, from a running agent', async (t) => {
  const stateDir = t.testdir();
  const outbox = openOutbox(stateDir);
  const many = Array.from({ length: 250 }, (_, i) => sampleOf(LAYOUTS.sensors, [i, i / 3], BigInt(i) * 20_000_000n));
  for (const sample of many) outbox.appendSample(sample);
  outbox.flush();
  const notes = { gaps: 0, damaged: 0 };
  const page = async (after: number) => ({
    epoch: outbox.epoch,
    bytes: packRecords(outbox.next('telemetry', after, 600)),
  });
  const live: Sample[] = [];
  for await (const sample of samplesOfAgent(page, notes)) live.push(sample);
  t.throws(() => [...samplesOfDisk(stateDir, notes)], { code: 'already_exists' }, 'a running agent keeps its file');
  outbox.close();
  const stored = [...samplesOfDisk(stateDir, notes)];
  for (const found of [live, stored]) {
    t.equal(found.length, many.length);
    t.equal(bits(found.flatMap(({ values }) => [...values])), bits(many.flatMap(({ values }) => [...values])));
  }
  const out = join(stateDir, 'some.mcap');
  const window = { fromNs: (many[100] as Sample).receivedNs, toNs: (many[149] as Sample).receivedNs };
  t.equal((await exportSamples(stored, { ...request(out), ...window })).samples, 50);
  t.strictSame(notes, { gaps: 0, damaged: 0 });
});
