import { readFileSync } from 'node:fs';

/** A span between two heartbeats of a guard. CLOCK_MONOTONIC. [ms] */
export interface Turn {
  readonly fromMs: number;
  readonly toMs: number;
  /** How much of it the guard wanted to run and got no processor, by the kernel's own count. */
  readonly waitedMs: number;
}

/** What a guard's process tells when it writes a stop. */
export interface StopNote {
  readonly probe: 'stop';
  readonly atMs: number;
  readonly turns: readonly Turn[];
}

/** How long this process's main thread has waited for a processor since it began. [ms] */
export function waitedMs(): number {
  const [, waitedNs] = readFileSync('/proc/self/schedstat', 'utf8').split(' ');
  return Number(waitedNs) / 1e6;
}

/** How much of a time a guard was not scheduled. Where in a turn it waited is not known: at most all that is shared. [ms] */
export function unscheduledMs(turns: readonly Turn[], fromMs: number, toMs: number): number {
  const shared = turns.map((turn) =>
    Math.min(turn.waitedMs, Math.min(turn.toMs, toMs) - Math.max(turn.fromMs, fromMs)),
  );
  return shared.reduce((sum, ms) => sum + Math.max(0, ms), 0);
}

/** Where the time of a stop went. */
export interface StopParts {
  /** From the fault to the guard's writing of its stop. [ms] */
  readonly guardMs: number;
  /** How much of that the guard wanted to run and was not scheduled. [ms] */
  readonly unscheduledMs: number;
  /** The MCU stopped by its lease, before the guard's stop came. */
  readonly isByLease: boolean;
}

/** Who made a stop late that had `limitMs` from the fault: the guard, the machine that did not let it, or the line. */
export function whyLate({ guardMs, unscheduledMs, isByLease }: StopParts, limitMs: number): string {
  const own = guardMs - unscheduledMs > limitMs;
  const culprit = own
    ? 'the guard decided late'
    : guardMs > limitMs
      ? 'the guard was not scheduled'
      : 'the line was late';
  const lease = isByLease ? '; the MCU stopped by its lease' : '';
  const [wholeMs, waitedMs] = [guardMs.toFixed(1), unscheduledMs.toFixed(1)];
  return `${culprit}: its stop was written after ${wholeMs} ms, ${waitedMs} ms of which it waited for a processor${lease}`;
}
