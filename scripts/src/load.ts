import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { systemClock, toIso } from '@outrider/shared/time';
import { Command, InvalidArgumentError } from 'commander';
import { machine } from './bench/measure.ts';
import { brokerSection } from './load/broker-section.ts';
import { copySection } from './load/copy-section.ts';
import { decisionSection } from './load/decision-section.ts';
import { failsafeSection } from './load/failsafe-section.ts';
import { httpSection } from './load/http-section.ts';
import { FLUSH_MS, ingestSection } from './load/ingest-section.ts';
import { outageSection } from './load/outage-section.ts';
import { overviewSection } from './load/overview-section.ts';
import type { LoadOptions, LoadRow, Section } from './load/section.ts';
import { repositoryRoot } from './stack.ts';

const SECTIONS: readonly Section[] = [
  ingestSection,
  failsafeSection,
  decisionSection,
  copySection,
  brokerSection,
  httpSection,
  overviewSection,
  outageSection,
];
const CLOSE_PATIENCE_MS = 30_000;

interface Given {
  readonly robots: number;
  readonly rateHz: number;
  readonly joints: number;
  readonly minutes?: number;
  readonly only?: string;
  readonly short?: boolean;
  readonly profile?: string;
}

const whole =
  (most: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < 1 || value > most)
      throw new InvalidArgumentError(`must be a whole number from 1 to ${most}`);
    return value;
  };
const minutesOf = (text: string): number => {
  const value = Number(text);
  if (!(value > 0 && value <= 1440)) throw new InvalidArgumentError('must be more than 0 and at most 1440');
  return value;
};

const command = new Command('npm run load --')
  .description(
    'Puts the control plane under load on this machine and writes docs/load.md: simulated robots as real MQTT-TLS\n' +
      'clients, PostgreSQL, the server as it is served, and HTTP readers beside them. A goal that is missed is said in\n' +
      'the table; only a section that could not be measured makes the exit code 1.',
  )
  .option('--robots <n>', 'simulated robots', whole(10_000), 1000)
  .option('--rate-hz <n>', 'samples a second of each robot', whole(1000), 10)
  .option('--joints <n>', 'joints of each robot', whole(256), 30)
  .option('--minutes <n>', 'how long the design load lasts (10, and 0.3 with --short)', minutesOf)
  .option('--only <section>', `one section: ${SECTIONS.map(({ name }) => name).join(', ')}; no page is written`)
  .option('--short', 'everything for a moment and with 60 robots, to see that the tool works; no page is written')
  .option('--profile <folder>', 'CPU profiles of the control plane in the sections ingest and broker')
  .showHelpAfterError();
const given = command.parse().opts<Given>();
const wanted = SECTIONS.filter(({ name }) => given.only === undefined || given.only === name);
if (wanted.length === 0) command.error(`--only ${given.only}: there is no such section`);
const isShort = given.short === true;
const options: LoadOptions = {
  robots: isShort && command.getOptionValueSource('robots') === 'default' ? 60 : given.robots,
  rateHz: given.rateHz,
  joints: given.joints,
  minutes: given.minutes ?? (isShort ? 0.3 : 10),
  isShort,
  ...(given.profile === undefined ? {} : { profileDir: resolve(given.profile) }),
};

/** What became of a section. */
interface Outcome {
  readonly name: string;
  readonly rows: LoadRow[];
  readonly seconds: number;
  readonly failed?: string;
}

const startedMs = systemClock.epochMs();
const outcomes: Outcome[] = [];
for (const section of wanted) {
  outcomes.push(await runSection(section));
  if (!isShort && given.only === undefined) writePage();
}
console.log(page());
process.exit(outcomes.some(({ failed }) => failed !== undefined) ? 1 : 0);

/** Runs a section for as long as it may take. Whatever it does, the next one follows. */
async function runSection(section: Section): Promise<Outcome> {
  const fromMs = systemClock.monotonicMs();
  const seconds = (): number => (systemClock.monotonicMs() - fromMs) / 1000;
  const say = (line: string): void => console.error(`  ${section.name} ${seconds().toFixed(0).padStart(4)} s  ${line}`);
  const rows: LoadRow[] = [];
  const closers: (() => Promise<unknown>)[] = [];
  const limitMs = section.timeoutMs(options);
  let failed: string | undefined;
  say(section.about);
  try {
    await within(
      limitMs,
      section.run({
        options,
        say,
        row: (row) => {
          rows.push(row);
          say(`${row.met === undefined ? '  ' : row.met ? 'ok' : 'NO'} ${row.what}: ${row.measured}`);
        },
        defer: (close) => closers.push(close),
      }),
    );
  } catch (error) {
    failed = errorMessage(error);
    console.error(error);
  }
  for (const close of closers.reverse())
    await within(CLOSE_PATIENCE_MS, close()).catch((error: unknown) => say(`closing: ${errorMessage(error)}`));
  return { name: section.name, rows, seconds: seconds(), ...(failed === undefined ? {} : { failed }) };
}

async function within<T>(limitMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      work,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not done within ${Math.round(limitMs / 1000)} s`)), limitMs);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

function writePage(): void {
  mkdirSync(join(repositoryRoot, 'docs'), { recursive: true });
  writeFileSync(join(repositoryRoot, 'docs', 'load.md'), page());
}

function page(): string {
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');
  const parts = outcomes.map(({ name, rows, seconds, failed }) => {
    const about = SECTIONS.find((section) => section.name === name)?.about ?? '';
    const lines = rows.map(({ what, goal, measured, met }) => {
      const word = met === undefined ? '–' : met ? 'yes' : 'no';
      return `| ${cell(what)} | ${cell(goal)} | ${cell(measured)} | ${word} |`;
    });
    const end = failed === undefined ? [] : [`| the rest of this section | | not measured: ${cell(failed)} | no |`];
    return [
      `## ${name}: ${about}`,
      '',
      '| what | goal | measured | met |',
      '|---|---|---|---|',
      ...lines,
      ...end,
      '',
      `${Math.round(seconds)} s.`,
      '',
    ].join('\n');
  });
  const arguments_ = process.argv.slice(2).join(' ');
  return `# Load

Written by \`npm run load${arguments_ === '' ? '' : ` -- ${arguments_}`}\`. The control plane runs as it is served
(\`outrider-cloud serve\`, one process) on a PostgreSQL of its own whose commits wait for the disk. Robots are simulated as
MQTT clients over mutual TLS, each with a certificate of its own that it got by enrolling; they send blocks of the edge
agent's own encoding every ${FLUSH_MS} ms, keep them until they are acknowledged, send again what is not, and check the
signature of what they are ordered. As real edges do, they say every 10 s how healthy they are, so the control plane
does not analyse their samples itself. Server, database, robots and readers share this machine's cores, so every figure
holds the cost of its own measuring.

Machine: ${machine()}. Date: ${toIso(startedMs).slice(0, 16).replace('T', ' ')} UTC.

${parts.join('\n')}`;
}
