import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@outrider/shared/time';
import { type Campaign, histogram, must, quantiles, runTrials } from './campaign.ts';
import { Load } from './load.ts';
import { McuRig, noFirmware } from './mcu-rig.ts';
import { Random } from './random.ts';

const STOPPED_MS_MAX = 400;
const DEATHS = ['kill', 'stop', 'stuck', 'port'] as const;
type Death = (typeof DEATHS)[number];
const SIGNALS = { kill: 'SIGKILL', stop: 'SIGSTOP', stuck: 'SIGUSR2', port: 'SIGWINCH' } as const;
const EDGES_MS = [50, 100, 150, 200, 250, 280, 300, 320, 340, 360, 380, 400, 450, 500];
/** Of motion under load in which nothing may stop. */
const QUIET_S = { full: 120, short: 10 } as const;
const SECONDS_PER_TRIAL_MAX = 30;

const isMoving = (rig: McuRig): boolean => rig.lastChange?.motion === true;

/** Lets the guard die in one way and returns how long the MCU took to stop. [ms] */
async function die(rig: McuRig, death: Death, random: Random): Promise<number> {
  await rig.recover();
  // At any phase of the heartbeat's 20 ms.
  await sleep(random.int(0, 60));
  must(isMoving(rig), `a nuisance stop before the death: ${JSON.stringify(rig.lastChange)}`);
  const seen = rig.changes.length;
  if (death === 'port') rig.hideLine(true);
  const diedUs = systemClock.monotonicMs() * 1000;
  rig.guard.kill(SIGNALS[death]);
  const stopped = await rig.until(`the MCU to stop after ${death}`, () => {
    const change = rig.changes.slice(seen).find(({ motion }) => !motion);
    return change ?? false;
  });
  await sleep(50);
  must(!isMoving(rig), 'it moves again by itself');
  await rig.endGuard();
  if (death === 'port') rig.hideLine(false);
  rig.startGuard();
  await rig.untilStatus(
    'the guard again',
    ({ guardPid, mcuState }) => guardPid === rig.guard.pid && mcuState === 'STOPPED',
  );
  must(!isMoving(rig), 'it moves after a restart, without a recovery');
  return (stopped.mono_us - diedUs) / 1000;
}

async function quietPhase(rig: McuRig, seconds: number, signal: AbortSignal): Promise<string> {
  await rig.recover();
  const seen = rig.changes.length;
  const endMs = systemClock.monotonicMs() + 1000 * seconds;
  while (systemClock.monotonicMs() < endMs && !signal.aborted) await sleep(100);
  const stops = rig.changes.slice(seen).filter(({ motion }) => !motion);
  must(
    stops.length === 0,
    `nuisance stops in ${seconds} s of load: ${JSON.stringify(stops)} ${JSON.stringify(rig.link.status()?.causes)}`,
  );
  return `${seconds} s of motion under load without a stop`;
}

export const hostDeaths: Campaign = {
  id: 'C1',
  title: 'guard killed, frozen, its counter stuck, its port closed, on the real firmware, every core busy',
  counts: { full: 120, short: 8 },
  skip: noFirmware,
  async run(plan) {
    const isShort = plan.count <= hostDeaths.counts.short;
    const quietS = isShort ? QUIET_S.short : QUIET_S.full;
    const load = Load.start(quietS + SECONDS_PER_TRIAL_MAX * plan.count);
    const rig = await McuRig.start('auto');
    try {
      const times = new Map<Death, number[]>(DEATHS.map((death) => [death, []]));
      let quiet = '';
      const done = await runTrials(plan, async (seed) => {
        const random = new Random(seed);
        const death = DEATHS[seed % DEATHS.length] as Death;
        const ms = await die(rig, death, random);
        times.get(death)?.push(ms);
        must(ms <= STOPPED_MS_MAX, `${death}: the MCU stopped after ${ms.toFixed(1)} ms, more than ${STOPPED_MS_MAX}`);
      });
      const afterwards = await runTrials({ ...plan, count: 1 }, async () => {
        quiet = await quietPhase(rig, quietS, plan.signal);
      });
      const all = [...times.values()].flat();
      const each = [...times].map(([death, ms]) => `${death} ${ms.length} (max ${Math.max(0, ...ms).toFixed(0)})`);
      return {
        count: done.count,
        failures: [...done.failures, ...afterwards.failures],
        figures: `death → MCU stopped: ${quantiles(all)}; ${each.join(', ')}; ${quiet}`,
        detail: histogram('death → stopped', all, EDGES_MS),
      };
    } finally {
      await rig.close();
      await load.stop();
    }
  },
};
