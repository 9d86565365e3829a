import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { GuardLink } from '@outrider/edge-agent/guard/guard-link';
import { commissionLatchStore } from '@outrider/edge-agent/guard/latch-store';
import { createLogger } from '@outrider/shared/log';
import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { underLoad } from './load.ts';
import { type BenchContext, format, quantile, type Row, type RowPlan, spreadOf } from './measure.ts';
import { buildEcho, buildStopProbe, needFifo } from './native.ts';
import { end, until } from './robot.ts';

const run = promisify(execFile);
const GUARD = fileURLToPath(import.meta.resolve('@outrider/edge-agent/guard/main'));
/** The guard's own priority. */
const FIFO_PRIORITY = 10;
/** Above the guard's, so that the stopwatch itself is not late. */
const PROBE_PRIORITY = '40';
const TRIPS = 100;
const ECHOES = 1000;
const RATIO_MAX = 3;
const STOP_MS_MAX = 25;
const TRIPS_PATIENCE_MS = 300_000;

type Policy = 'fifo' | 'other';

/** From a sample that must stop the robot to the stop's first byte, with the real guard and the real firmware. */
export const STOP_PLANS: readonly RowPlan[] = (['fifo', 'other'] as const).map((policy) => ({
  name: `sample → byte on the pty, loaded, p99.9, ${policy === 'fifo' ? 'SCHED_FIFO' : 'no SCHED_FIFO'}`,
  measure: (context) => stopLatency(context, policy),
}));

async function stopLatency({ directory, pairs, say }: BenchContext, policy: Policy): Promise<Row[]> {
  needFifo();
  const echo = await buildEcho(directory);
  const probe = await buildStopProbe(directory);
  const theirs = async (): Promise<number[]> => {
    const { stdout } = await run(echo, [String(ECHOES), policy, String(FIFO_PRIORITY)]);
    return stdout.trim().split('\n').map(Number);
  };
  const ours = (): Promise<number[]> => trips(mkdtempSync(join(directory, 's')), probe, policy);
  const [us, them]: [number[][], number[][]] = [[], []];
  await underLoad(directory, async () => {
    for (let pair = 0; pair < pairs; pair += 1) {
      if (pair % 2 === 1) them.push(await theirs());
      us.push(await ours());
      if (pair % 2 === 0) them.push(await theirs());
      const [a, b] = [us.at(-1) ?? [], them.at(-1) ?? []];
      say(`p99.9 ${ms(quantile(a, 0.999))} of ${a.length} stops, echo ${ms(quantile(b, 0.999))} of ${b.length}`);
    }
  });
  const ratio = spreadOf(us.map((latencies, i) => quantile(latencies, 0.999) / quantile(them[i] ?? [], 0.999)));
  const [all, peer] = [us.flat(), them.flat()];
  const p999 = quantile(all, 0.999);
  const words = (values: number[]): string =>
    `${ms(quantile(values, 0.999))} (p50 ${ms(quantile(values, 0.5))}, max ${ms(Math.max(...values))}, ${values.length} times)`;
  return [
    {
      name: `sample → byte on the pty, loaded, p99.9, ${policy === 'fifo' ? 'SCHED_FIFO' : 'no SCHED_FIFO'}`,
      peer: 'a C echo of as many bytes under the same policy',
      goal: `≤ ${RATIO_MAX}×, and ≤ ${STOP_MS_MAX} ms`,
      ours: words(all),
      theirs: words(peer),
      ratio,
      met: ratio.median <= RATIO_MAX && p999 <= STOP_MS_MAX * 1000,
    },
  ];
}

const ms = (us: number): string => `${format(us / 1000)} ms`;

/** Arms and trips the robot again and again. @returns The latencies. [µs] */
async function trips(home: string, probe: string, policy: Policy): Promise<number[]> {
  const children: ChildProcess[] = [];
  const stop = new AbortController();
  const line = join(home, 'tty');
  const config = join(home, 'edge.yaml');
  writeFileSync(config, JSON.stringify(configuration(home, line, policy)));
  await commissionLatchStore(join(home, 'latches'));
  const link = new GuardLink({
    socketPath: join(home, 'guard.sock'),
    agentBootId: 'bench',
    transitionsStored: () => 0,
    clock: systemClock,
    log: createLogger('bench', 'silent'),
  });
  let samples = 0;
  link.onSample(() => {
    samples += 1;
    link.progress(samples);
  });
  link.onTransition(async () => {});
  const latencies: number[] = [];
  let linkDone = Promise.resolve();
  try {
    const mcu = spawn('chrt', ['--fifo', PROBE_PRIORITY, probe, '--link', line, '--joints', '30', '--seed', '1'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    children.push(mcu);
    createInterface({ input: mcu.stdout }).on('line', (text) => {
      const said = JSON.parse(text) as { event: string; latency_us?: number };
      if (said.event === 'trip' && said.latency_us !== undefined) latencies.push(said.latency_us);
    });
    await until('the firmware', () => existsSync(line));
    children.push(spawn(process.execPath, [GUARD, '--config', config], { stdio: ['ignore', 'ignore', 'inherit'] }));
    linkDone = link.run(stop.signal);
    await untilTripped(link, latencies);
    return latencies;
  } finally {
    stop.abort();
    await linkDone;
    for (const child of children) await end(child);
  }
}

async function untilTripped(link: GuardLink, latencies: readonly number[]): Promise<void> {
  const endMs = systemClock.monotonicMs() + TRIPS_PATIENCE_MS;
  let last = '';
  while (latencies.length < TRIPS) {
    if (systemClock.monotonicMs() > endMs) throw new Error(`${latencies.length} of ${TRIPS} trips; last: ${last}`);
    const status = link.status();
    if (status && status.phase !== 'ARMED' && status.phase !== 'RECOVERING') {
      const { latchId, recoverNonce } = status;
      const by = { local: true, requestedBy: 'bench', traceId: 'bench' };
      const request = { latchId: latchId ?? 0, nonce: recoverNonce ?? '', ...by };
      last = await link.recover(request).then(
        ({ detail, unmet }) => [detail, ...unmet].join('; '),
        (error: unknown) => String(error),
      );
    }
    await pause(10, new AbortController().signal);
  }
}

/** Generous limits for everything but the motor's heat: what is timed here is one way to stop. */
function configuration(home: string, line: string, policy: Policy): object {
  return {
    robot: { id: 'RB-BENCH' },
    state_dir: home,
    sources: [{ type: 'serial', path: line, baud: 921_600 }],
    failsafe: {
      accept_looser: true,
      looser_reason: 'a simulated robot on a loaded machine',
      stop_confirm_ms: 5000,
      mcu_silent_ms: 5000,
      stale_min_ms: 5000,
      agent_stuck_ms: 20_000,
      mcu_reaction_ms: 5000,
      clear_dwell_ms: Object.fromEntries(
        ['estop', 'guard_fault', 'mcu_silent', 'mcu_fault', 'source_stale', 'agent_stuck', 'mechanical_lock']
          .concat('thermal_shutdown')
          .map((cause) => [cause, 0]),
      ),
    },
    guard: { scheduling: policy },
    log: { level: 'fatal' },
  };
}
