import { readFileSync, writeFileSync } from 'node:fs';
import { pause } from '@outrider/shared/service';
import t, { type Test } from 'tap';
import type { SupervisedChild } from '../src/child.ts';
import { guardPid } from '../src/guard-pid.ts';
import type { Cloud, Robot, Stack } from '../src/stack.ts';
import { ENGINES } from './engines.ts';
import { exportStream, fingerprints, openStack, recording } from './rig.ts';
import { type ExpectedSample, readExpected } from './second-reader.ts';

t.setTimeout(900_000);

const KILLS = 30;
const SEED = Number(process.env['OUTRIDER_SEED'] ?? 20_261_120);
const bag = recording('rosbag/ats_servo_serial_no_unexpected_q3.db3');
const log = recording('fault/ur3_cobotops_session1.csv');

/** A small generator of random numbers that a failing run can be repeated with (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

for (const engine of ENGINES) {
  t.test(
    `${KILLS} kills of agent, guard and cloud lose and double nothing: ${engine.name}`,
    {
      skip: engine.skip || bag.skip,
      timeout: 500_000,
    },
    async (t) => {
      const { stack, stateDir, end } = openStack(() => undefined);
      t.teardown(end);
      const { clouds, end: endEngine } = await engine.start(stack, stateDir);
      t.teardown(endEngine);
      const cloud = clouds[0] as Cloud;
      const expected = await readExpected(bag.file);
      // Slow enough that the recording outlasts the kills.
      const robot = await stack.startRobot(cloud, { robotId: 'killed-1', replay: { file: bag.file, speed: 2 } });
      await stack.until('the first samples', async () => (await cloud.client.sampleCounts('killed-1')).size > 0);
      const random = seeded(SEED);
      const killed: Record<string, number> = { agent: 0, guard: 0, cloud: 0 };
      for (let kill = 0; kill < KILLS; kill += 1) {
        await pause(200 + 1300 * random(), new AbortController().signal);
        const victim = ['agent', 'guard', 'cloud'][Math.floor(3 * random())] as string;
        const pid = victimPid(victim, robot, clouds, random);
        if (pid === undefined) {
          kill -= 1;
          continue;
        }
        process.kill(pid, 'SIGKILL');
        killed[victim] = (killed[victim] ?? 0) + 1;
      }
      t.comment(`seed ${SEED}: killed ${JSON.stringify(killed)}`);
      // The rest at once, by an agent that reads its configuration anew.
      writeFileSync(robot.configFile, readFileSync(robot.configFile, 'utf8').replace('speed: 2', 'speed: 0'));
      const agent = livePid(robot.edge.pid);
      if (agent !== undefined) process.kill(agent, 'SIGKILL');
      await sameInCloud(t, stack, cloud, 'killed-1', expected);
    },
  );
}

t.test(
  'a control plane that is away for ten minutes of recording misses nothing',
  {
    skip: log.skip,
    timeout: 400_000,
  },
  async (t) => {
    const { stack, end } = openStack(() => undefined);
    t.teardown(end);
    const cloud = await stack.startCloud({ httpPort: 0 });
    const speed = 240;
    const rows = readFileSync(log.file, 'utf8').trim().split('\n').slice(1);
    const joints = [0, 1, 2, 3, 4, 5];
    const robot = await stack.startRobot(cloud, {
      robotId: 'offline-1',
      replay: {
        file: log.file,
        speed,
        columns: {
          delimiter: ';',
          decimal: ',',
          time: { column: 'Timestamp', unit: 'iso' },
          streams: [
            {
              stream: 'ur3/joint_state',
              kind: 'joint_state',
              names: joints.map((joint) => `j${joint}`),
              fields: {
                velocity: joints.map((joint) => `Speed_J${joint}`),
                effort: joints.map((joint) => `Current_J${joint}`),
              },
            },
          ],
        },
      },
    });
    await stack.until('the first samples', async () => (await cloud.client.sampleCounts('offline-1')).size > 0);
    const pid = cloud.child.pid as number;
    process.kill(pid, 'SIGSTOP');
    await pause((600 / speed) * 1000, new AbortController().signal);
    const queue = JSON.parse(await stack.edgeCommand('queue', '--config', robot.configFile, '--json')) as unknown;
    t.comment(`the robot's queue after ten minutes: ${JSON.stringify(queue)}`);
    process.kill(pid, 'SIGCONT');
    const number = (text: string | undefined): number => Number((text ?? '').replace(',', '.') || 'NaN');
    const expected = new Map([
      [
        'ur3/joint_state',
        rows.map((row): ExpectedSample => {
          const cells = row.split(';');
          return {
            names: joints.map((joint) => `j${joint}`),
            values: {
              velocity: joints.map((joint) => number(cells[14 + joint])),
              effort: joints.map((joint) => number(cells[2 + 2 * joint])),
            },
          };
        }),
      ],
    ]);
    await sameInCloud(t, stack, cloud, 'offline-1', expected);
  },
);

function victimPid(victim: string, robot: Robot, clouds: readonly Cloud[], random: () => number): number | undefined {
  if (victim === 'guard') return guardPid(robot);
  const children: SupervisedChild[] = victim === 'agent' ? [robot.edge] : clouds.map((cloud) => cloud.child);
  return livePid(children[Math.floor(children.length * random())]?.pid);
}

const livePid = (pid: number | undefined): number | undefined => {
  try {
    if (pid !== undefined) process.kill(pid, 0);
    return pid;
  } catch {
    return undefined;
  }
};

/** Waits for as many samples as expected, then compares all of them. */
async function sameInCloud(
  t: Test,
  stack: Stack,
  cloud: Cloud,
  robotId: string,
  expected: ReadonlyMap<string, readonly ExpectedSample[]>,
): Promise<void> {
  const total = [...expected.values()].reduce((sum, samples) => sum + samples.length, 0);
  await stack.until(`${total} samples`, async () => {
    const counts = await cloud.client.sampleCounts(robotId).catch(() => new Map<string, number>());
    return [...counts.values()].reduce((sum, count) => sum + count, 0) >= total;
  });
  const counts = await cloud.client.sampleCounts(robotId);
  for (const [stream, samples] of expected) {
    t.equal(counts.get(stream), samples.length, `${stream}: ${samples.length} samples, none lost, none doubled`);
    const fields = Object.keys(samples[0]?.values ?? {});
    const stored = await exportStream(cloud.client, robotId, stream);
    t.same(fingerprints(stored, fields), fingerprints(samples, fields), `${stream}: the recorded values`);
  }
}
