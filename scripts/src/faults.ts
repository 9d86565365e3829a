import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '@outrider/shared/time';
import type { Campaign } from './faults/campaign.ts';
import { CAMPAIGNS } from './faults/campaigns.ts';
import { mergedPage, type Ran, writePage } from './faults/page.ts';
import { repositoryRoot } from './stack.ts';

const HELP = `npm run faults -- [CAMPAIGN … | all] [--count N] [--seed S] [--short] [--record]

Runs fault campaigns. A trial that fails is told with its seed; the same trial again:
  npm run faults -- C5a --seed SEED --count 1

  --count N   trials per campaign instead of each campaign's own number
  --seed S    seed of the first trial; trial i has S + i
  --short     a few trials of each
  --record    puts what was found into the page; done anyway when all campaigns run at their own numbers
  --page F    the page (default docs/faults.md)

Ctrl-C ends a campaign after its trial; what was done until then counts.
`;

const IDS = CAMPAIGNS.map(({ id }) => id);

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    count: { type: 'string' },
    seed: { type: 'string', default: '20261120' },
    short: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
    page: { type: 'string', default: join(repositoryRoot, 'docs', 'faults.md') },
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
  const wanted = positionals.length === 0 || positionals.includes('all') ? IDS : positionals;
  const unknown = wanted.filter((id) => !CAMPAIGNS.some((campaign) => isWanted(campaign, id)));
  if (unknown.length > 0) throw new Error(`no campaign ${unknown.join(', ')}; there are ${IDS.join(', ')}`);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const isRecorded = values.record || (!values.short && count === undefined && wanted === IDS);
  const ran: Ran[] = [];
  for (const campaign of CAMPAIGNS) {
    if (!wanted.some((id) => isWanted(campaign, id)) || stop.signal.aborted) continue;
    const one = await runOne(campaign, count ?? campaign.counts[values.short ? 'short' : 'full'], seed, stop.signal);
    ran.push(one);
    // One by one, so that what is done is kept when the next one is not waited for.
    if (isRecorded) writePage(values.page, [one], IDS);
  }
  console.log(mergedPage('', ran, IDS));
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
    return { campaign, seed, wanted: count, result: { skipped: campaign.skip }, seconds: 0 };
  }
  say(`${campaign.title}: ${count} trials from seed ${seed}`);
  try {
    const result = await campaign.run({ count, seed, say, signal });
    return { campaign, seed, wanted: count, result, seconds: seconds() };
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    say(`could not be run: ${what}`);
    const result = { count: 0, failures: [{ seed, what }], figures: 'could not be run' };
    return { campaign, seed, wanted: count, result, seconds: seconds() };
  }
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
