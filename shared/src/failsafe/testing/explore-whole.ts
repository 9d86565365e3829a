import { fork } from 'node:child_process';
import { type Exploration, exploreSet, isLarge, kindSets, kindTriples } from './explore.ts';
import { REAL_SYSTEM } from './system.ts';

const NEVER_STALE_MS = 1_000_000;
/** What every test run leaves out: all threes, and the large pairs. */
const SETS = [...kindTriples(), ...kindSets().filter(isLarge)];

/**
 * Explores the sets of kinds that are too large for every test run, each in one of `jobs` processes.
 *
 * @param tell Called with a line for each set that is done.
 */
export async function exploreWhole(jobs: number, tell: (line: string) => void): Promise<Exploration> {
  const sum = { states: 0, transitions: 0, cases: 0, faults: [] as string[] };
  const waiting = SETS.keys();
  let done = 0;
  const worker = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const child = fork(import.meta.filename, ['--worker'], { execArgv: ['--max-old-space-size=4000'] });
      let index: number | undefined;
      const next = (): void => {
        index = waiting.next().value;
        if (index === undefined) child.disconnect();
        else child.send(index);
      };
      child.on('message', (found: Exploration) => {
        const names = (SETS[index ?? 0] ?? []).map((rule) => rule.cause).join(' + ');
        done += 1;
        sum.states += found.states;
        sum.transitions += found.transitions;
        sum.cases += found.cases;
        sum.faults.push(...found.faults.map((fault) => `${names}: ${fault}`));
        tell(`${done} of ${SETS.length}: ${names}: ${found.states} states, ${found.transitions} transitions`);
        next();
      });
      child.on('error', reject);
      child.on('exit', (code) => {
        if (index === undefined && code === 0) resolve();
        else reject(new Error(`the exploration of set ${index} ended with code ${code}`));
      });
      next();
    });
  await Promise.all(Array.from({ length: jobs }, worker));
  tell(`${done} sets, ${sum.states} states, ${sum.transitions} transitions, ${sum.faults.length} faults`);
  return sum;
}

if (process.argv[1] === import.meta.filename && process.argv[2] === '--worker')
  process.on('message', (index: number) => {
    process.send?.(exploreSet(REAL_SYSTEM, SETS[index] ?? [], NEVER_STALE_MS));
  });
