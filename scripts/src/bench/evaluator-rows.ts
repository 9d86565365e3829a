import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { GUARD_FLAGS } from '@outrider/edge-agent/guard/guard-process';
import { underLoad } from './load.ts';
import { type BenchContext, format, quantile, type Row, type RowPlan, RowSkipped, spreadOf } from './measure.ts';
import { needFifo } from './native.ts';

const run = promisify(execFile);
const CHILD = fileURLToPath(new URL('./evaluator-child.js', import.meta.url));
const LOOPS = 10_000;
const PRIORITY = '10';
const HISTOGRAM_US_MAX = 1_000_000;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** Which share of the decisions each policy is held to, and how many times cyclictest's own. */
const GOALS = {
  fifo: [
    { share: 0.99, word: 'p99', ratioMax: 3 },
    { share: 0.999, word: 'p99.9', ratioMax: 5 },
  ],
  other: [{ share: 0.999, word: 'p99.9', ratioMax: 10 }],
} as const;
type Policy = keyof typeof GOALS;

/** The failsafe judging a thousand samples a second, against the kernel's own wake-up latency. */
export const EVALUATOR_PLANS: readonly RowPlan[] = (['fifo', 'other'] as const).map((policy) => ({
  name: `evaluator at 1 kHz, loaded, ${words(policy)}`,
  measure: (context) => lateness(context, policy),
}));

function words(policy: Policy): string {
  return policy === 'fifo' ? 'SCHED_FIFO' : 'no SCHED_FIFO';
}

async function lateness({ directory, pairs, say }: BenchContext, policy: Policy): Promise<Row[]> {
  needFifo();
  const config = join(directory, 'edge.yaml');
  writeFileSync(config, JSON.stringify({ robot: { id: 'RB-BENCH' }, state_dir: directory }));
  const [us, them]: [number[][], number[][]] = [[], []];
  await underLoad(directory, async () => {
    for (let pair = 0; pair < pairs; pair += 1) {
      if (pair % 2 === 1) them.push(await cyclictest(policy));
      us.push(await evaluator(policy, config));
      if (pair % 2 === 0) them.push(await cyclictest(policy));
      const [a, b] = [us.at(-1) ?? [], them.at(-1) ?? []];
      say(`p99.9 ${format(quantile(a, 0.999))} µs, cyclictest ${format(quantile(b, 0.999))} µs`);
    }
  });
  return GOALS[policy].map(({ share, word, ratioMax }) => {
    const at = (runs: number[][]): number[] => runs.map((run) => quantile(run, share));
    const ratio = spreadOf(at(us).map((value, i) => value / (at(them)[i] as number)));
    return {
      name: `evaluator at 1 kHz, loaded, ${words(policy)}, ${word}`,
      peer: 'cyclictest at 1 kHz under the same policy',
      goal: `≤ ${ratioMax}×`,
      ours: `${format(spreadOf(at(us)).median)} µs`,
      theirs: `${format(spreadOf(at(them)).median)} µs`,
      ratio,
      met: ratio.median <= ratioMax,
    };
  });
}

async function evaluator(policy: Policy, config: string): Promise<number[]> {
  const node = [process.execPath, ...GUARD_FLAGS, CHILD, config, String(LOOPS)];
  const [command = '', ...args] = policy === 'fifo' ? ['chrt', '--fifo', PRIORITY, ...node] : node;
  const { stdout } = await run(command, args, { maxBuffer: OUTPUT_BYTES_MAX });
  return JSON.parse(stdout) as number[];
}

async function cyclictest(policy: Policy): Promise<number[]> {
  const scheduling = policy === 'fifo' ? ['--policy=fifo', `--priority=${PRIORITY}`] : ['--policy=other'];
  const fixed = ['--quiet', '--threads=1', '--interval=1000', `--loops=${LOOPS}`, `--histogram=${HISTOGRAM_US_MAX}`];
  let text: string;
  try {
    text = (await run('cyclictest', [...fixed, ...scheduling], { maxBuffer: OUTPUT_BYTES_MAX })).stdout;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
      throw new RowSkipped('there is no cyclictest (apt-get install rt-tests)');
    throw error;
  }
  // A line of the histogram: the latency in µs, and how often.
  return [...text.matchAll(/^(\d+)\s+(\d+)$/gm)].flatMap(([, us, count]) =>
    Array.from({ length: Number(count) }, () => Number(us)),
  );
}
