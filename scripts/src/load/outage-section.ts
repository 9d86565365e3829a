import { Consoles } from './consoles.ts';
import { wordsOf } from './failsafe-section.ts';
import { FLUSH_MS } from './ingest-section.ts';
import { runOutage } from './outage.ts';
import { Robots } from './robots.ts';
import { count, ms, type Section, type SectionContext } from './section.ts';
import { enrolFleet, openSite } from './site.ts';

const ROBOTS_MAX = 300;
const AWAY_MS = 60_000;
const AWAY_SHORT_MS = 8_000;
const STOPS = 200;

/** The database away under load. */
export const outageSection: Section = {
  name: 'outage',
  about: 'PostgreSQL stopped under load, with a robot of the real agent among the simulated ones',
  timeoutMs: () => 420_000,
  run,
};

async function run(context: SectionContext): Promise<void> {
  const { options, say, defer, row } = context;
  const site = await openSite({ say, isDurable: true });
  defer(() => site.end());
  const fleet = await enrolFleet(site, Math.min(options.robots, ROBOTS_MAX), say);
  const robots = new Robots(fleet, 1);
  defer(() => robots.end());
  await robots.connect({ ...site.mqtt, rateHz: options.rateHz, flushMs: FLUSH_MS, joints: options.joints });
  const edge = await site.stack.startRobot(site.cloud, { robotId: 'EDGE-1' });
  const consoles = new Consoles();
  defer(() => consoles.end());
  const robotIds = fleet.map(({ robotId }) => robotId);
  const token = await site.cloud.client.token();
  await consoles.begin({ baseUrl: site.cloud.ready.http_url, token, robotIds });
  const awayMs = options.isShort ? AWAY_SHORT_MS : AWAY_MS;
  const seen = await runOutage(site, robots, consoles, { awayMs, stops: STOPS, edge, say });
  const isWhole = seen.stored === seen.made && seen.acknowledged === seen.made && seen.holes === 0 && seen.gaps === 0;
  row({
    what: `telemetry of ${count(fleet.length)} robots and a real agent through ${awayMs / 1000} s without PostgreSQL`,
    goal: 'none lost',
    measured:
      `${count(seen.made)} samples sent, ${count(seen.acknowledged)} acknowledged, ${count(seen.stored)} stored; ` +
      `${count(seen.held)} records were held by the robots; ${seen.holes} lanes with holes, ${seen.gaps} gaps; ` +
      `${count(seen.edgeSamples)} samples of the real agent`,
    met: isWhole && seen.edgeSamples > 0,
  });
  row({
    what: 'failsafe calls meanwhile',
    goal: '0 failed',
    measured: `${wordsOf(seen.stops)}; p95 ${ms(seen.stops.took.quantile(0.95))}; the real robot answered ${seen.edgeStop}`,
    met: seen.stops.failed === 0 && seen.edgeStop === 200,
  });
  row({
    what: '`/ready` meanwhile, and recovery by itself',
    goal: 'says why; the same process goes on',
    measured:
      `"${seen.reason}"; ready ${ms(seen.readyAgainMs)} after PostgreSQL was back, everything stored after ${ms(seen.drainedMs)}; ` +
      `${seen.isSameProcess ? 'the same process' : 'another process'}`,
    met: seen.reason !== '' && seen.isSameProcess && !Number.isNaN(seen.drainedMs),
  });
}
