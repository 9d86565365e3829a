import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@outrider/shared/time';
import { must } from './campaign.ts';
import type { McuRig } from './mcu-rig.ts';
import { Random } from './random.ts';

const DEATH_STOPPED_MS_MAX = 400;
export const DEATHS = ['kill', 'stop', 'stuck', 'port'] as const;
type Death = (typeof DEATHS)[number];
const SIGNALS = { kill: 'SIGKILL', stop: 'SIGSTOP', stuck: 'SIGUSR2', port: 'SIGWINCH' } as const;

/** What one death has measured. */
export interface DeathTimes {
  readonly death: Death;
  readonly ms: number;
  /** What the load had stopped before the death. */
  readonly nuisance?: string;
}

const isMoving = (rig: McuRig): boolean => rig.lastChange?.motion === true;

/** Lets the guard of a moving robot die in one way. @throws when the MCU does not stop in time, or moves again by itself. */
export async function die(rig: McuRig, seed: number): Promise<DeathTimes> {
  const random = new Random(seed);
  const death = DEATHS[seed % DEATHS.length] as Death;
  await rig.recover();
  // At any phase of the heartbeat's 20 ms.
  await sleep(random.int(0, 60));
  let nuisance: string | undefined;
  while (!isMoving(rig)) {
    nuisance =
      rig.link
        .status()
        ?.causes?.map(({ cause }) => cause)
        .join('+') ?? '?';
    await rig.recover();
  }
  const seen = rig.changes.length;
  if (death === 'port') rig.hideLine(true);
  const diedUs = systemClock.monotonicMs() * 1000;
  rig.guard.kill(SIGNALS[death]);
  const stopped = await rig.until(`the MCU to stop after ${death}`, () =>
    rig.changes.slice(seen).find(({ motion }) => !motion),
  );
  await sleep(50);
  if (death === 'stop' && random.chance(0.5)) {
    // A computer that slept: the guard goes on as if nothing had been.
    rig.guard.kill('SIGCONT');
    await sleep(random.int(50, 400));
  }
  must(!isMoving(rig), 'it moves again by itself');
  await rig.endGuard();
  if (death === 'port') rig.hideLine(false);
  rig.startGuard();
  await rig.untilStatus(
    'the guard again',
    ({ guardPid, mcuState }) => guardPid === rig.guard.pid && mcuState === 'STOPPED',
  );
  must(!isMoving(rig), 'it moves after a restart, without a recovery');
  const ms = (stopped.mono_us - diedUs) / 1000;
  must(ms <= DEATH_STOPPED_MS_MAX, `${death}: the MCU stopped after ${ms.toFixed(1)} ms`);
  return { death, ms, ...(nuisance !== undefined && { nuisance }) };
}
