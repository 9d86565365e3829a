import { fork } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createLogger } from '@outrider/shared/log';
import { Backoff } from '@outrider/shared/service';
import { type Sample, sampleFlagNames } from '@outrider/shared/telemetry';
import { systemClock } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import { createSource } from '../src/sources/create-source.ts';
import { ros2SourceSchema, ros2TopicSchema } from '../src/sources/options.ts';
import { type Ros2Options, Ros2Source } from '../src/sources/ros2.ts';
import type { Ros2ChildReport } from '../src/sources/ros2-protocol.ts';
import type { SourceStatus } from '../src/sources/source.ts';
import { type StubFaults, type StubScenario, writeStub } from './ros2-stub.ts';

const JOINTS = ros2TopicSchema.parse({ topic: '/joint_states', type: 'sensor_msgs/msg/JointState', rate_hz: 50 });
const IMU = ros2TopicSchema.parse({ topic: '/imu', type: 'sensor_msgs/Imu', stream: 'body_imu', qos: 'default' });
const CHILD_FILE = fileURLToPath(new URL('../src/sources/ros2-child.js', import.meta.url));
const WAIT_MS = 60_000;

/** A JointState as a little-endian writer makes it: one joint `a` at 1.5 rad, one velocity -0. */
const JOINT_STATE = Buffer.from(
  '00010000' +
    '0100000002000000' +
    '0100000000000000' +
    '01000000' +
    '0200000061000000' +
    '01000000' +
    '000000000000f83f' +
    '0100000000000000' +
    '0000000000000080' +
    '00000000',
  'hex',
);

interface Rig {
  readonly samples: Sample[];
  readonly statuses: SourceStatus[];
  readonly source: Ros2Source;
  until(what: string, condition: () => boolean): Promise<void>;
  stop(): Promise<void>;
}

/** Runs the real source with the real child on a package that stands in for rclnodejs. */
function start(t: Test, options: Partial<Ros2Options>, emit?: (sample: Sample) => void): Rig {
  const samples: Sample[] = [];
  const statuses: SourceStatus[] = [];
  const waiting = new Set<() => void>();
  const changed = (): void => {
    for (const check of waiting) check();
  };
  const source = new Ros2Source(
    {
      topics: [JOINTS, IMU],
      env: { PATH: '/usr/bin:/bin', ROS_DISTRO: 'jazzy' },
      backoff: new Backoff(1, 1),
      ...options,
    },
    {
      log: createLogger('test', 'silent'),
      clock: systemClock,
      emit: (sample) => {
        samples.push(sample);
        changed();
        emit?.(sample);
      },
      onStatus: (status) => {
        statuses.push(status);
        changed();
      },
    },
  );
  const controller = new AbortController();
  const running = source.run(controller.signal);
  const stop = async (): Promise<void> => {
    controller.abort();
    await running;
  };
  t.teardown(stop);
  const until = (what: string, condition: () => boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(check);
        reject(new Error(`waited in vain for ${what}; last heard ${JSON.stringify(statuses.slice(-3))}`));
      }, WAIT_MS);
      const check = (): void => {
        if (!condition()) return;
        clearTimeout(timer);
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
      check();
    });
  return { samples, statuses, source, until, stop };
}

/** Outside the repository, so that no rclnodejs of this machine is found from there. */
function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'ros2-stub-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const pidsOf = (stub: string): number[] =>
  existsSync(join(stub, 'pids')) ? readFileSync(join(stub, 'pids'), 'utf8').trim().split('\n').map(Number) : [];

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

t.test('each reason why ROS 2 cannot be used has its own code and says what to do', async (t) => {
  const cases: {
    code: string;
    message: RegExp;
    faults?: StubFaults;
    scenario?: StubScenario;
    options?: Partial<Ros2Options>;
    bare?: true;
  }[] = [
    { code: 'rclnodejs_not_installed', message: /npm install rclnodejs/, bare: true },
    { code: 'ros_not_sourced', message: /setup\.bash/, options: { env: { PATH: '/usr/bin:/bin' } } },
    {
      code: 'ros_not_sourced',
      message: /\/nowhere\/setup\.bash does not exist/,
      options: { setup: '/nowhere/setup.bash' },
    },
    { code: 'ros_wrong_distro', message: /sourced jazzy, configured humble/, options: { distro: 'humble' } },
    {
      code: 'ros_wrong_distro',
      message: /sourced jazzy; prebuilt for humble on jammy/,
      faults: { noAddon: true, otherPrebuild: 'humble-jammy' },
    },
    {
      code: 'rclnodejs_addon_broken',
      message: /npm rebuild rclnodejs.*rclnodejs\.node/,
      faults: { brokenAddon: true },
    },
    { code: 'rclnodejs_addon_broken', message: /no addon under/, faults: { noAddon: true } },
    {
      code: 'ros_messages_missing',
      message: /generate-ros-messages.*sensor_msgs__msg__JointState/,
      faults: { noMessages: true },
    },
    { code: 'ros_failed', message: /rcl said no/, scenario: { failInit: 'rcl said no' } },
  ];
  await Promise.all(
    cases.map(async ({ code, message, faults, scenario, options, bare }) => {
      const dir = folder(t);
      if (!bare) writeStub(dir, scenario, faults);
      const rig = start(t, { rclnodejsDir: dir, ...options, backoff: new Backoff(60_000, 60_000) });
      await rig.until(code, () =>
        rig.statuses.some((status) => status.state === 'failed' && status.stream === 'body_imu'),
      );
      t.match(
        rig.statuses.find((status) => status.state === 'failed'),
        { source: 'ros2', code, message },
        `${code} ${message}`,
      );
      await rig.stop();
    }),
  );
});

t.test('a failing setup file is reported with what it said', async (t) => {
  const dir = folder(t);
  writeFileSync(join(dir, 'setup.bash'), 'echo "no such overlay" >&2; return 3');
  const rig = start(t, { setup: join(dir, 'setup.bash'), rclnodejsDir: dir });
  await rig.until('failure', () => rig.statuses.some((status) => status.state === 'failed'));
  t.match(
    rig.statuses.find((status) => status.state === 'failed'),
    { code: 'ros_not_sourced', message: /no such overlay/ },
  );
});

t.test('raw messages come out as samples, in an environment that the setup file made', async (t) => {
  const dir = folder(t);
  writeFileSync(join(dir, 'setup.bash'), 'echo chatter; export ROS_DISTRO=jazzy\nexport ODD="a=b\nc"');
  const publishers = [
    { node_name: 'driver', topic_type: 'sensor_msgs/msg/JointState', qos_profile: { reliability: 2, durability: 2 } },
  ];
  writeStub(dir, { payloads: [[JOINT_STATE.toString('base64')], [JOINT_STATE.toString('base64')]], publishers });
  const rig = start(t, {
    setup: join(dir, 'setup.bash'),
    env: { PATH: '/usr/bin:/bin' },
    distro: 'jazzy',
    rclnodejsDir: dir,
  });
  await rig.until('two samples', () => rig.samples.length === 2);
  const [joints, imu] = rig.samples as [Sample, Sample];
  t.match(joints.layout, { stream: '/joint_states', kind: 'joint_state', names: ['a'], declaredRateHz: 50 });
  t.strictSame(
    [...joints.values].map((value) => (Object.is(value, -0) ? '-0' : value)),
    [1.5, '-0'],
  );
  t.equal(joints.stampNs, 1_000_000_002n);
  t.strictSame(sampleFlagNames(joints.flags), []);
  t.ok(joints.receivedMonoNs <= process.hrtime.bigint(), 'the child reads the same monotonic clock');
  t.match(imu, { layout: { stream: 'body_imu', kind: 'imu' }, text: /CDR/ }, 'a JointState is no Imu');
  t.strictSame(sampleFlagNames(imu.flags), ['noStamp', 'malformed']);
  await rig.until('the graph', () =>
    rig.statuses.some((status) => status.stream === 'body_imu' && status.code === 'incompatible_qos'),
  );
  const seen = (stream: string): SourceStatus | undefined =>
    rig.statuses.findLast((status) => status.stream === stream);
  t.match(seen('body_imu')?.message, /publisher present, incompatible QoS or type: driver publishes sensor_msgs/);
  await rig.until('silence', () => seen('/joint_states')?.state === 'stale');
  t.match(seen('/joint_states'), { publishers: 1, declaredRateHz: 50 });
});

t.test('a publisher whose QoS asks too much of us is named', async (t) => {
  const dir = folder(t);
  const publishers = [
    { node_name: 'imu_node', topic_type: 'sensor_msgs/msg/Imu', qos_profile: { reliability: 2, durability: 2 } },
  ];
  writeStub(dir, { publishers });
  const rig = start(t, { topics: [IMU], rclnodejsDir: dir });
  await rig.until('the reason', () => rig.statuses.some((status) => status.code === 'incompatible_qos'));
  t.match(
    rig.statuses.findLast((status) => status.stream === 'body_imu')?.message,
    /best effort, we ask for reliable: set qos to sensor_data/,
  );
});

t.test('a killed child is failed at once and started again; nothing in a callback ends it', async (t) => {
  const dir = folder(t);
  const good = JOINT_STATE.toString('base64');
  const stub = writeStub(dir, { payloads: [['not a buffer', good]], everyMs: 5 });
  let isFaulty = true;
  const rig = start(t, { topics: [JOINTS], rclnodejsDir: dir }, () => {
    if (isFaulty) throw new Error('the agent refuses');
  });
  await rig.until('samples in spite of wrong payloads and a throwing agent', () => rig.samples.length >= 5);
  isFaulty = false;
  t.equal(pidsOf(stub).length, 1, 'still the first child');
  await rig.until('a count of the wrong payloads', () => rig.statuses.some((status) => (status.dropped ?? 0) > 0));
  const killedNs = process.hrtime.bigint();
  process.kill(pidsOf(stub)[0] as number, 'SIGKILL');
  await rig.until('failure', () =>
    rig.statuses.some((status) => status.state === 'failed' && status.stream === '/joint_states'),
  );
  t.match(
    rig.statuses.find((status) => status.state === 'failed'),
    { code: 'ros_child_died', message: /SIGKILL/ },
  );
  t.comment(`death was seen after ${Number(process.hrtime.bigint() - killedNs) / 1e6} ms`);
  const before = rig.samples.length;
  await rig.until('samples from a second child', () => pidsOf(stub).length === 2 && rig.samples.length > before + 3);
  await rig.stop();
  t.strictSame(pidsOf(stub).filter(isAlive), [], 'no child stays behind');
});

t.test('a child whose parent dies ends by itself', async (t) => {
  const dir = folder(t);
  writeStub(dir, { payloads: [[JOINT_STATE.toString('base64')]], everyMs: 5 });
  const child = fork(CHILD_FILE, [], {
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    execArgv: [],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
  const { topic, type, qos } = JOINTS;
  const rclnodejsFrom = join(dir, 'package.json');
  child.send({ kind: 'start', nodeName: 'n', sourcedDistro: 'jazzy', topics: [{ topic, type, qos }], rclnodejsFrom });
  await new Promise<void>((resolve) => {
    child.on('message', ({ kind }: Ros2ChildReport) => {
      if (kind === 'messages') resolve();
    });
  });
  child.disconnect(); // What the kernel does for a parent that was killed.
  t.strictSame(await ended, { code: 0, signal: null });
});

t.test('settings become the source they describe', async (t) => {
  const dir = folder(t);
  const settings = ros2SourceSchema.parse({
    type: 'ros2',
    setup: 'setup.bash',
    domain_id: 7,
    rclnodejs_dir: '.',
    topics: [{ topic: '/joint_states', type: 'sensor_msgs/msg/JointState' }],
  });
  writeFileSync(join(dir, 'setup.bash'), 'export ROS_DISTRO=jazzy');
  writeStub(dir, { payloads: [[JOINT_STATE.toString('base64')]] });
  const controller = new AbortController();
  const sample = await new Promise<Sample>((resolve, reject) => {
    const source = createSource(
      settings,
      { baseDir: dir, env: { PATH: '/usr/bin:/bin' } },
      {
        log: createLogger('test', 'silent'),
        clock: systemClock,
        emit: resolve,
        onStatus: ({ state, message }) => state === 'failed' && reject(new Error(message)),
      },
    );
    t.teardown(() => controller.abort());
    source.run(controller.signal).catch(reject);
  });
  t.equal(sample.layout.stream, '/joint_states');
  const twins = [JOINTS, JOINTS].map(() => ({ topic: '/a', type: 'sensor_msgs/msg/Imu' }));
  t.throws(() => ros2SourceSchema.parse({ ...settings, topics: twins }), /stream '\/a' is used twice/);
  t.throws(
    () => ros2SourceSchema.parse({ ...settings, topics: [{ topic: 'a', type: 'sensor_msgs/msg/Imu' }] }),
    /full ROS topic name/,
  );
});

t.test('a flood is cut to the bound of the channel, and what was cut is counted', async (t) => {
  const dir = folder(t);
  const [count, bytes] = [200, 64 * 1024];
  writeStub(dir, { burst: { count, bytes } });
  const rig = start(t, { topics: [JOINTS], rclnodejsDir: dir });
  await rig.until('the count', () => rig.statuses.some((status) => (status.dropped ?? 0) > 0));
  const dropped = rig.statuses.findLast((status) => status.dropped !== undefined)?.dropped ?? 0;
  const flood = rig.samples.length;
  t.equal(flood + dropped, count, 'all of the flood is either here or counted');
  t.ok(flood * bytes <= 4 * 1024 * 1024, 'no more than the bound was under way');
});
