import { createSocket } from 'node:dgram';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Durability, HistoryKind, Participant, Reliability, type UserData } from '@foxglove/rtps';
import { UdpSocketNode } from '@foxglove/rtps/nodejs';
import { type Sample, sampleFlagNames } from '@outrider/shared/telemetry';
import t, { type Test } from 'tap';
import { JointNames } from '../src/sources/oddities.ts';
import type { RosTypeName } from '../src/sources/ros-messages.ts';
import { StreamDecoder } from '../src/sources/stream-decoder.ts';
import { buildDdsPeer, ddsPeerReady, missingDdsTools, spawnDdsPeer } from './dds-peer.ts';

const WAIT_MS = 60_000;

interface JointStateValues {
  readonly names: readonly string[];
  readonly position: readonly number[];
  readonly velocity: readonly number[];
  readonly effort: readonly number[];
}

const bitsOf = (value: number): string => {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return bytes.toString('hex');
};
const counted = (words: readonly string[]): string => [String(words.length), ...words].join(' ');

/** Values that a careless reader gets wrong: signed zero, subnormals, infinities, NaN, the largest and smallest. */
const JOINTS: readonly JointStateValues[] = [
  {
    names: ['shoulder_pan', 'elbow', 'w'],
    position: [0.1, -0, 5e-324],
    velocity: [Number.MAX_VALUE, -Infinity, Number.NaN],
    effort: [1 / 3, Math.PI, -1e-300],
  },
  { names: [], position: [1.25, -2.5, 3.75], velocity: [], effort: [] },
  { names: ['größer', '关节'], position: [1, 2], velocity: [3, 4], effort: [] },
  {
    names: Array.from({ length: 40 }, (_, i) => `joint_${i}`),
    position: Array.from({ length: 40 }, Math.sin),
    velocity: [],
    effort: [],
  },
];
const IMU = Array.from({ length: 37 }, (_, i) => Math.cos(i) / 2);

/** Sockets that can only be heard on this machine. */
class LoopbackSocket extends UdpSocketNode {
  override async addMembership(address: string): Promise<void> {
    await this.setMulticastInterface('127.0.0.1');
    await super.addMembership(address, '127.0.0.1');
  }

  override async setMulticastTTL(): Promise<void> {
    await super.setMulticastTTL(0);
  }
}

const missing = await missingDdsTools();
const mustRun = process.env['OUTRIDER_REQUIRE_ALL'] === '1';

t.test(
  'what a Fast DDS peer publishes comes out of our readers with equal values',
  { skip: !mustRun && (missing ?? false) },
  async (t) => {
    if (missing !== undefined) throw new Error(missing);
    await buildDdsPeer();

    const domainId = 1 + (process.pid % 200);
    const lines = JOINTS.map(({ names, position, velocity, effort }, i) =>
      [
        'joint_states',
        1_700_000_000 + i,
        123_456_789,
        `frame_${i}`,
        counted(names),
        counted(position.map(bitsOf)),
        counted(velocity.map(bitsOf)),
        counted(effort.map(bitsOf)),
      ].join(' '),
    );
    lines.push(['imu', -1, 999_999_999, 'imu_link', ...IMU.map(bitsOf)].join(' '));
    const values = join(t.testdir(), 'values.txt');
    writeFileSync(values, `${lines.join('\n')}\n`);
    await ddsPeerReady(spawnDdsPeer(t, 'publish', String(domainId), values));

    const payloads = await listen(t, domainId, JOINTS.length, 1);
    const decode = (stream: string, type: RosTypeName, list: readonly Uint8Array[]): Sample[] => {
      const decoder = new StreamDecoder({ stream, type, declaredRateHz: 50, jointNames: new JointNames() });
      return list.map((payload) => decoder.decode(payload, 1n, 1n));
    };
    const joints = decode('/joint_states', 'sensor_msgs/msg/JointState', payloads.joints);
    const byFrame = new Map(joints.map((sample) => [sample.layout.tags['frame_id'], sample]));
    t.equal(byFrame.size, JOINTS.length);
    JOINTS.forEach(({ names, position, velocity, effort }, i) => {
      const sample = byFrame.get(`frame_${i}`) as Sample;
      t.strictSame(sample.layout.names, names, `names of message ${i}`);
      t.strictSame(
        [...sample.values].map(bitsOf),
        [...position, ...velocity, ...effort].map(bitsOf),
        `bits of message ${i}`,
      );
      t.strictSame(
        sample.layout.fields.map((field) => field.width),
        [position.length, velocity.length, effort.length],
      );
      t.equal(sample.stampNs, BigInt(1_700_000_000 + i) * 1_000_000_000n + 123_456_789n);
      t.notOk(sampleFlagNames(sample.flags).includes('malformed'));
    });
    const [imu] = decode('/imu', 'sensor_msgs/msg/Imu', payloads.imu) as [Sample];
    t.strictSame([...imu.values].map(bitsOf), IMU.map(bitsOf), 'the Imu too');
    t.equal(imu.stampNs, -1n, 'one nanosecond before 1970');
    t.equal(imu.layout.tags['frame_id'], 'imu_link');
  },
);

/** Listens as a ROS 2 node with sensor data QoS would, until as many different messages as expected were heard. */
async function listen(t: Test, domainId: number, jointCount: number, imuCount: number) {
  const participant = new Participant({
    name: 'outrider_test_listener',
    addresses: ['127.0.0.1'],
    domainId,
    udpSocketCreate: async () => new LoopbackSocket(createSocket({ type: 'udp4', reuseAddr: true })),
  });
  t.teardown(() => participant.shutdown());
  const joints = new Map<string, Uint8Array>();
  const imu = new Map<string, Uint8Array>();
  const heard = new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`heard only ${joints.size} JointStates and ${imu.size} Imus`)),
      WAIT_MS,
    );
    participant.on('userData', ({ publication, serializedData }: UserData) => {
      const target = publication.topicName === 'rt/joint_states' ? joints : imu;
      target.set(Buffer.from(serializedData).toString('hex'), Uint8Array.from(serializedData));
      if (joints.size < jointCount || imu.size < imuCount) return;
      clearTimeout(timer);
      resolve();
    });
  });
  await participant.start();
  for (const [topicName, typeName] of [
    ['rt/joint_states', 'sensor_msgs::msg::dds_::JointState_'],
    ['rt/imu', 'sensor_msgs::msg::dds_::Imu_'],
  ] as const)
    participant.subscribe({
      topicName,
      typeName,
      durability: Durability.Volatile,
      reliability: { kind: Reliability.BestEffort, maxBlockingTime: { sec: 0, nsec: 0 } },
      history: { kind: HistoryKind.KeepLast, depth: 100 },
    });
  await heard;
  return { joints: [...joints.values()], imu: [...imu.values()] };
}
