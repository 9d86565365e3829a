import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock, toIso } from '@outrider/shared/time';
import { machine } from './bench/measure.ts';
import { equivalenceOf } from './mutate/equivalents.ts';
import { type Mutation, mutationsOf, transpiled } from './mutate/mutations.ts';

/** Source files of the failsafe, and the tests that must find a fault in each, cheapest first. */
const TARGETS: Readonly<Record<string, readonly string[]>> = {
  'evaluate.ts': ['steps', 'evaluate'],
  'channel.ts': ['steps', 'evaluate'],
  'state.ts': ['steps', 'evaluate'],
  'classify-agent.ts': ['judge-world'],
  'classify-body.ts': ['judge'],
  'classify-history.ts': ['judge'],
  'classify-liveness.ts': ['classify'],
  'classify-place.ts': ['judge-world'],
  'classify-power.ts': ['judge-world'],
  'classify-signals.ts': ['classify', 'judge'],
  'judge.ts': ['judge', 'judge-world'],
};
/** A mutant that is not done by then hangs, which a test run would notice too. [ms] */
const TIME_LIMIT_MS = 90_000;
const KILLED_MIN = 0.95;

const USAGE = `Puts one small fault after another into the failsafe and runs its tests on each.

  --only NAME    only the files whose name contains this
  --slice I/N    only each Nth mutant, from the Ith (1 to N): a share that fits a few minutes
  --jobs N       test runs at once (default 2)
  --list         show the mutants and run nothing
  --record       write docs/mutation.md`;

interface Mutant extends Mutation {
  readonly file: string;
}
/** `equivalent`: it survived, and nothing could tell it from the original; `EQUIVALENTS` says why. */
type Fate = 'killed' | 'timeout' | 'survived' | 'equivalent';

const ROOT = join(import.meta.dirname, '../../..');
const SOURCE = join(ROOT, 'shared/src/failsafe');

/** A copy of the built failsafe, in which one file at a time is replaced. */
class Sandbox {
  readonly #dir = mkdtempSync(join(tmpdir(), 'outrider-mutate-'));
  readonly #built = join(ROOT, 'shared/dist/src');
  readonly #source = join(this.#dir, 'dist/src');

  constructor() {
    mkdirSync(this.#source, { recursive: true });
    cpSync(join(this.#built, 'failsafe'), join(this.#source, 'failsafe'), { recursive: true });
    for (const name of ['assert.js', 'telemetry.js']) cpSync(join(this.#built, name), join(this.#source, name));
    writeFileSync(join(this.#dir, 'package.json'), '{"type":"module"}\n');
    symlinkSync(join(ROOT, 'node_modules'), join(this.#dir, 'node_modules'));
  }

  /** Runs the tests of a file with this JavaScript in its place. */
  async run(file: string, javaScript: string): Promise<Fate> {
    const name = file.replace(/\.ts$/, '.js');
    const path = join(this.#source, 'failsafe', name);
    writeFileSync(path, javaScript);
    let fate: Fate = 'survived';
    for (const test of TARGETS[file] ?? []) {
      fate = await this.#test(join(this.#source, 'failsafe', `${test}.test.js`));
      if (fate !== 'survived') break;
    }
    cpSync(join(this.#built, 'failsafe', name), path);
    return fate;
  }

  close(): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #test(path: string): Promise<Fate> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [path, '--mutant'], {
        cwd: this.#dir,
        stdio: 'ignore',
        env: { ...process.env, TAP_BAIL: '1' },
      });
      let isLate = false;
      const timer = setTimeout(() => {
        isLate = true;
        child.kill('SIGKILL');
      }, TIME_LIMIT_MS);
      child.on('error', reject);
      child.on('exit', (code) => {
        clearTimeout(timer);
        resolve(isLate ? 'timeout' : code === 0 ? 'survived' : 'killed');
      });
    });
  }
}

/** Mutants of the chosen files, thinned to the chosen slice. */
function mutants(only: string | undefined, slice: string): Mutant[] {
  const [index = 1, count = 1] = slice.split('/').map(Number);
  if (!(index >= 1 && index <= count)) throw new Error(`--slice ${slice}: must be I/N with I from 1 to N`);
  const all = Object.keys(TARGETS)
    .filter((file) => only === undefined || file.includes(only))
    .flatMap((file) =>
      mutationsOf(file, readFileSync(join(SOURCE, file), 'utf8')).map((mutation) => ({ file, ...mutation })),
    );
  return all.filter((_, i) => i % count === index - 1);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      slice: { type: 'string', default: '1/1' },
      jobs: { type: 'string', default: '2' },
      list: { type: 'boolean', default: false },
      record: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const print = (line: string): void => void process.stdout.write(`${line}\n`);
  if (values.help) {
    print(USAGE);
    return 0;
  }
  const chosen = mutants(values.only, values.slice);
  if (values.list) {
    for (const mutant of chosen) print(place(mutant));
    return 0;
  }
  const fates = new Map<string, Record<Fate, number>>();
  const survivors: string[] = [];
  const queue = [...chosen];
  const work = async (): Promise<void> => {
    const sandbox = new Sandbox();
    try {
      for (let mutant = queue.shift(); mutant; mutant = queue.shift()) {
        const text = readFileSync(join(SOURCE, mutant.file), 'utf8');
        const run = await sandbox.run(mutant.file, transpiled(text, mutant));
        const why = run === 'survived' ? equivalenceOf(mutant, text) : undefined;
        const fate = why === undefined ? run : 'equivalent';
        const row = fates.get(mutant.file) ?? { killed: 0, timeout: 0, survived: 0, equivalent: 0 };
        row[fate] += 1;
        fates.set(mutant.file, row);
        if (run !== 'survived') continue;
        survivors.push(why === undefined ? `survived  ${place(mutant)}` : `equivalent  ${place(mutant)}: ${why}`);
        print(survivors.at(-1) as string);
      }
    } finally {
      sandbox.close();
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, work));
  const { table, share } = tableOf(fates);
  print(table);
  if (values.record) writeFileSync(join(ROOT, 'docs', 'mutation.md'), pageOf(table, survivors, share, values.slice));
  return share >= KILLED_MIN ? 0 : 1;
}

const place = ({ file, line, column, words }: Mutant): string => `${file}:${line}:${column}  ${words}`;

/** What became of the mutants of each file, and the share killed of those that are not equivalent. */
function tableOf(fates: ReadonlyMap<string, Record<Fate, number>>): { table: string; share: number } {
  const rows = [...fates].map(([file, fate]) => ({ file, ...fate })).sort((a, b) => a.file.localeCompare(b.file));
  const sum = (of: Fate): number => rows.reduce((total, row) => total + row[of], 0);
  const all = { killed: sum('killed'), timeout: sum('timeout'), survived: sum('survived') };
  rows.push({ file: 'all', ...all, equivalent: sum('equivalent') });
  const lines = [
    '| file | mutants | killed | of them hung | survived | equivalent | killed % |',
    '|---|---|---|---|---|---|---|',
  ];
  let share = 0;
  for (const { file, killed, timeout, survived, equivalent } of rows) {
    const dead = killed + timeout;
    share = dead + survived === 0 ? 0 : dead / (dead + survived);
    const counts = [dead + survived + equivalent, dead, timeout, survived, equivalent, (share * 100).toFixed(1)];
    lines.push(`| ${file} | ${counts.join(' | ')} |`);
  }
  return { table: lines.join('\n'), share };
}

const pageOf = (
  table: string,
  survivors: readonly string[],
  share: number,
  slice: string,
): string => `# Mutation of the failsafe

Written by \`npm run mutate -- --record\`. One small fault after another is put into the failsafe's source: comparisons
shifted and turned round, constants one up and one down, conditions dropped, statements removed. The tests of the file
must notice. A mutant that survives and is equivalent (nothing could tell it from the original) is listed with the reason
and counts neither as killed nor as survived.

${machine()}, ${toIso(systemClock.epochMs()).slice(0, 10)}. Share of the mutants that was run: ${slice}. Goal: ${100 * KILLED_MIN} % killed; reached: **${(100 * share).toFixed(1)} %**.

${table}

## Not killed

\`\`\`
${[...survivors].sort().join('\n')}
\`\`\`
`;

process.exitCode = await main();
