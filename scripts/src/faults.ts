import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock, toIso } from '@outrider/shared/time';
import { machine } from './bench/measure.ts';
import type { Campaign, CampaignResult } from './faults/campaign.ts';
import { CAMPAIGNS } from './faults/campaigns.ts';
import { repositoryRoot } from './stack.ts';

const HELP = `npm run faults -- [CAMPAIGN … | all] [--count N] [--seed S] [--short]

Runs fault campaigns. A trial that fails is told with its seed; the same trial again:
  npm run faults -- C5 --seed SEED --count 1

  --count N   trials per campaign instead of each campaign's own number
  --seed S    seed of the first trial; trial i has S + i
  --short     a few trials of each, and docs/faults.md stays as it is
`;

interface Ran {
  readonly campaign: Campaign;
  readonly seed: number;
  readonly result: CampaignResult | { readonly skipped: string };
  readonly seconds: number;
}

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    count: { type: 'string' },
    seed: { type: 'string', default: '20261120' },
    short: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

async function main(): Promise<number> {
  if (values.help) {
    console.log(`${HELP}\n${CAMPAIGNS.map(({ id, title }) => `  ${id.padEnd(4)} ${title}`).join('\n')}`);
    return 0;
  }
  const seed = number('--seed', values.seed);
  const count = values.count === undefined ? undefined : number('--count', values.count);
  const wanted = positionals.length === 0 || positionals.includes('all') ? CAMPAIGNS.map(({ id }) => id) : positionals;
  const unknown = wanted.filter((id) => !CAMPAIGNS.some((campaign) => isWanted(campaign, id)));
  if (unknown.length > 0)
    throw new Error(`no campaign ${unknown.join(', ')}; there are ${CAMPAIGNS.map(({ id }) => id).join(', ')}`);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const ran: Ran[] = [];
  for (const campaign of CAMPAIGNS) {
    if (!wanted.some((id) => isWanted(campaign, id)) || stop.signal.aborted) continue;
    ran.push(await runOne(campaign, count ?? campaign.counts[values.short ? 'short' : 'full'], seed, stop.signal));
  }
  const page = pageOf(ran);
  if (!values.short && values.count === undefined && positionals.length === 0) {
    writeFileSync(join(repositoryRoot, 'docs', 'faults.md'), page);
  }
  console.log(page);
  const failed = ran.some(({ result }) => 'failures' in result && (result.failures.length > 0 || result.count === 0));
  return failed || ran.length === 0 || stop.signal.aborted ? 1 : 0;
}

/** `C5` means C5a, C5b and C5c. */
const isWanted = ({ id }: Campaign, word: string): boolean =>
  id.toLowerCase() === word.toLowerCase() || id.replace(/[a-z]$/, '').toLowerCase() === word.toLowerCase();

async function runOne(campaign: Campaign, count: number, seed: number, signal: AbortSignal): Promise<Ran> {
  const say = (line: string): void => console.error(`  ${campaign.id} ${line}`);
  const fromMs = systemClock.monotonicMs();
  const seconds = (): number => (systemClock.monotonicMs() - fromMs) / 1000;
  if (campaign.skip !== false) {
    say(`skipped: ${campaign.skip}`);
    return { campaign, seed, result: { skipped: campaign.skip }, seconds: 0 };
  }
  say(`${campaign.title}: ${count} trials from seed ${seed}`);
  try {
    return { campaign, seed, result: await campaign.run({ count, seed, say, signal }), seconds: seconds() };
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    say(`could not be run: ${what}`);
    return { campaign, seed, result: { count: 0, failures: [{ seed, what }], figures: '' }, seconds: seconds() };
  }
}

function pageOf(ran: readonly Ran[]): string {
  const rows = ran.map(({ campaign, seed, result, seconds }) => {
    const head = `| ${campaign.id} | ${campaign.title} |`;
    if ('skipped' in result) return `${head} 0 | – | skipped: ${result.skipped} | |`;
    const { count, failures, figures } = result;
    const seeds = failures.length === 0 ? '' : ` (seeds ${failures.map((failure) => failure.seed).join(', ')})`;
    return `${head} ${count} from ${seed} | **${failures.length}**${seeds} | ${figures} | ${Math.round(seconds)} s |`;
  });
  const details = ran.flatMap(({ campaign, result }) =>
    'detail' in result && result.detail ? [`\n## ${campaign.id}: ${campaign.title}\n\n${result.detail}\n`] : [],
  );
  return `# Fault campaigns

Written by \`npm run faults\`. Every trial has a seed, and a failing one is repeated with
\`npm run faults -- C5 --seed SEED --count 1\`. Faults come from this machine alone: processes killed and frozen, files
torn and filled, a TCP proxy between robot and broker, a firmware on a pseudo-terminal. 0 failures of N leave an upper
bound of 3/N with 95 % confidence.

Machine: ${machine()}. Date: ${toIso(systemClock.epochMs()).slice(0, 10)}.

| | campaign | trials from seed | failures | figures | took |
|---|---|---|---|---|---|
${rows.join('\n')}
${details.join('')}`;
}

function number(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name} must be a whole number, not '${text}'`);
  return value;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`faults: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
