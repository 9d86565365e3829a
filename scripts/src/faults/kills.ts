import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errorMessage } from '@outrider/shared/errors';
import { systemClock } from '@outrider/shared/time';
import { ENGINES, type RunningEngines } from '../../test/engines.ts';
import { exportStream, openStack } from '../../test/rig.ts';
import type { Cloud, Robot, Stack } from '../stack.ts';
import { type Campaign, type CampaignPlan, type CampaignResult, must } from './campaign.ts';
import { Random } from './random.ts';
import { TcpProxy } from './tcp-proxy.ts';

const ROBOT = 'killed-1';
const SPEED = 10;
const ROWS_PER_SECOND = 50;
/** Of recording per fault, so that the recording outlasts the faults. */
const SECONDS_PER_FAULT = 1;
const SETTLE_MS_MAX = 120_000;

type Deed = (world: World) => void | Promise<void>;

interface World {
  readonly stack: Stack;
  readonly robot: Robot;
  readonly clouds: readonly Cloud[];
  readonly engines: RunningEngines;
  readonly random: Random;
}

const kill = (pid: number | undefined): void => {
  if (pid === undefined) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It is being started again.
  }
};

/** The guard of this robot, by what the kernel says it was started with. */
function guardPid(robot: Robot): number | undefined {
  const lines = execFileSync('ps', ['-eo', 'pid=,args='], { encoding: 'utf8' }).split('\n');
  const line = lines.find((text) => /\bguard\b/.test(text) && text.includes(join(robot.home, 'edge.yaml')));
  return line === undefined ? undefined : Number(line.trim().split(' ')[0]);
}

const KILLS: Readonly<Record<string, Deed>> = {
  agent: ({ robot }) => kill(robot.edge.pid),
  guard: ({ robot }) => kill(guardPid(robot)),
  cloud: ({ clouds, random }) => kill(random.pick(clouds).child.pid),
};

const ENGINE_FAULTS: Readonly<Record<string, Deed>> = {
  ...KILLS,
  broker: async ({ engines, random }) => await away(engines.broker, random.int(0, 1500)),
  database: async ({ engines, random }) => await away(engines.database, random.int(0, 3000)),
  certificate: async ({ stack, robot }) => {
    // Refused while a control plane is away: then this robot keeps the one that it has.
    await stack.enroll(robot.configFile, robot.apiKey).catch(() => undefined);
  },
};

async function away(engine: RunningEngines['broker'], ms: number): Promise<void> {
  await engine?.pause();
  await sleep(ms);
  await engine?.resume();
}

/** One recording, replayed through everything while it is being hurt: at the end every row is there once. */
async function hurt(
  plan: CampaignPlan,
  engineIndex: number,
  deeds: Readonly<Record<string, Deed>>,
): Promise<CampaignResult> {
  const engine = ENGINES[engineIndex];
  must(engine !== undefined, 'no such engine');
  const random = new Random(plan.seed);
  const { stack, stateDir, end } = openStack(() => undefined);
  let engines: RunningEngines | undefined;
  let proxy: TcpProxy | undefined;
  try {
    engines = await engine.start(stack, stateDir);
    const cloud = engines.clouds[0] as Cloud;
    const url = new URL(cloud.ready.mqtt_url);
    proxy = await TcpProxy.start({ host: url.hostname, port: Number(url.port) }, random, () =>
      systemClock.monotonicMs(),
    );
    url.port = String(proxy.port);
    const rows = plan.count * SECONDS_PER_FAULT * SPEED * ROWS_PER_SECOND;
    const settings = {
      sources: [recordingOf(join(stateDir, 'noise.csv'), rows)],
      cloud: { http_url: cloud.ready.https_url, mqtt_url: url.href.replace(/\/$/, ''), ca_file: cloud.ready.ca_file },
    };
    const replay = { file: join(stateDir, 'noise.csv'), speed: SPEED };
    const robot = await stack.startRobot(cloud, { robotId: ROBOT, replay, settings });
    await stack.until('the first samples', async () => (await counts(cloud)) > 0);
    const world: World = { stack, robot, clouds: engines.clouds, engines, random };
    const done: Record<string, number> = {};
    for (let fault = 0; fault < plan.count && !plan.signal.aborted; fault += 1) {
      await sleep(random.int(60, 900));
      if (random.chance(0.5)) void proxy.hurt();
      const name = random.pick(Object.keys(deeds));
      done[name] = (done[name] ?? 0) + 1;
      await deeds[name]?.(world);
      if ((fault + 1) % 20 === 0) plan.say(`${fault + 1} of ${plan.count}: ${JSON.stringify(done)}`);
    }
    const calmMs = systemClock.monotonicMs();
    const failures = await settled(cloud, rows, plan);
    const seconds = (systemClock.monotonicMs() - calmMs) / 1000;
    const figures =
      `${2 * rows} samples; ${JSON.stringify(done)}; proxy ${JSON.stringify(proxy.counts)}; ` +
      `all there ${seconds.toFixed(0)} s after the last fault, rest of the recording included`;
    return { count: plan.count, failures, figures: figures.replaceAll('"', '') };
  } finally {
    await end();
    await proxy?.close();
    await engines?.end();
  }
}

async function settled(cloud: Cloud, rows: number, plan: CampaignPlan): Promise<{ seed: number; what: string }[]> {
  const { seed } = plan;
  const endMs = systemClock.monotonicMs() + SETTLE_MS_MAX + (1000 * rows) / SPEED / ROWS_PER_SECOND;
  while ((await counts(cloud)) < 2 * rows && systemClock.monotonicMs() < endMs) await sleep(200);
  try {
    const samples = await exportStream(cloud.client, ROBOT, 'counter');
    const values = samples.map((sample) => sample.values['temperature']?.[0] ?? Number.NaN).sort((a, b) => a - b);
    must(values.length === rows, `counter: ${rows} rows, ${values.length} in the cloud`);
    for (const [row, value] of values.entries()) must(value === row, `counter: ${value} where ${row} belongs`);
    const total = await counts(cloud);
    must(total === 2 * rows, `${2 * rows} samples, ${total} in the cloud`);
    return [];
  } catch (error) {
    return [{ seed, what: errorMessage(error) }];
  }
}

async function counts(cloud: Cloud): Promise<number> {
  const streams = await cloud.client.sampleCounts(ROBOT).catch(() => new Map<string, number>());
  return ['arm', 'counter'].reduce((sum, stream) => sum + (streams.get(stream) ?? 0), 0);
}

/** A recording of noise and of a counter, row by row. */
function recordingOf(file: string, rows: number): object {
  const lines = ['t,a,b,c'];
  for (let row = 0; row < rows; row += 1)
    lines.push([row / ROWS_PER_SECOND, Math.sin(row / 7) + row, Math.cos(row / 11) * row, row].map(String).join(','));
  writeFileSync(file, `${lines.join('\n')}\n`);
  const streams = [
    { stream: 'arm', kind: 'joint_state', names: ['q0', 'q1'], fields: { position: ['a', 'b'] } },
    { stream: 'counter', kind: 'temperature', fields: { temperature: ['c'] } },
  ];
  const columns = { time: { column: 't', unit: 's' }, start: '2026-01-01T00:00:00Z', streams };
  return { type: 'replay', file, speed: SPEED, columns };
}

export const kills: Campaign = {
  id: 'C3',
  title: 'agent, guard and cloud killed, a proxy that cuts, stalls, splits and swallows; PGlite and aedes',
  counts: { full: 100, short: 8 },
  skip: ENGINES[0]?.skip ?? false,
  run: (plan) => hurt(plan, 0, KILLS),
};

export const engineFaults: Campaign = {
  id: 'C4',
  title:
    'the same with broker and database restarted and away, and certificates renewed; PostgreSQL, Mosquitto, two control planes',
  counts: { full: 80, short: 8 },
  skip: ENGINES[1]?.skip ?? false,
  run: (plan) => hurt(plan, 1, ENGINE_FAULTS),
};
