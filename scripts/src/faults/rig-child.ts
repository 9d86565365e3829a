import { fileURLToPath } from 'node:url';
import { type DeathTimes, die } from './death.ts';
import { McuRig } from './mcu-rig.ts';
import { type TripTimes, tripOfAgent, tripOfMcu } from './trip.ts';

const SICK_CLOCK = fileURLToPath(new URL('./sick-clock.js', import.meta.url));

/** What is done on a rig, by name. */
const TRIALS = { trip: tripOfMcu, 'agent-trip': tripOfAgent, 'clock-trip': tripOfMcu, death: die } as const;
export type TrialName = keyof typeof TRIALS;
export type TrialData = TripTimes | DeathTimes;
export type RigScheduling = 'fifo' | 'other' | 'auto';

/** What a rig's process says after each trial, and once when its rig stands: then with the seed -1. */
export interface RigReply {
  readonly seed: number;
  readonly data?: TrialData;
  readonly what?: string;
}

const [, , name = '', scheduling = 'auto'] = process.argv;
const trial = TRIALS[name as TrialName];
const reply = (message: RigReply): void => void process.send?.(message);
const preloads: readonly string[] = name === 'clock-trip' ? [SICK_CLOCK] : [];
if (preloads.length > 0) await import(SICK_CLOCK);
const start = (): Promise<McuRig> => McuRig.start(scheduling as RigScheduling, preloads);
let rig = await start();
let last = Promise.resolve();

process.on('message', (seed: number) => {
  last = last.then(() => run(seed));
});
process.on('disconnect', () => void close());
reply({ seed: -1 });

async function run(seed: number): Promise<void> {
  try {
    reply({ seed, data: await trial(rig, seed) });
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    // What one trial has broken must not fail the next.
    await rig.close();
    rig = await start();
    reply({ seed, what });
  }
}

async function close(): Promise<void> {
  await last.catch(() => undefined);
  await rig.close();
  process.exit(0);
}
