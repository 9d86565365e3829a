import { createLogger } from '@outrider/shared/log';
import t from 'tap';
import type { Principal } from '../identity/principal.ts';
import { FleetOverview, type FleetScope, type HourEnergy, type OverviewStore } from './overview.ts';
import { OverviewWarmer } from './overview-warmer.ts';
import { ServiceLevels } from './service-levels.ts';

const HOUR_MS = 3_600_000;
const START_MS = 480_000 * HOUR_MS + 600_000;
const DAY_HOURS = 25;
const WEEK_HOURS = 169;
const principal: Principal = { kind: 'client', sub: 'c', tenantId: 'default', scopes: [] };
const never = new AbortController().signal;

/** A fleet that draws 1 kWh in each hour, unless `energyJ` says otherwise, and what was read of it. */
class FleetOfHours implements OverviewStore {
  readonly reads: { tenantId: string; hours: number }[] = [];
  readonly energyJ = new Map<number, number>();
  nowMs = START_MS;
  readonly overview = new FleetOverview({
    store: this,
    levels: new ServiceLevels(),
    decision: async () => ({ count: 0, failed: 0, p95S: null, p99S: null }),
    now: () => this.nowMs,
  });

  async countRobots(): Promise<{ total: number; active: number; inFailsafe: number }> {
    return { total: 0, active: 0, inFailsafe: 0 };
  }

  async countAnomalies(): Promise<{ count: number; robots: number }> {
    return { count: 0, robots: 0 };
  }

  async energyOf({ tenantId }: FleetScope, hoursMs: readonly number[]): Promise<HourEnergy[]> {
    this.reads.push({ tenantId, hours: hoursMs.length });
    return hoursMs.map((hourMs) => ({ hourMs, energyJ: this.energyJ.get(hourMs) ?? 3.6e6, coveredS: 3600, robots: 1 }));
  }

  async kwh(window: '24h' | '7d'): Promise<number> {
    return (await this.overview.read(principal, window)).energy.energyKwh;
  }
}

t.test('an overview whose hours were warmed reads none of them again, and says the same', async (t) => {
  const [cold, warm] = [new FleetOfHours(), new FleetOfHours()];
  await warm.overview.warm('default', never);
  t.equal(warm.reads.length, WEEK_HOURS);
  t.ok(
    warm.reads.every(({ hours }) => hours === 1),
    'an hour at a time',
  );
  warm.reads.length = 0;
  for (const [window, hours] of [
    ['24h', DAY_HOURS],
    ['7d', WEEK_HOURS],
  ] as const) {
    t.equal(await cold.kwh(window), hours);
    t.equal(await warm.kwh(window), hours);
  }
  t.equal(
    warm.reads.reduce((sum, { hours }) => sum + hours, 0),
    0,
  );
});

t.test(
  'what a robot brings late for a past hour is seen after the next warming, though nobody asked between',
  async (t) => {
    const fleet = new FleetOfHours();
    await fleet.overview.warm('default', never);
    for (let hour = 3; hour < 20; hour += 1) fleet.energyJ.set(480_000 * HOUR_MS - hour * HOUR_MS, 7.2e6);
    fleet.nowMs += 360_000;
    await fleet.overview.warm('default', never);
    t.equal(await fleet.kwh('24h'), DAY_HOURS + 17);
  },
);

t.test('fresh hours are left alone, and an end is heeded', async (t) => {
  const fleet = new FleetOfHours();
  await fleet.overview.warm('default', AbortSignal.abort());
  t.equal(fleet.reads.length, 0);
  await fleet.overview.warm('default', never);
  await fleet.overview.warm('default', never);
  t.equal(fleet.reads.length, WEEK_HOURS);
});

t.test('only large fleets are warmed, and a database that is away stops nobody', async (t) => {
  const asked: string[] = [];
  const stop = new AbortController();
  const overview = {
    async warm(tenantId: string): Promise<void> {
      asked.push(tenantId);
      stop.abort();
      throw new Error('away');
    },
  };
  const fleets = new Map([
    ['small', 499],
    ['large', 10_000],
  ]);
  await new OverviewWarmer(overview, () => fleets, createLogger('test', 'silent')).run(stop.signal);
  t.same(asked, ['large']);
});
