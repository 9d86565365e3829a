import { setTimeout as sleep } from 'node:timers/promises';
import type { FailsafeMode } from '@outrider/shared/failsafe/modes';
import { newId } from '@outrider/shared/ids';
import { systemClock } from '@outrider/shared/time';
import { must } from './campaign.ts';
import { type StopParts, unscheduledMs, whyLate } from './guard-turns.ts';
import { MCU_JOINTS, type McuChange, type McuRig } from './mcu-rig.ts';
import { Random } from './random.ts';
import type { BodyFault } from './robot-body.ts';

/** From the sample that decides. Without real-time scheduling on a loaded machine; with it the goal is 100 ms. */
const STOPPED_MS_MAX = 400;
/** What is only known by silence is known so much after the last word. */
const SILENCE_MS = 200;
const ARM_JOINTS = 6;

interface Mischief {
  readonly name: string;
  /** The causes under which the guard may know it. */
  readonly causes: readonly string[];
  /** A line for the simulated robot, or what is done to the agent's own sensors. */
  readonly line?: string;
  readonly make?: (rig: McuRig) => void;
  /** The MCU stops by itself, so that nothing can be said about the guard's time. */
  readonly isMcusOwn?: boolean;
  /** Known by silence: its time begins with the last word. */
  readonly isSilence?: boolean;
}

/** What one trip has measured. */
export interface TripTimes {
  readonly name: string;
  /** From the reception of the deciding sample to the MCU's stop. [ms] */
  readonly decidedMs?: number;
  /** From the fault being made to the MCU's stop, with the wait for samples and the debounce. [ms] */
  readonly wholeMs?: number;
  readonly parts?: StopParts;
  /** It stopped for the load before the fault was seen: these causes. */
  readonly nuisance?: string;
}

const REQUESTS: readonly (readonly [FailsafeMode, string])[] = [
  ['emergency_stop', 'estop'],
  ['mechanical_lock', 'mechanical_lock'],
  ['thermal_shutdown', 'thermal_shutdown'],
  ['geofence_lock', 'geofence_lock'],
];

const sign = (random: Random): number => random.pick([-1, 1]);

/** Something that the microcontroller's own sensors show, and that must stop the robot. */
function drawOfMcu(random: Random): Mischief {
  const joint = random.pick(MCU_JOINTS);
  const show = (what: string, value: number): string => `show ${what} ${value} ${joint}`;
  const lock = ['mechanical_lock'];
  return random.pick<Mischief>([
    // The firmware stops by itself on its button; whether the guard sees the stop or the button first is open.
    { name: 'button of the MCU', line: 'estop on', causes: ['estop', 'mcu_fault'], isMcusOwn: true },
    { name: 'silent MCU', line: 'silent', causes: ['mcu_silent', 'source_stale'], isSilence: true },
    { name: 'NaN as a position', line: `nan ${joint}`, causes: lock },
    { name: 'past its limit, and a jump', line: show('position', sign(random) * (3 + random.next())), causes: lock },
    { name: 'joint too fast', line: show('velocity', sign(random) * (6.1 + 20 * random.next())), causes: lock },
    { name: 'infinite speed', line: show('velocity', Number.POSITIVE_INFINITY), causes: lock },
    { name: 'torque', line: show('torque', sign(random) * (61 + 100 * random.next())), causes: lock },
    { name: 'motor too hot', line: show('motor', 86 + 8 * random.next()), causes: ['thermal_shutdown'] },
    { name: 'motor on fire', line: show('motor', 96 + 50 * random.next()), causes: ['thermal_shutdown'] },
    { name: 'broken thermometer', line: show('motor', Number.NaN), causes: ['thermal_shutdown'] },
    { name: 'tilt', line: `show roll ${sign(random) * (0.85 + 2 * random.next())}`, causes: ['tilt'] },
    { name: 'empty battery', line: `show charge ${0.04 * random.next()}`, causes: ['battery_critical'] },
  ]);
}

/** The same where the agent has the sensors, or is asked to stop. */
function drawOfAgent(random: Random): Mischief {
  const joint = random.int(0, ARM_JOINTS - 1);
  const arm = (name: string, cause: string, fault: Omit<BodyFault, 'joint'>): Mischief => ({
    name,
    causes: [cause],
    make: (rig) => {
      rig.body.fault = { joint, ...fault };
    },
  });
  const [mode, cause] = random.pick(REQUESTS);
  return random.pick<Mischief>([
    arm('joint past its limit', 'mechanical_lock', { positionRad: random.pick([2.02, 2.08]) }),
    arm('joint too fast', 'mechanical_lock', { velocityRadps: sign(random) * (3.1 + 5 * random.next()) }),
    arm('torque', 'mechanical_lock', { effortNm: sign(random) * (41 + 100 * random.next()) }),
    arm('encoder jump', 'mechanical_lock', { positionRad: -1.9 }),
    arm('NaN as a position', 'mechanical_lock', { positionRad: Number.NaN }),
    arm('motor too hot', 'thermal_shutdown', { temperatureC: 86 + 8 * random.next() }),
    arm('motor on fire', 'thermal_shutdown', { temperatureC: 96 + 50 * random.next() }),
    arm('tilt', 'tilt', { rollRad: sign(random) * (0.85 + 2 * random.next()) }),
    arm('empty battery', 'battery_critical', { charge: 0.04 * random.next() }),
    { ...arm('silent arm', 'source_stale', { isSilent: true }), isSilence: true },
    { name: 'request', causes: [cause], make: (rig) => void trigger(rig, mode).catch(() => undefined) },
  ]);
}

const trigger = (rig: McuRig, mode: FailsafeMode): Promise<unknown> =>
  rig.link.trigger({
    commandId: newId('cmd'),
    mode,
    reason: 'a trial',
    requestedBy: 'faults',
    traceId: '',
    local: false,
  });

/** A trip by what the microcontroller's sensors show. @throws when it is not as it must be. */
export const tripOfMcu = (rig: McuRig, seed: number): Promise<TripTimes> => trip(rig, seed, drawOfMcu);
/** A trip by what the agent says. @throws when it is not as it must be. */
export const tripOfAgent = (rig: McuRig, seed: number): Promise<TripTimes> => trip(rig, seed, drawOfAgent);

/** Makes a moving robot unwell and takes the time until it is stopped. */
async function trip(rig: McuRig, seed: number, draw: (random: Random) => Mischief): Promise<TripTimes> {
  const random = new Random(seed);
  const mischief = draw(random);
  const { name, causes, line, isSilence = false } = mischief;
  await rig.recover();
  await sleep(random.int(0, 40));
  // What the load has stopped meanwhile is let go again: another campaign counts these, here a moving robot is wanted.
  while (rig.lastChange?.motion !== true) await rig.recover();
  const seen = rig.changes.length;
  const told = rig.transitions.length;
  const fromMs = systemClock.monotonicMs();
  let madeUs = systemClock.monotonicMs() * 1000;
  mischief.make?.(rig);
  try {
    if (line !== undefined) madeUs = await rig.control(line);
    const stopped = await rig.until(`a stop after ${name}`, () =>
      rig.changes.slice(seen).find(({ motion }) => !motion),
    );
    const transition = await rig.until(`the report of ${name}`, () =>
      rig.transitions.slice(told).find(({ toPhase }) => toPhase === 'LATCHED'),
    );
    const known = (transition.causes ?? []).map(({ cause }) => cause ?? '');
    if (!causes.some((cause) => known.includes(cause))) return { name, nuisance: known.join('+') };
    const wholeMs = (stopped.mono_us - madeUs) / 1000;
    const sinceDecisionMs = stopped.mono_us / 1000 - (transition.atMonoMs ?? 0) + (transition.decisionLatencyMs ?? 0);
    // A guard that is put aside between its stop and its own stopwatch counts that pause twice; no sample is older than
    // the fault that it shows.
    const decidedMs = Math.min(sinceDecisionMs, wholeMs);
    const parts = await partsOf(rig, fromMs, madeUs / 1000, stopped);
    const times = { name, wholeMs, parts, ...(!mischief.isMcusOwn && !isSilence && { decidedMs }) };
    const allowedMs = STOPPED_MS_MAX + (isSilence ? SILENCE_MS : wholeMs - decidedMs);
    must(
      wholeMs <= allowedMs,
      `${name}: stopped ${wholeMs.toFixed(1)} ms after the fault; ${whyLate(parts, allowedMs)}`,
    );
    return times;
  } finally {
    await rig.control('clear');
    rig.body.fault = undefined;
  }
}

/** Tells a guard that decided late from one that was not scheduled. */
async function partsOf(rig: McuRig, fromMs: number, madeMs: number, stopped: McuChange): Promise<StopParts> {
  const note = await rig.until('the word of the stop', () => rig.stops.find(({ atMs }) => atMs >= fromMs));
  return {
    guardMs: note.atMs - madeMs,
    unscheduledMs: unscheduledMs(note.turns, madeMs, note.atMs),
    isByLease: stopped.reason === 'lease_expired',
  };
}
