import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { systemClock, toIso } from '@outrider/shared/time';
import { machine } from '../bench/measure.ts';
import type { Campaign, CampaignResult } from './campaign.ts';

/** One campaign that was run, or could not be. */
export interface Ran {
  readonly campaign: Campaign;
  readonly seed: number;
  /** Trials that were asked for. */
  readonly wanted: number;
  readonly result: CampaignResult | { readonly skipped: string };
  readonly seconds: number;
}

const HEAD = `# Fault campaigns

Written by \`npm run faults\`: each campaign replaces its own row and section and leaves the others. Every trial has a
seed, and a failing one is repeated with \`npm run faults -- C5a --seed SEED --count 1\`. Faults come from this machine
alone: processes killed and frozen, files torn and filled, a TCP proxy between robot and broker, a firmware on a
pseudo-terminal. With 0 failures of N the true share of failures is below 3/N with 95 % confidence.

| | campaign | trials | failures | 95 % bound | figures |
|---|---|---|---|---|---|`;
/** Failures told in words; all seeds are listed. */
const FAILURES_SHOWN = 5;
const ROW = /^\| (C\w+) \|/;
const SECTION = /^## (C\w+): /;

/** What a page holds of each campaign. */
interface Entry {
  row?: string;
  section?: string;
}

/** Puts the campaigns into the page, in the order of `ids`; what others had there stays. */
export function mergedPage(existing: string, ran: readonly Ran[], ids: readonly string[]): string {
  const entries = parse(existing);
  for (const one of ran) entries.set(one.campaign.id, { row: rowOf(one), section: sectionOf(one) });
  const all = ids.flatMap((id) => entries.get(id) ?? []);
  const rows = all.flatMap(({ row }) => row ?? []);
  const sections = all.flatMap(({ section }) => section ?? []);
  return `${[`${HEAD}\n${rows.join('\n')}`, ...sections].join('\n\n')}\n`;
}

/** Reads, merges and writes at once, so that campaigns that run at the same time do not lose each other's rows. */
export function writePage(path: string, ran: readonly Ran[], ids: readonly string[]): void {
  const page = mergedPage(existsSync(path) ? readFileSync(path, 'utf8') : '', ran, ids);
  writeFileSync(`${path}.new`, page);
  renameSync(`${path}.new`, path);
}

function parse(page: string): Map<string, Entry> {
  const entries = new Map<string, Entry>();
  let open: string | undefined;
  for (const line of page.split('\n')) {
    const section = SECTION.exec(line)?.[1];
    if (section !== undefined) {
      open = section;
      entries.set(section, { ...entries.get(section), section: line });
      continue;
    }
    const row = open === undefined ? ROW.exec(line)?.[1] : undefined;
    if (row !== undefined) entries.set(row, { ...entries.get(row), row: line });
    const entry = open === undefined ? undefined : entries.get(open);
    if (entry) entry.section = `${entry.section}\n${line}`;
  }
  for (const entry of entries.values()) if (entry.section !== undefined) entry.section = entry.section.trimEnd();
  return entries;
}

function rowOf({ campaign, wanted, result }: Ran): string {
  const head = `| ${campaign.id} | ${campaign.title} |`;
  if ('skipped' in result) return `${head} 0 | – | – | skipped: ${result.skipped} |`;
  const { count, failures, figures } = result;
  const trials = count < wanted ? `${count} of ${wanted}, stopped before its end` : String(count);
  return `${head} ${trials} | **${failures.length}** | ${boundOf(count, failures.length)} | ${figures} |`;
}

/** Rule of three: what 0 of N leaves. Nothing as simple holds once something has failed. */
function boundOf(count: number, failed: number): string {
  if (count === 0 || failed > 0) return '–';
  return `${Number(Math.min(100, (100 * 3) / count).toPrecision(2))} %`;
}

function sectionOf({ campaign, seed, wanted, result, seconds }: Ran): string {
  const lines = [`## ${campaign.id}: ${campaign.title}`, ''];
  const when = `${toIso(systemClock.epochMs()).slice(0, 16).replace('T', ' ')} UTC`;
  lines.push(`${when}, ${machine()}.`);
  if ('skipped' in result) return [...lines, `Skipped: ${result.skipped}.`].join('\n');
  const { count, failures, detail } = result;
  const load = loadavg().map((value) => value.toFixed(1));
  lines.push(`${count} of ${wanted} trials from seed ${seed} in ${Math.round(seconds)} s.`);
  lines.push(`Load average of the machine at the end: ${load.join(', ')} (1, 5, 15 minutes).`);
  if (failures.length > 0) {
    lines.push('', `Failing seeds: ${failures.map((failure) => failure.seed).join(', ')}. The first of them:`, '');
    for (const failure of failures.slice(0, FAILURES_SHOWN))
      lines.push(`- ${failure.seed}: ${failure.what.split('\n')[0]}`);
  }
  if (detail) lines.push('', detail);
  return lines.join('\n');
}
