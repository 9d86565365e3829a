import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@outrider/shared/time';
import { type Campaign, histogram, must, quantiles, runTrials } from './campaign.ts';
import { Load } from './load.ts';
import { canSchedule, McuRig, noFirmware } from './mcu-rig.ts';
import { Random } from './random.ts';

/** Without real-time scheduling on a loaded machine; with it the goal is 100 ms. */
const STOPPED_MS_MAX = 400;
const SECONDS_PER_TRIAL_MAX = 30;
const EDGES_MS = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 400];

const JOINTS = 12;

/** What is done to the simulated robot, how it is undone, and the causes under which the guard may know it. */
function drawTrip(random: Random): { line: string; undo: string; causes: readonly string[] } {
  // The firmware stops by itself on its button; whether the guard sees the stop or the button first is open.
  if (random.chance(0.15)) return { line: 'estop on', undo: 'estop off', causes: ['estop', 'mcu_fault'] };
  return { line: `nan ${random.int(0, JOINTS - 1)}`, undo: 'clear', causes: ['mechanical_lock'] };
}

interface Times {
  /** From the reception of the deciding sample to the MCU's stop. [ms] */
  readonly decided: number[];
  /** From the fault being made to the MCU's stop, with the wait for samples and the debounce. [ms] */
  readonly whole: number[];
  /** Causes of stops that the load alone made. */
  readonly nuisances: string[];
}

async function trip(rig: McuRig, seed: number, times: Times): Promise<void> {
  const random = new Random(seed);
  const { line, undo, causes } = drawTrip(random);
  await rig.recover();
  await sleep(random.int(0, 40));
  const seen = rig.changes.length;
  const told = rig.transitions.length;
  const madeUs = systemClock.monotonicMs() * 1000;
  rig.control(line);
  try {
    const stopped = await rig.until(`a stop after ${line}`, () =>
      rig.changes.slice(seen).find(({ motion }) => !motion),
    );
    const transition = await rig.until(`the report of ${line}`, () =>
      rig.transitions.slice(told).find(({ toPhase }) => toPhase === 'LATCHED'),
    );
    const known = (transition.causes ?? []).map(({ cause }) => cause ?? '');
    // Stopped for the load before the fault was seen: a stop that C1 counts against the guard, but no time of this.
    if (!causes.some((cause) => known.includes(cause))) {
      times.nuisances.push(known.join('+'));
      return;
    }
    const wholeMs = (stopped.mono_us - madeUs) / 1000;
    times.whole.push(wholeMs);
    const { atMonoMs, decisionLatencyMs } = transition;
    // On its own button the MCU has stopped before the guard.
    if (line.startsWith('nan')) times.decided.push(stopped.mono_us / 1000 - (atMonoMs ?? 0) + (decisionLatencyMs ?? 0));
    must(wholeMs <= STOPPED_MS_MAX, `${line}: stopped after ${wholeMs.toFixed(1)} ms`);
  } finally {
    rig.control(undo);
  }
}

function campaign(scheduling: 'fifo' | 'other'): Campaign {
  const isFifo = scheduling === 'fifo';
  const itself: Campaign = {
    id: isFifo ? 'C2a' : 'C2b',
    title: `sample to MCU stopped, random cause, under SQLite, MQTT and CPU load, ${isFifo ? 'with' : 'without'} SCHED_FIFO`,
    counts: { full: 200, short: 10 },
    skip: noFirmware || (isFifo && !canSchedule ? 'this user may not use SCHED_FIFO' : false),
    async run(plan) {
      const load = Load.start(SECONDS_PER_TRIAL_MAX * plan.count);
      const rig = await McuRig.start(scheduling);
      try {
        const times: Times = { decided: [], whole: [], nuisances: [] };
        const done = await runTrials(plan, (seed) => trip(rig, seed, times));
        return {
          ...done,
          figures: `deciding sample received → stopped: ${quantiles(times.decided)}; fault made → stopped: ${quantiles(times.whole)}; stopped for the load instead: ${times.nuisances.length}`,
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
