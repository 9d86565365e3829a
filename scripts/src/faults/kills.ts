import { cpSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { errorMessage } from '@outrider/shared/errors';
import { systemClock } from '@outrider/shared/time';
import { ENGINES, type EngineKind, type RunningEngines } from '../../test/engines.ts';
import { exportStream, openStack } from '../../test/rig.ts';
import { guardPid } from '../guard-pid.ts';
import type { Cloud, Robot, Stack } from '../stack.ts';
import { type Campaign, type CampaignPlan, type CampaignResult, type Failure, failTrial, must } from './campaign.ts';
import { Random } from './random.ts';
import { TcpProxy } from './tcp-proxy.ts';

const ROBOT = 'killed-1';
const SPEED = 10;
const ROWS_PER_SECOND = 50;
/** Of recording per fault, so that the recording outlasts the faults. */
const SECONDS_PER_FAULT = 0.5;
/** Faults on one installation; then its content is judged, and the next one is set up. */
const FAULTS_PER_ROUND = 50;
/** Installations at once. */
const ROUNDS_AT_ONCE = 2;
const DATABASE_SLOW_MS = 5000;
const CONNECT_MS_MAX = 8000;
const DUPLICATES = fileURLToPath(new URL('./sick-uplink.js', import.meta.url));
const SETTLE_MS_MAX = 300_000;
/** A busy machine may take minutes to start a control plane; that is not what is tried. */
const START_MS_MAX = 600_000;

/** Does one thing to the world. @returns Whether there was anything to do it to. */
type Deed = (world: World) => boolean | Promise<boolean>;

interface World {
  readonly stack: Stack;
  readonly robot: Robot;
  readonly clouds: readonly Cloud[];
  readonly engines: RunningEngines;
  readonly random: Random;
}

/** False when there was nothing to kill: it is being started again. */
const kill = (pid: number | undefined): boolean => {
  try {
    return pid !== undefined && process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
};

const KILLS: Readonly<Record<string, Deed>> = {
  agent: ({ robot }) => kill(robot.edge.pid),
  guard: ({ robot }) => kill(guardPid(robot)),
  cloud: ({ clouds, random }) => kill(random.pick(clouds).child.pid),
};

const ENGINE_FAULTS: Readonly<Record<string, Deed>> = {
  ...KILLS,
  broker: ({ engines, random }) => killed(engines.broker, random.int(0, 1500)),
  database: ({ engines, random }) => killed(engines.database, random.int(0, 1500)),
  restart: async ({ engines, random }) => {
    const engine = random.pick([engines.broker, engines.database]);
    await engine?.pause();
    await sleep(random.int(0, 3000));
    await engine?.resume();
    return true;
  },
  slow: async ({ engines }) => {
    const goOn = engines.database?.freeze();
    await sleep(DATABASE_SLOW_MS);
    goOn?.();
    return true;
  },
  certificate: async ({ stack, robot }) => {
    // Refused while a control plane is away: then this robot keeps the one that it has.
    await stack.enroll(robot.configFile, robot.apiKey).catch(() => undefined);
    return true;
  },
};
/** Restarts, slowness and certificates are rarer than kills. */
const RARE: readonly string[] = ['restart', 'slow', 'certificate'];
const RARE_SHARE = 0.08;

async function killed(engine: RunningEngines['broker'], awayMs: number): Promise<boolean> {
  await engine?.kill();
  await sleep(awayMs);
  await engine?.resume();
  return true;
}

interface Hurt {
  readonly samples: number;
  readonly done: Record<string, number>;
  readonly proxy: TcpProxy['counts'];
  readonly settledMs: number;
}

/** Rounds of faults, each on an installation of its own: at the end every row is there once. */
async function campaign(
  plan: CampaignPlan,
  engineIndex: number,
  deeds: Readonly<Record<string, Deed>>,
): Promise<CampaignResult> {
  const engine = ENGINES[engineIndex];
  must(engine !== undefined, 'no such engine');
  const failures: Failure[] = [];
  const hurts: Hurt[] = [];
  let next = 0;
  let count = 0;
  const work = async (): Promise<void> => {
    while (next < plan.count && !plan.signal.aborted) {
      const [seed, faults] = [plan.seed + next, Math.min(FAULTS_PER_ROUND, plan.count - next)];
      next += faults;
      const done: Record<string, number> = {};
      try {
        hurts.push(await round(engine, deeds, { seed, faults, done }, plan.signal));
      } catch (error) {
        failTrial(plan, failures, seed, `${errorMessage(error)} (repeat with --count ${faults})`);
      }
      count += total(done);
      plan.say(`${count} of ${plan.count}, ${failures.length} rounds failed`);
    }
  };
  await Promise.all(Array.from({ length: ROUNDS_AT_ONCE }, work));
  const sum = (records: readonly Record<string, number>[]): string => {
    const all: Record<string, number> = {};
    for (const [name, times] of records.flatMap((record) => Object.entries(record)))
      all[name] = (all[name] ?? 0) + times;
    return Object.entries(all)
      .map(([name, times]) => `${name} ${times}`)
      .join(', ');
  };
  const samples = hurts.reduce((all, hurt) => all + hurt.samples, 0);
  const figures =
    `${samples} samples in ${hurts.length} rounds, 0 lost and 0 doubled in the rounds that passed; ${sum(hurts.map(({ done }) => done))}; ` +
    `proxy: ${sum(hurts.map(({ proxy }) => proxy))}; all there at most ` +
    `${(Math.max(0, ...hurts.map(({ settledMs }) => settledMs)) / 1000).toFixed(0)} s after the last fault, rest of the recording included`;
  const detail =
    `Rounds of ${FAULTS_PER_ROUND} faults 60 to 900 ms apart, ${ROUNDS_AT_ONCE} rounds at once; a failure is one of a round. The agent's ` +
    'uplink sends 20 % of its messages twice and 10 % again up to 3 s later. Each round replays a recording whose rows are counted and compared one by one.';
  return { count, failures, figures, detail };
}

/** Waits for a connection through the proxy, for a while. */
async function connected(proxy: TcpProxy): Promise<void> {
  for (let waitedMs = 0; !proxy.isUsed && waitedMs < CONNECT_MS_MAX; waitedMs += 20) await sleep(20);
}

const total = (done: Record<string, number>): number => Object.values(done).reduce((sum, times) => sum + times, 0);

/** One recording, replayed through everything while it is being hurt. @throws when a row is missing, doubled or wrong. */
async function round(
  engine: EngineKind,
  deeds: Readonly<Record<string, Deed>>,
  { seed, faults, done }: { seed: number; faults: number; done: Record<string, number> },
  signal: AbortSignal,
): Promise<Hurt> {
  const random = new Random(seed);
  const { stack, stateDir, end } = openStack(() => undefined, START_MS_MAX);
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
    const rows = Math.ceil(faults * SECONDS_PER_FAULT * SPEED * ROWS_PER_SECOND);
    const settings = {
      sources: [recordingOf(join(stateDir, 'noise.csv'), rows)],
      cloud: { http_url: cloud.ready.https_url, mqtt_url: url.href.replace(/\/$/, ''), ca_file: cloud.ready.ca_file },
    };
    const replay = { file: join(stateDir, 'noise.csv'), speed: SPEED };
    const env = { NODE_OPTIONS: `--import=${DUPLICATES}`, OUTRIDER_FAULT_SEED: String(seed) };
    const robot = await stack.startRobot(cloud, { robotId: ROBOT, replay, settings, env });
    await stack.until('the first samples', async () => (await counts(cloud)) > 0);
    const world: World = { stack, robot, clouds: engines.clouds, engines, random };
    while (total(done) < faults && !signal.aborted) {
      await sleep(random.int(60, 900));
      // Otherwise a busy machine would only ever see programs die that have just begun.
      if (random.chance(0.5)) await connected(proxy);
      if (random.chance(0.5)) void proxy.hurt();
      const isRare = random.chance(RARE_SHARE);
      const names = Object.keys(deeds).filter((name) => RARE.includes(name) === isRare);
      const name = names.length > 0 ? random.pick(names) : 'agent';
      if (await deeds[name]?.(world)) done[name] = (done[name] ?? 0) + 1;
    }
    const calmMs = systemClock.monotonicMs();
    await settled(cloud, rows);
    return { samples: 2 * rows, done, proxy: proxy.counts, settledMs: systemClock.monotonicMs() - calmMs };
  } catch (error) {
    throw new Error(`${wholeMessage(error)}; logs: ${keepLogs(stateDir, seed)}`, { cause: error });
  } finally {
    await end();
    await proxy?.close();
    await engines?.end();
  }
}

/** With what `fetch` keeps to itself. */
const wholeMessage = (error: unknown): string =>
  errorMessage(error) + (error instanceof Error && error.cause ? `: ${wholeMessage(error.cause)}` : '');

/** What the programs of a round said, where it outlives the round. */
function keepLogs(stateDir: string, seed: number): string {
  const kept = mkdtempSync(join(tmpdir(), `outrider-fault-${seed}-`));
  cpSync(join(stateDir, 'logs'), kept, { recursive: true });
  return kept;
}

/** @throws when a row is missing, doubled or wrong. */
async function settled(cloud: Cloud, rows: number): Promise<void> {
  const endMs = systemClock.monotonicMs() + SETTLE_MS_MAX + (1000 * rows) / SPEED / ROWS_PER_SECOND;
  while ((await counts(cloud)) < 2 * rows && systemClock.monotonicMs() < endMs) await sleep(200);
  const samples = await exportStream(cloud.client, ROBOT, 'counter');
  const values = samples.map((sample) => sample.values['temperature']?.[0] ?? Number.NaN).sort((a, b) => a - b);
  must(values.length === rows, `counter: ${rows} rows, ${values.length} in the cloud`);
  for (const [row, value] of values.entries()) must(value === row, `counter: ${value} where ${row} belongs`);
  const all = await counts(cloud);
  must(all === 2 * rows, `${2 * rows} samples, ${all} in the cloud`);
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
  title:
    'kill -9 of agent, guard and cloud (with broker and database in it), a proxy that cuts, stalls, splits and swallows, messages sent twice and late',
  counts: { full: 1000, short: 8 },
  skip: ENGINES[0]?.skip ?? false,
  run: (plan) => campaign(plan, 0, KILLS),
};

export const engineFaults: Campaign = {
  id: 'C4',
  title:
    'kill -9 of agent, guard, two control planes, Mosquitto and PostgreSQL; restarts, a database slow for 5 s, certificates renewed; proxy and doubled messages as above',
  counts: { full: 400, short: 8 },
  skip: ENGINES[1]?.skip ?? false,
  run: (plan) => campaign(plan, 1, ENGINE_FAULTS),
};
