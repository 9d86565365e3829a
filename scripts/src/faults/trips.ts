import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@outrider/shared/time';
import { type Campaign, histogram, must, quantiles, runTrials } from './campaign.ts';
import { Load } from './load.ts';
import { McuRig, noFirmware } from './mcu-rig.ts';
import { Random } from './random.ts';

/** Without real-time scheduling on a loaded machine; with it the goal is 100 ms. */
const STOPPED_MS_MAX = 400;
const SECONDS_PER_TRIAL_MAX = 30;
const EDGES_MS = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 400];

/** What is done to the simulated robot, how it is undone, and the causes under which the guard may know it. */
const TRIPS = [
  { line: 'estop on', undo: 'estop off', causes: ['estop'] },
  { line: 'nan 2', undo: 'clear', causes: ['mechanical_lock'] },
  { line: 'nan 17', undo: 'clear', causes: ['mechanical_lock'] },
  { line: 'reset', undo: '', causes: ['mcu_fault'] },
] as const;

interface Times {
  /** From the reception of the deciding sample to the MCU's stop. [ms] */
  readonly decided: number[];
  /** From the fault being made to the MCU's stop, with the wait for samples and the debounce. [ms] */
  readonly whole: number[];
}

async function trip(rig: McuRig, seed: number, times: Times): Promise<void> {
  const random = new Random(seed);
  const { line, undo, causes } = random.pick(TRIPS);
  await rig.recover();
  await sleep(random.int(0, 40));
  const seen = rig.changes.length;
  const told = rig.transitions.length;
  const madeUs = systemClock.monotonicMs() * 1000;
  rig.control(line);
  const stopped = await rig.until(`a stop after ${line}`, () => rig.changes.slice(seen).find(({ motion }) => !motion));
  const transition = await rig.until(`the report of ${line}`, () =>
    rig.transitions.slice(told).find(({ toPhase }) => toPhase === 'LATCHED'),
  );
  const known = (transition.causes ?? []).map(({ cause }) => cause ?? '');
  must(
    causes.some((cause) => known.includes(cause)),
    `${line} was taken for ${known.join(', ')}: a nuisance stop`,
  );
  const wholeMs = (stopped.mono_us - madeUs) / 1000;
  times.whole.push(wholeMs);
  const { atMonoMs = 0, decisionLatencyMs = 0 } = transition;
  // The MCU's own stop (emergency stop, reset) comes before the guard's.
  const isOwnStop = line.startsWith('estop') || line === 'reset';
  const decidedMs = isOwnStop
    ? (decisionLatencyMs ?? 0)
    : stopped.mono_us / 1000 - (atMonoMs ?? 0) + (decisionLatencyMs ?? 0);
  times.decided.push(decidedMs);
  if (undo) rig.control(undo);
  must(wholeMs <= STOPPED_MS_MAX, `${line}: stopped after ${wholeMs.toFixed(1)} ms`);
}

function campaign(scheduling: 'fifo' | 'other'): Campaign {
  const isFifo = scheduling === 'fifo';
  const itself: Campaign = {
    id: isFifo ? 'C2a' : 'C2b',
    title: `sample to MCU stopped, random cause, under SQLite, MQTT and CPU load, ${isFifo ? 'with' : 'without'} SCHED_FIFO`,
    counts: { full: 200, short: 10 },
    skip: noFirmware || (isFifo && process.getuid?.() !== 0 ? 'SCHED_FIFO needs root' : false),
    async run(plan) {
      const load = Load.start(SECONDS_PER_TRIAL_MAX * plan.count);
      const rig = await McuRig.start(scheduling);
      try {
        const times: Times = { decided: [], whole: [] };
        const done = await runTrials(plan, (seed) => trip(rig, seed, times));
        return {
          ...done,
          figures: `deciding sample received → stopped: ${quantiles(times.decided)}; fault made → stopped: ${quantiles(times.whole)}`,
          detail: `${histogram('deciding sample received → stopped', times.decided, EDGES_MS)}\n\n${histogram('fault made → stopped', times.whole, EDGES_MS)}`,
        };
      } finally {
        await rig.close();
        await load.stop();
      }
    },
  };
  return itself;
}

export const tripsFifo = campaign('fifo');
export const tripsOther = campaign('other');
