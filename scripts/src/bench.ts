import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { pause } from '@outrider/shared/service';
import { systemClock, toIso } from '@outrider/shared/time';
import { Command, InvalidArgumentError } from 'commander';
import { EVALUATOR_PLANS } from './bench/evaluator-rows.ts';
import { format, machine, type Row, type RowPlan, RowSkipped } from './bench/measure.ts';
import { OUTBOX_PLANS } from './bench/outbox-rows.ts';
import { ROBOT_PLANS } from './bench/robot-rows.ts';
import { STOP_PLANS } from './bench/stop-rows.ts';
import { UPLINK_PLANS } from './bench/uplink-rows.ts';
import { repositoryRoot } from './stack.ts';

const PAIRS_DEFAULT = 5;
/** A row that hangs must not cost the others. */
const ROW_MS_MAX = 600_000;
const PLANS: readonly RowPlan[] = [...STOP_PLANS, ...EVALUATOR_PLANS, ...OUTBOX_PLANS, ...UPLINK_PLANS, ...ROBOT_PLANS];

/** What became of one plan. */
type Outcome = { readonly rows: readonly Row[] } | { readonly skipped: string } | { readonly failed: string };

const command = new Command('npm run bench --')
  .description(
    'Measures Outrider against a limit or a peer, alternating in one run, and writes docs/benchmarks.md.\n' +
      'A goal that is missed is said in the table; only a row that could not be measured makes the exit code 1.',
  )
  .option(
    '--only <pattern>',
    'only rows whose name contains it (or matches it as a regular expression); no page is written',
  )
  .option('--pairs <n>', 'how many times each side is measured, 1 to 100', pairsOf, PAIRS_DEFAULT)
  .option('--list', 'name the rows and end')
  .addHelpText(
    'after',
    `
Examples:
  npm run bench -- --list
  npm run bench -- --only 'durable commit of 100'   one row alone
  npm run bench -- --only 'agent + guard' --pairs 3
  npm run bench                                     all, and docs/benchmarks.md`,
  )
  .showHelpAfterError();
const options = command.parse().opts<{ only?: string; pairs: number; list?: boolean }>();
const wanted = options.only === undefined ? PLANS : PLANS.filter(({ name }) => matches(name, options.only as string));

if (options.list) for (const { name } of PLANS) console.log(name);
else if (wanted.length === 0) command.error(`--only ${options.only}: no row has that in its name; --list names them`);
// A row that hung may have left something open.
else process.exit(await run(wanted));

async function run(plans: readonly RowPlan[]): Promise<number> {
  const outcomes = new Map<string, Outcome>();
  for (const plan of plans) {
    console.error(`  ${plan.name} …`);
    outcomes.set(plan.name, await measure(plan));
  }
  const page = pageOf(outcomes);
  console.log(page);
  if (plans.length === PLANS.length) {
    mkdirSync(join(repositoryRoot, 'docs'), { recursive: true });
    writeFileSync(join(repositoryRoot, 'docs', 'benchmarks.md'), page);
  }
  return [...outcomes.values()].some((outcome) => 'failed' in outcome) ? 1 : 0;
}

async function measure({ measure: measureRows }: RowPlan): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), 'outrider-bench-'));
  const say = (line: string): void => console.error(`    ${line}`);
  const ended = new AbortController();
  try {
    const late = pause(ROW_MS_MAX, ended.signal).then(() => {
      throw new Error(`not done after ${ROW_MS_MAX / 60_000} minutes`);
    });
    // Lost when the row is done in time.
    late.catch(() => undefined);
    return { rows: await Promise.race([measureRows({ pairs: options.pairs, directory, say }), late]) };
  } catch (error) {
    if (error instanceof RowSkipped) return { skipped: error.message };
    console.error(error);
    return { failed: errorMessage(error) };
  } finally {
    ended.abort();
    rmSync(directory, { recursive: true, force: true });
  }
}

function pageOf(outcomes: ReadonlyMap<string, Outcome>): string {
  const lines = [...outcomes].flatMap(([name, outcome]) => {
    if ('rows' in outcome) return outcome.rows.map(lineOf);
    const [what, why] = 'skipped' in outcome ? ['skipped', outcome.skipped] : ['not measured', outcome.failed];
    return [`| ${name} | | | | ${what}: ${why.replaceAll(/[|\n]/g, ' ')} | | |`];
  });
  return `# Benchmarks

Written by \`npm run bench\`. Each row is held against a limit or a peer measured in the same run, alternating; the
ratio is ours over theirs, the median of the pairs with the lowest and the highest. Absolute figures are only good for
this machine and this run; the ratios are what to trust. "Loaded": meanwhile one process commits to SQLite and another
publishes through an MQTT broker, both without a pause, and the samples of each pair are taken one side after the other.
The evaluator, the agent and the guard run with the flags that the package starts them with. The bare insert loop
writes the columns that the outbox has, the time of writing by default as there.

Machine: ${machine()}. Date: ${toIso(systemClock.epochMs()).slice(0, 10)}.

| what | against | ours | theirs | ratio (lowest – highest) | goal | met |
|---|---|---|---|---|---|---|
${lines.join('\n')}
`;
}

function lineOf({ name, peer, ours, theirs, ratio, goal, met }: Row): string {
  const spread = `${format(ratio.low)} – ${format(ratio.high)}, ${ratio.runs} pair${ratio.runs === 1 ? '' : 's'}`;
  return `| ${name} | ${peer} | ${ours} | ${theirs} | **${format(ratio.median)}** (${spread}) | ${goal} | ${met ? 'yes' : 'no'} |`;
}

function matches(name: string, pattern: string): boolean {
  if (name.includes(pattern)) return true;
  try {
    return new RegExp(pattern, 'i').test(name);
  } catch {
    return false;
  }
}

function pairsOf(text: string): number {
  const pairs = Number(text);
  if (!Number.isInteger(pairs) || pairs < 1 || pairs > 100)
    throw new InvalidArgumentError('must be a whole number from 1 to 100');
  return pairs;
}
