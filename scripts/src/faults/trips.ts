import { quantile } from '../bench/measure.ts';
import { type Campaign, histogram, quantiles } from './campaign.ts';
import { Load } from './load.ts';
import { canSchedule, noFirmware } from './mcu-rig.ts';
import { RigPool } from './rig-pool.ts';
import type { TripTimes } from './trip.ts';

const RIGS = 4;
const EDGES_MS = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 400];
/** What is aimed at with real-time scheduling. */
const GOAL = { p999Ms: 20, maxMs: 100 } as const;
/** What must never be exceeded without it. */
const MAX_MS = 400;

interface Kind {
  readonly id: string;
  readonly title: string;
  readonly trial: 'trip' | 'agent-trip';
  readonly scheduling: 'fifo' | 'other';
  readonly full: number;
}

function campaign({ id, title, trial, scheduling, full }: Kind): Campaign {
  const isFifo = scheduling === 'fifo';
  return {
    id,
    title: `${title}, under SQLite, MQTT and CPU load, guard ${isFifo ? 'with' : 'without'} SCHED_FIFO`,
    counts: { full, short: 12 },
    skip: noFirmware || (isFifo && !canSchedule ? 'this user may not use SCHED_FIFO' : false),
    async run(plan) {
      const load = Load.start();
      const times: TripTimes[] = [];
      try {
        const pool = new RigPool<TripTimes>(trial, scheduling, plan);
        const done = await pool.run(RIGS, (data) => times.push(data));
        const decided = times.flatMap(({ decidedMs }) => decidedMs ?? []);
        const whole = times.flatMap(({ wholeMs }) => wholeMs ?? []);
        const nuisances = times.flatMap(({ nuisance }) => nuisance ?? []);
        const parts = times.flatMap(({ parts }) => parts ?? []);
        const at = (share: number): number => (decided.length === 0 ? 0 : quantile(decided, share));
        const hasGoal = isFifo && trial === 'trip';
        const isMet = at(1) <= (hasGoal ? GOAL.maxMs : MAX_MS) && (!hasGoal || at(0.999) <= GOAL.p999Ms);
        const goal = hasGoal ? `p99.9 ≤ ${GOAL.p999Ms} ms and max ≤ ${GOAL.maxMs} ms` : `max ≤ ${MAX_MS} ms`;
        return {
          ...done,
          figures:
            `deciding sample received → stopped: ${quantiles(decided)} (${decided.length} trips; goal ${goal}: ${isMet ? 'met' : '**missed**'}); ` +
            `fault made → stopped, with debounce and silence: ${quantiles(whole)} (${whole.length}, ${whole.filter((ms) => ms > MAX_MS).length} over ${MAX_MS} ms); ` +
            `the guard waited for a processor meanwhile: ${quantiles(parts.map(({ unscheduledMs }) => unscheduledMs))}; ` +
            `stopped by the MCU's own lease: ${parts.filter(({ isByLease }) => isByLease).length}; ` +
            `stopped for the load instead: ${countsOf(nuisances)}`,
          detail: [
            `${RIGS} robots at once. ${Load.words}`,
            histogram('deciding sample received → stopped', decided, EDGES_MS),
            histogram('fault made → stopped', whole, EDGES_MS),
            byName(times),
          ].join('\n\n'),
        };
      } finally {
        await load.stop();
      }
    },
  };
}

/** "deciding sample received → stopped: …; fault made → stopped: …" */
export function tripFigures(times: readonly TripTimes[]): string {
  const decided = times.flatMap(({ decidedMs }) => decidedMs ?? []);
  const whole = times.flatMap(({ wholeMs }) => wholeMs ?? []);
  return `deciding sample received → stopped: ${quantiles(decided)}; fault made → stopped: ${quantiles(whole)}`;
}

/** "3 (source_stale 2, agent_stuck 1)" */
export function countsOf(words: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts.size === 0
    ? '0'
    : `${words.length} (${[...counts].map(([word, count]) => `${word} ${count}`).join(', ')})`;
}

function byName(times: readonly TripTimes[]): string {
  const names = [...new Set(times.map(({ name }) => name))].sort();
  const rows = names.map((name) => {
    const own = times.filter((time) => time.name === name && time.nuisance === undefined);
    const decided = own.flatMap(({ decidedMs }) => decidedMs ?? []);
    const whole = own.flatMap(({ wholeMs }) => wholeMs ?? []);
    return `| ${name} | ${own.length} | ${decided.length > 0 ? quantiles(decided) : '–'} | ${quantiles(whole)} |`;
  });
  return ['| fault | trips | deciding sample → stopped | fault made → stopped |', '|---|---|---|---|', ...rows].join(
    '\n',
  );
}

const OF_MCU = { title: 'a sensor of the MCU to MCU stopped, random cause', trial: 'trip', full: 10_000 } as const;

export const TRIPS: readonly Campaign[] = [
  campaign({ ...OF_MCU, id: 'C2a', scheduling: 'fifo' }),
  campaign({ ...OF_MCU, id: 'C2b', scheduling: 'other' }),
  campaign({
    id: 'C2c',
    title: 'a sensor or request of the agent, which is never in real time, to MCU stopped',
    trial: 'agent-trip',
    scheduling: 'fifo',
    full: 2000,
  }),
];
