import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@outrider/shared/time';
import { type Campaign, histogram, must, quantiles, runTrials } from './campaign.ts';
import { DEATHS, type DeathTimes } from './death.ts';
import { Load } from './load.ts';
import { canSchedule, McuRig, noFirmware } from './mcu-rig.ts';
import { RigPool } from './rig-pool.ts';

const EDGES_MS = [50, 100, 150, 200, 250, 280, 300, 320, 340, 360, 380, 400, 450, 500];
const RIGS = 3;
const QUIET_S_PER_TRIAL = 60;
const scheduling = canSchedule ? 'SCHED_FIFO' : 'ordinary scheduling';

export const hostDeaths: Campaign = {
  id: 'C1a',
  title: 'guard killed, frozen, its counter stuck, its port closed, on the real firmware, every core busy',
  counts: { full: 1200, short: 8 },
  skip: noFirmware,
  async run(plan) {
    const load = Load.start();
    const times: DeathTimes[] = [];
    try {
      const pool = new RigPool<DeathTimes>('death', 'auto', plan);
      const done = await pool.run(RIGS, (data) => times.push(data));
      const all = times.map(({ ms }) => ms);
      const each = DEATHS.map((death) => {
        const own = times.filter((time) => time.death === death).map(({ ms }) => ms);
        return `${death} ${own.length} (max ${Math.max(0, ...own).toFixed(0)})`;
      });
      const nuisances = times.filter(({ nuisance }) => nuisance !== undefined).length;
      return {
        ...done,
        figures: `death → MCU stopped: ${quantiles(all)}; ${each.join(', ')}; stopped for the load before: ${nuisances}`,
        detail: `Guard under ${scheduling}, ${RIGS} robots at once. ${Load.words}\n\n${histogram('death → stopped', all, EDGES_MS)}`,
      };
    } finally {
      await load.stop();
    }
  },
};

export const nuisanceStops: Campaign = {
  id: 'C1b',
  title: 'a moving robot, every core busy: minutes without a stop',
  counts: { full: 30, short: 1 },
  skip: noFirmware,
  async run(plan) {
    const load = Load.start();
    const rig = await McuRig.start('auto');
    try {
      let seconds = 0;
      const done = await runTrials(plan, async () => {
        await rig.recover();
        const seen = rig.changes.length;
        const fromMs = systemClock.monotonicMs();
        const elapsed = (): number => (systemClock.monotonicMs() - fromMs) / 1000;
        const stops = (): unknown[] => rig.changes.slice(seen).filter(({ motion }) => !motion);
        while (elapsed() < QUIET_S_PER_TRIAL && !plan.signal.aborted && stops().length === 0) await sleep(100);
        seconds += elapsed();
        must(
          stops().length === 0,
          `a nuisance stop after ${elapsed().toFixed(0)} s: ${JSON.stringify(rig.transitions.at(-1)?.causes)}`,
        );
      });
      const figures = `${(seconds / 60).toFixed(1)} minutes of motion under load, guard under ${scheduling}`;
      return { ...done, figures, detail: Load.words };
    } finally {
      await rig.close();
      await load.stop();
    }
  },
};
