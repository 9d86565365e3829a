import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { type BenchContext, format, type Row, type RowPlan, spreadOf } from './measure.ts';
import { BenchRobot, cpuMs, end, rssBytes, until } from './robot.ts';

/** A robot runs for days: what is measured is not the time in which its code is still being compiled. */
const SETTLE_MS = 20_000;
const SETTLE_IDLE_MS = 2000;
const WINDOW_MS = 10_000;
const RSS_MB_MAX = 160;
const CPU_PERCENT_MAX = 10;
const COLD_START_MS_MAX = 1500;
const never = new AbortController().signal;

/** What a robot's computer pays, and how soon it keeps data. */
export const ROBOT_PLANS: readonly RowPlan[] = [
  { name: 'agent + guard, 30 joints at 50 Hz', measure: footprint },
  { name: 'cold start to first durable sample', measure: coldStart },
];

/** Memory and processor time of one or more processes over a window. */
async function observe(pids: readonly number[], settleMs: number): Promise<{ rssMb: number; cpuPercent: number }> {
  await pause(settleMs, never);
  const cpu = (): number => pids.reduce((sum, pid) => sum + cpuMs(pid), 0);
  const [fromMs, cpuFromMs] = [systemClock.monotonicMs(), cpu()];
  const rss: number[] = [];
  while (systemClock.monotonicMs() - fromMs < WINDOW_MS) {
    await pause(500, never);
    rss.push(pids.reduce((sum, pid) => sum + rssBytes(pid), 0));
  }
  const cpuPercent = (100 * (cpu() - cpuFromMs)) / (systemClock.monotonicMs() - fromMs);
  return { rssMb: spreadOf(rss).median / 2 ** 20, cpuPercent };
}

async function footprint({ directory, pairs, say }: BenchContext): Promise<Row[]> {
  const ours = async (): ReturnType<typeof observe> => {
    const robot = new BenchRobot(mkdtempSync(join(directory, 'r')));
    try {
      await robot.startFirmware();
      await robot.startAgent();
      await robot.firstDurableSample();
      const guardPid = await until('the guard', async () => (await robot.status())?.failsafe?.guard_pid);
      return await observe([robot.agentPid, guardPid], SETTLE_MS);
    } finally {
      await robot.close();
    }
  };
  const theirs = async (): ReturnType<typeof observe> => {
    const idle = [1, 2].map(() => spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' }));
    try {
      return await observe(
        idle.map(({ pid }) => pid as number),
        SETTLE_IDLE_MS,
      );
    } finally {
      await Promise.all(idle.map((child) => end(child)));
    }
  };
  const runs: { ours: Awaited<ReturnType<typeof observe>>; theirs: Awaited<ReturnType<typeof observe>> }[] = [];
  for (let pair = 0; pair < pairs; pair += 1) {
    const first = pair % 2 === 0 ? await ours() : await theirs();
    const second = pair % 2 === 0 ? await theirs() : await ours();
    const run = pair % 2 === 0 ? { ours: first, theirs: second } : { ours: second, theirs: first };
    say(`${format(run.ours.rssMb)} MiB, ${format(run.ours.cpuPercent)} % (idle: ${format(run.theirs.rssMb)} MiB)`);
    runs.push(run);
  }
  const rss = spreadOf(runs.map((run) => run.ours.rssMb));
  const cpu = spreadOf(runs.map((run) => run.ours.cpuPercent));
  const median = (values: number[]): string => format(spreadOf(values).median);
  return [
    {
      name: 'agent + guard, 30 joints at 50 Hz: memory',
      peer: 'two idle Node processes',
      goal: `RSS ≤ ${RSS_MB_MAX} MB together`,
      // A megabyte is 10⁶ bytes; the kernel counts in 1024.
      ours: `${format(rss.median * 1.048_576)} MB`,
      theirs: `${format(spreadOf(runs.map((run) => run.theirs.rssMb)).median * 1.048_576)} MB`,
      ratio: spreadOf(runs.map((run) => run.ours.rssMb / run.theirs.rssMb)),
      met: rss.median * 1.048_576 <= RSS_MB_MAX,
    },
    {
      name: 'agent + guard, 30 joints at 50 Hz: processor (the ratio column is % of a core)',
      peer: 'two idle Node processes',
      goal: `≤ ${CPU_PERCENT_MAX} % of a core`,
      ours: `${format(cpu.median)} %`,
      theirs: `${median(runs.map((run) => run.theirs.cpuPercent))} %`,
      ratio: cpu,
      met: cpu.median <= CPU_PERCENT_MAX,
    },
  ];
}

async function coldStart({ directory, pairs, say }: BenchContext): Promise<Row[]> {
  const runs: number[] = [];
  for (let run = 0; run < pairs; run += 1) {
    const robot = new BenchRobot(mkdtempSync(join(directory, 'c')));
    try {
      await robot.startFirmware();
      const fromMs = systemClock.monotonicMs();
      await robot.startAgent();
      await robot.firstDurableSample();
      runs.push(systemClock.monotonicMs() - fromMs);
      say(`${format(runs.at(-1) ?? 0)} ms`);
    } finally {
      await robot.close();
    }
  }
  const ratio = spreadOf(runs.map((ms) => ms / 1000));
  return [
    {
      name: 'cold start to first durable sample (new outbox, files in the page cache; the ratio column is seconds)',
      peer: '–',
      goal: `≤ ${COLD_START_MS_MAX / 1000} s`,
      ours: `${format(ratio.median)} s`,
      theirs: '–',
      ratio,
      met: ratio.median * 1000 <= COLD_START_MS_MAX,
    },
  ];
}
