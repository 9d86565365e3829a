import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@outrider/shared/log';
import { Backoff } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import { type MonotonicMs, systemClock } from '@outrider/shared/time';
import t from 'tap';
import { Mission } from '../src/agent/mission.ts';
import { Ros2Stop, type Ros2StopSettings, ros2StopMessages } from '../src/agent/ros2-stop.ts';
import { CdrWriter } from '../src/export/cdr-writer.ts';
import { ros2SignalSchema, ros2TopicSchema } from '../src/sources/options.ts';
import { type RosSignal, readRosSignal } from '../src/sources/ros-signals.ts';
import { Ros2Source } from '../src/sources/ros2.ts';
import { writeStub } from './ros2-stub.ts';
import { until } from './uplink-rig.ts';

const log = createLogger('test', 'silent');
const SETTINGS: Ros2StopSettings = {
  cmdVelTopic: '/cmd_vel',
  cmdVelType: 'geometry_msgs/msg/Twist',
  stopTopic: '/stop',
  everyMs: 20,
  confirmMs: 1000,
  stillMps: 0.02,
  stillRadps: 0.02,
};

const message = (write: (cdr: CdrWriter) => void): Buffer => {
  const cdr = new CdrWriter();
  cdr.int32(1);
  cdr.uint32(2);
  write(cdr);
  return Buffer.from(cdr.finish());
};
const odometry = (frame: string, x: number, vx: number, wz: number): Buffer =>
  message((cdr) => {
    cdr.string(frame);
    cdr.string('base_link');
    const covariance = new Array<number>(36).fill(0);
    cdr.float64s(Float64Array.of(x, -2, 0, 0, 0, 0, 1, ...covariance, vx, 0, 0, 0, 0, wz, ...covariance));
  });
const fix = (status: number): Buffer =>
  message((cdr) => {
    cdr.string('gps');
    cdr.uint8(status);
    cdr.uint8(0);
    cdr.uint8(1);
    cdr.uint8(0);
    cdr.float64s(Float64Array.of(48.1, 11.5, 520, ...new Array<number>(9).fill(0)));
  });
const commands = (): Buffer =>
  message((cdr) => {
    cdr.string('');
    cdr.uint32(2);
    cdr.string('hip');
    cdr.string('knee');
    cdr.uint32(2);
    cdr.float64s(Float64Array.of(0.5, -1.25));
    // What follows differs between distributions, and is not read.
    cdr.uint32(0);
  });

t.test('on the node: stop until the gate opens, released once, and stop again when it closes', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'ros2-stop-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const payloads = [odometry('map', 3, 0, 0), odometry('odom', 3, 1.5, -0.5), fix(0), commands()];
  const stub = writeStub(folder, { payloads: payloads.map((payload) => [payload.toString('base64')]) });
  const signals: [string, RosSignal][] = [];
  const source = new Ros2Source(
    {
      topics: [],
      signals: [
        { topic: '/odom', type: 'nav_msgs/msg/Odometry' },
        { topic: '/odom', type: 'nav_msgs/msg/Odometry', use: 'motion' },
        { topic: '/fix', type: 'sensor_msgs/msg/NavSatFix' },
        { topic: '/arm/state', type: 'control_msgs/msg/JointTrajectoryControllerState', rate_hz: 50 },
      ].map((signal) => ros2SignalSchema.parse(signal)),
      stop: ros2StopMessages(SETTINGS),
      env: { PATH: '/usr/bin:/bin', ROS_DISTRO: 'jazzy' },
      rclnodejsDir: folder,
      backoff: new Backoff(1, 1),
    },
    {
      log,
      clock: systemClock,
      emit: () => {},
      onStatus: () => {},
      onSignal: (signal, topic) => signals.push([topic, signal]),
    },
  );
  const stop = new AbortController();
  const running = source.run(stop.signal);
  const said = (): string[] =>
    existsSync(join(stub, 'published')) ? readFileSync(join(stub, 'published'), 'utf8').trim().split('\n') : [];
  const zero = `/cmd_vel geometry_msgs/msg/Twist 00010000${'00'.repeat(48)}`;
  const [closed, opened] = ['/stop std_msgs/msg/Bool 0001000001', '/stop std_msgs/msg/Bool 0001000000'];
  await until('the stop comes by itself, again and again', () => said().filter((line) => line === zero).length > 3);
  t.ok(said().includes(closed));
  t.notOk(said().includes(opened));
  source.setGate(true);
  await until('it is released', () => said().includes(opened));
  const { length } = said();
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.equal(said().length, length, 'an open gate says nothing more');
  source.setGate(false);
  await until('it stops again', () => said().length >= length + 4);
  t.same(new Set(said().slice(length)), new Set([zero, closed]));
  t.same(signals.slice(0, 4), [
    ['/odom', { use: 'position', frame: 'map', at: [3, -2] }],
    ['/odom', { use: 'motion', speedMps: 1.5, turnRadps: 0.5 }],
    ['/fix', { use: 'position', frame: 'wgs84', at: [48.1, 11.5] }],
    ['/arm/state', { use: 'command', names: ['hip', 'knee'], positionRad: [0.5, -1.25] }],
  ]);
  stop.abort();
  await running;
});

t.test('a message that does not say is unknown, never a good value', async (t) => {
  const nowhere = { use: 'position', at: [Number.NaN, Number.NaN] };
  const of = (type: Parameters<typeof readRosSignal>[0], payload: Buffer): RosSignal =>
    readRosSignal(type, 'position', 'map', payload);
  t.match(of('nav_msgs/msg/Odometry', odometry('odom', 3, 0, 0)), nowhere, 'another frame');
  t.match(of('nav_msgs/msg/Odometry', odometry('map', 3, 0, 0).subarray(0, 60)), nowhere, 'cut off');
  t.match(of('sensor_msgs/msg/NavSatFix', fix(255)), nowhere, 'no fix');
  t.match(of('geometry_msgs/msg/PoseStamped', Buffer.from('rubbish')), nowhere);
  const motion = readRosSignal('nav_msgs/msg/Odometry', 'motion', 'map', Buffer.alloc(3));
  t.match(motion, { speedMps: Number.NaN });
  t.throws(() => ros2SignalSchema.parse({ topic: '/x', type: 'sensor_msgs/msg/NavSatFix', use: 'motion' }));
  t.ok(ros2TopicSchema.parse({ topic: '/x', type: 'sensor_msgs/msg/Imu' }));
  const stamped = ros2StopMessages({ ...SETTINGS, cmdVelType: 'geometry_msgs/msg/TwistStamped', stopTopic: undefined });
  t.equal(stamped.publishers[0]?.closed.length, 4 + 16 + 48);
});

t.test('a stop is confirmed by what measures motion, or reported to the guard', async (t) => {
  let nowMs = 0;
  let isOpen: boolean | undefined = true;
  const orders: boolean[] = [];
  const reports: string[] = [];
  const clock = { monotonicMs: () => nowMs as MonotonicMs, epochMs: systemClock.epochMs };
  const make = (): Ros2Stop =>
    new Ros2Stop({
      settings: SETTINGS,
      clock,
      log,
      isGateOpen: () => isOpen,
      order: (open) => orders.push(open),
      escalate: async (detail) => reports.push(detail),
    });
  const joints = (velocity: number): Sample => ({
    layout: {
      stream: 'mcu/joint_state',
      kind: 'joint_state',
      names: ['a', 'b'],
      fields: [{ name: 'velocity', width: 2 }],
      tags: {},
      declaredRateHz: 50,
    },
    stampNs: 0n,
    receivedNs: 0n,
    receivedMonoNs: 0n,
    flags: 0,
    values: Float64Array.of(0, velocity),
  });
  const at = (ms: number, stop: Ros2Stop, act: () => void = () => {}): void => {
    nowMs = ms;
    act();
    stop.check();
  };
  const obeys = make();
  at(0, obeys, () => obeys.observe(joints(1)));
  t.same(orders, [true]);
  isOpen = undefined;
  at(100, obeys);
  t.same(orders, [true, false], 'a guard that is gone is a closed gate');
  at(200, obeys, () => obeys.observe(joints(0.5)));
  at(300, obeys, () => obeys.observe(joints(-0.01)));
  at(5000, obeys);
  t.same(reports, [], 'it stood still in time');

  const moves = make();
  isOpen = true;
  at(0, moves, () => moves.observe(joints(0)));
  isOpen = false;
  at(100, moves);
  at(1000, moves, () => {
    moves.observe(joints(0));
    moves.observeMotion('/odom', 0.3, 0);
  });
  t.same(reports, []);
  at(1100, moves);
  t.match(reports, [/after the stop over ROS 2: \/odom at 0\.300 m\/s/], 'its joints are still, the robot is not');

  const silent = make();
  isOpen = true;
  at(0, silent, () => silent.observe(joints(0)));
  isOpen = false;
  at(100, silent);
  at(1200, silent);
  t.match(reports[1], /mcu\/joint_state is silent/, 'old words confirm nothing');

  const blind = make();
  isOpen = true;
  at(0, blind);
  isOpen = false;
  at(100, blind);
  at(1200, blind);
  t.equal(reports.length, 2, 'nothing measures motion: said, and no reason to stop again');
});

t.test('what a mission asks for outlives the agent, and what cannot be read is the strictest', async (t) => {
  const dir = t.testdir();
  const first = new Mission(dir, log);
  t.equal(first.comm, undefined);
  first.setComm({ policy: 'derate', maxMs: 5000 });
  t.same(new Mission(dir, log).comm, { policy: 'derate', maxMs: 5000 });
  first.setComm(undefined);
  t.equal(new Mission(dir, log).comm, undefined);
  t.same(new Mission(t.testdir({ 'mission.json': '{"comm":' }), log).comm, { policy: 'hold', maxMs: 0 });
});
