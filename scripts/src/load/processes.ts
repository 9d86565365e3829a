import { readdirSync, readFileSync } from 'node:fs';

/** What the kernel counts CPU time in, on every Linux that Node runs on. [ms] */
const TICK_MS = 10;

interface Stat {
  readonly parent: number;
  readonly ownMs: number;
  readonly reapedMs: number;
}

function statOf(pid: number | string): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in parentheses may hold anything.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const at = (index: number): number => Number(fields[index - 3]);
    return { parent: at(4), ownMs: (at(14) + at(15)) * TICK_MS, reapedMs: (at(16) + at(17)) * TICK_MS };
  } catch {
    return undefined;
  }
}

/** CPU time that a process has used, all its threads together. [ms] */
export const cpuMsOf = (pid: number): number => statOf(pid)?.ownMs ?? 0;

/** The same of a process, its children that live, and those that it has seen end: PostgreSQL is one process a client. */
export function familyCpuMsOf(pid: number): number {
  const own = statOf(pid);
  let totalMs = own ? own.ownMs + own.reapedMs : 0;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = statOf(name);
    if (stat?.parent === pid) totalMs += stat.ownMs;
  }
  return totalMs;
}

/** Memory of a process that is in RAM. [MB] */
export function residentMbOf(pid: number): number {
  try {
    const match = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    return Number(match?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

/** CPU time that the whole machine has used, and could have. [ms] */
export function machineCpuMs(): { busyMs: number; allMs: number } {
  const [, ...fields] = (readFileSync('/proc/stat', 'latin1').split('\n')[0] ?? '').split(/ +/).map(Number);
  const allMs = fields.slice(0, 8).reduce((sum, ticks) => sum + ticks, 0) * TICK_MS;
  return { busyMs: allMs - ((fields[3] ?? 0) + (fields[4] ?? 0)) * TICK_MS, allMs };
}
