import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type Ros2StopSettings, ros2StopMessages } from '../src/agent/ros2-stop.ts';
import { commissionLatchStore } from '../src/guard/latch-store.ts';
import { buildDdsPeer, DDS_PEER, ddsPeerReady, missingDdsTools, spawnDdsPeer } from './dds-peer.ts';
import { GuardRig, rigProblem, until } from './guard-rig.ts';
import { writeStub } from './ros2-stub.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/outrider-edge.js');
const PATIENCE_MS = 60_000;
const TRIPS = 5;
/** What the project says of a stop over ROS 2. */
const STOPPED_WITHIN_MS = 500;
const ZEROS = ['0', '0', '0', '0', '0', '0'];
const SETTINGS: Ros2StopSettings = {
  cmdVelTopic: '/cmd_vel',
  cmdVelType: 'geometry_msgs/msg/Twist',
  stopTopic: '/stop',
  everyMs: 50,
  confirmMs: 1000,
  stillMps: 0.02,
  stillRadps: 0.02,
};

/** A message as a node with generated code for its type understood it. */
interface Heard {
  readonly topic: string;
  /** On the clock of `process.hrtime`. */
  readonly atUs: number;
  /** The bytes into which it would serialize the message itself. */
  readonly hex: string;
  readonly values: readonly string[];
}

/** A node on the stop's topics. */
async function listen(t: Test, domainId: number): Promise<Heard[]> {
  const peer = spawnDdsPeer(t, 'listen', String(domainId));
  await ddsPeerReady(peer);
  const heard: Heard[] = [];
  if (peer.stdout)
    createInterface({ input: peer.stdout }).on('line', (line) => {
      const [topic = '', atUs, hex = '', ...values] = line.split(' ');
      heard.push({ topic, atUs: Number(atUs), hex, values });
    });
  return heard;
}

const nowUs = (): number => Number(process.hrtime.bigint() / 1000n);
const missing = (await missingDdsTools()) ?? rigProblem;
const mustRun = process.env['OUTRIDER_REQUIRE_ALL'] === '1';
const options = { skip: !mustRun && (missing ?? false) };

t.test('the bytes of a stop are what a Fast DDS node would send, and mean a stop to it', options, async (t) => {
  if (missing !== undefined) throw new Error(missing);
  await buildDdsPeer();
  const domainId = 1 + (process.pid % 200);
  const heard = await listen(t, domainId);
  const relay = spawnDdsPeer(t, 'relay', String(domainId));
  const stamped = { cmdVelType: 'geometry_msgs/msg/TwistStamped', cmdVelTopic: '/cmd_vel_stamped' } as const;
  const sent = [SETTINGS, { ...SETTINGS, ...stamped }]
    .flatMap((settings) => ros2StopMessages(settings).publishers)
    .flatMap(({ topic, type, closed, opened }) =>
      [closed, ...(opened ? [opened] : [])].map((bytes) => ({ topic, type, hex: Buffer.from(bytes).toString('hex') })),
    );
  const timer = setInterval(() => {
    for (const { topic, type, hex } of sent) relay.stdin?.write(`${topic} ${type} ${hex}\n`);
  }, 50);
  t.teardown(() => clearInterval(timer));
  const saw = (topic: string, hex: string): Heard | undefined =>
    heard.find((message) => message.topic === `rt${topic}` && message.hex === hex);
  await until('all of them', () => sent.every(({ topic, hex }) => saw(topic, hex)), PATIENCE_MS);
  const [twist, closed, opened, twistStamped] = sent.map(({ topic, hex }) => saw(topic, hex)?.values);
  t.strictSame([twist, twistStamped], [ZEROS, ZEROS]);
  t.strictSame([closed, opened], [['1'], ['0']]);
  t.strictSame(new Set(heard.map(({ hex }) => hex)), new Set(sent.map(({ hex }) => hex)), 'and nothing else was heard');
});

t.test('a robot that trips says so to a Fast DDS node in time', options, async (t) => {
  if (missing !== undefined) throw new Error(missing);
  await buildDdsPeer();
  const domainId = 1 + ((process.pid + 1) % 200);
  const heard = await listen(t, domainId);
  const rig = new GuardRig();
  t.teardown(() => rig.close());
  await rig.startMcu();
  rig.configure();
  const setup = join(rig.dir, 'setup.bash');
  writeFileSync(setup, 'export ROS_DISTRO=jazzy\n');
  writeStub(rig.dir, { relay: DDS_PEER });
  const config = JSON.parse(readFileSync(rig.configPath, 'utf8')) as { sources: object[] };
  const more = {
    cloud: { http_url: 'https://127.0.0.1:9' },
    sources: [...config.sources, { type: 'ros2', setup, domain_id: domainId, rclnodejs_dir: rig.dir }],
    actuation: { ros2: { cmd_vel_topic: '/cmd_vel', stop_topic: '/stop', confirm_ms: 10_000 } },
    log: { level: 'warn' },
  };
  writeFileSync(rig.configPath, JSON.stringify({ ...config, ...more }));
  await commissionLatchStore(rig.latchDir);
  const agent = spawn(process.execPath, [PROGRAM, 'run', '--config', rig.configPath], { stdio: 'ignore' });
  t.teardown(() => stopped(agent));
  const recover = (): Promise<boolean> =>
    new Promise((done) => {
      execFile(process.execPath, [PROGRAM, 'failsafe', 'recover', '--config', rig.configPath], (error) => done(!error));
    });
  const after = (fromUs: number, topic: string, value: string): Heard | undefined =>
    heard.find(({ atUs, ...message }) => atUs > fromUs && message.topic === topic && message.values[0] === value);
  const hear = (fromUs: number, topic: string, value: string): Promise<Heard> =>
    until(`${value} on ${topic}`, () => after(fromUs, topic, value), PATIENCE_MS);

  await hear(0, 'rt/cmd_vel', '0');
  await hear(0, 'rt/stop', '1');
  t.notOk(after(0, 'rt/stop', '0'), 'stopped from the start');
  const tookMs: number[] = [];
  for (let trip = 0; trip < TRIPS; trip += 1) {
    const beforeUs = nowUs();
    for (const endUs = beforeUs + PATIENCE_MS * 1000; !(await recover()); )
      if (nowUs() > endUs) throw new Error('the robot does not recover');
    const { atUs: openedUs } = await hear(beforeUs, 'rt/stop', '0');
    await sleep(4 * SETTINGS.everyMs);
    const tripUs = nowUs();
    rig.control('estop on');
    const stops = [await hear(tripUs, 'rt/cmd_vel', '0'), await hear(tripUs, 'rt/stop', '1')] as const;
    rig.control('estop off');
    t.strictSame(stops[0].values, ZEROS);
    // What was said right before may still be on its way.
    const fromUs = openedUs + 2000 * SETTINGS.everyMs;
    const meanwhile = heard.filter(({ atUs }) => atUs > fromUs && atUs < tripUs);
    t.strictSame(meanwhile, [], 'an open gate leaves the topic to who drives');
    tookMs.push(Math.max(...stops.map(({ atUs }) => (atUs - tripUs) / 1000)));
  }
  const shown = tookMs.map((ms) => ms.toFixed(1)).join(', ');
  t.comment(`button pressed -> both messages heard [ms]: ${shown}`);
  const median = tookMs.toSorted((a, b) => a - b)[Math.floor(TRIPS / 2)] ?? Number.NaN;
  t.ok(median <= STOPPED_WITHIN_MS, `${shown} ms`);
});

/** Ends the agent, and with it the guard that it started. */
async function stopped(agent: ChildProcess): Promise<void> {
  if (agent.exitCode !== null) return;
  const ended = new Promise((done) => agent.once('exit', done));
  agent.kill('SIGTERM');
  await ended;
}
