import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { Latencies } from './latencies.ts';
import { count, ms, type Section, type SectionContext } from './section.ts';
import { never, openSite, type Site } from './site.ts';

const ROBOTS = 10_000;
const ROBOTS_SHORT = 600;
const HOURS = 168;
const HOURS_SHORT = 24;
const ANSWER_MS = 50;
/** A little longer than answers are shared for, so that each is worked out. */
const EVERY_MS = 1100;
const ASKED = 60;
const ASKED_SHORT = 4;
const WINDOWS = ['24h', '7d'] as const;
/** A control plane sees new robots of its fleets, and sums their week, within this. */
const SETTLE_MS = 20_000;
const PATH = '/api/v1/dashboard/fleet/overview';

/** What a large fleet looks like at a glance, and how long that takes to say. */
export const overviewSection: Section = {
  name: 'overview',
  about: 'the overview of a large fleet with a week of energy behind it, with nothing else to do',
  timeoutMs: () => 300_000,
  run,
};

interface Overview {
  readonly total_robots: number;
  readonly active_robots: number;
}

async function run(context: SectionContext): Promise<void> {
  const { options, say, defer, row } = context;
  const [robots, hours, asked] = options.isShort ? [ROBOTS_SHORT, HOURS_SHORT, ASKED_SHORT] : [ROBOTS, HOURS, ASKED];
  const site = await openSite({ say, isDurable: true });
  defer(() => site.end());
  await fill(site, robots, hours);
  say(`${count(robots)} robots, ${count(robots * hours)} hours of energy`);
  await pause(options.isShort ? 2000 : SETTLE_MS, never);
  const { client } = site.cloud;
  await client.token();
  const took = new Latencies();
  let firstMs = Number.NaN;
  let seen: Overview | undefined;
  for (let asking = 0; asking < asked; asking += 1) {
    const path = `${PATH}?window=${WINDOWS[asking % WINDOWS.length]}`;
    const fromMs = systemClock.monotonicMs();
    seen = await client.get<Overview>(path);
    const answeredMs = systemClock.monotonicMs() - fromMs;
    if (asking === 0) firstMs = answeredMs;
    else took.add(answeredMs);
    await pause(EVERY_MS, never);
  }
  const isWhole = seen?.total_robots === robots && seen.active_robots === robots;
  row({
    what: `overview of ${count(robots)} robots with ${hours} hours of energy each, over HTTP, windows of a day and a week in turn, ${EVERY_MS} ms apart so that no answer is shared`,
    goal: `< ${ANSWER_MS} ms`,
    measured:
      `p50 ${ms(took.quantile(0.5))}, p95 ${ms(took.quantile(0.95))}, most ${ms(took.maxMs)}; ${took.count} asked; ` +
      `the first ${ms(firstMs)}${isWhole ? '' : `; it counts ${seen?.active_robots} active of ${seen?.total_robots}`}`,
    met: isWhole && took.quantile(0.95) < ANSWER_MS,
  });
}

/** A fleet as it stands in the database after a week of work. */
async function fill({ database }: Site, robots: number, hours: number): Promise<void> {
  await database.query(
    `insert into robot (tenant_id, robot_id, robot_name, robot_type)
     select 'default', 'VIEW-' || n, 'load', 'test' from generate_series(1, $1::int4) as n`,
    [robots],
  );
  await database.query(
    `insert into robot_presence (robot_pk, presence, changed_at, last_seen_at)
     select robot_pk, 'ONLINE', now(), now() from robot`,
  );
  await database.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
     select robot_pk, 'failsafe', now(), now(), '{"phase": "ARMED", "action": "NONE"}'::jsonb from robot`,
  );
  await database.query(
    `insert into robot_energy_hour (hour, robot_pk, stream, energy_j, covered_s, first_ms, first_w, last_ms, last_w)
     select date_trunc('hour', now()) - n * interval '1 hour', robot_pk, 'mcu/power', 360000, 3600, 0, 100, 0, 100
       from robot, generate_series(0, $1::int4 - 1) as n`,
    [hours],
  );
  await database.query('vacuum analyze robot_energy_hour');
}
