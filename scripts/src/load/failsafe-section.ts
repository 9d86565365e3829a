import { pause } from '@outrider/shared/service';
import type { Asked, Asking } from './consoles.ts';
import { Consoles } from './consoles.ts';
import { FLUSH_MS } from './ingest-section.ts';
import { Robots } from './robots.ts';
import { count, ms, type Section, type SectionContext } from './section.ts';
import { enrolFleet, holdsWithin, never, openSite, type Site } from './site.ts';

const CALLS = 30_000;
const CALLS_SHORT = 900;
const ROBOTS_MAX = 300;
const AT_ONCE = 24;
const RESTARTS = 3;
const AWAY_MS = 3000;
const WAIT_MS = 120_000;

const STOP: Asking = {
  name: 'stop',
  method: 'POST',
  path: '/api/v1/robots/{robot}/failsafe/trigger',
  body: JSON.stringify({ mode: 'emergency_stop', reason: 'load {nonce}' }),
  ratePerS: 0,
};

/** Stops must not depend on the database. */
export const failsafeSection: Section = {
  name: 'failsafe',
  about: 'failsafe calls, each until the robot has confirmed it, while the database is taken away three times',
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
  const consoles = new Consoles();
  defer(() => consoles.end());
  await consoles.begin({
    baseUrl: site.cloud.ready.http_url,
    token: await site.cloud.client.token(),
    robotIds: fleet.map(({ robotId }) => robotId),
  });
  const calls = options.isShort ? CALLS_SHORT : CALLS;
  const [asked, away] = await Promise.all([consoles.burst(STOP, calls, AT_ONCE), restart(site, robots, calls, say)]);
  const { instructions, instructionsRefused } = await robots.report();
  row({
    what: `${count(calls)} failsafe calls, ${AT_ONCE} at once, to ${count(fleet.length)} robots that check each signature; database stopped ${away} times for ${AWAY_MS / 1000} s`,
    goal: '0 failed',
    measured:
      `${count(calls - asked.failed)} confirmed by the robot, ${asked.failed} failed (${wordsOf(asked)}); p50 ` +
      `${ms(asked.took.quantile(0.5))}, p95 ${ms(asked.took.quantile(0.95))}, p99 ${ms(asked.took.quantile(0.99))}, most ` +
      `${ms(asked.took.maxMs)}; the robots took ${count(instructions)} orders, ${instructionsRefused} not authentic`,
    met: asked.failed === 0 && away === RESTARTS && instructionsRefused === 0,
  });
}

/** Takes the database away at a quarter, half and three quarters of the calls. @returns How often. */
async function restart(site: Site, robots: Robots, calls: number, say: (line: string) => void): Promise<number> {
  for (let time = 1; time <= RESTARTS; time += 1) {
    const mark = (calls * time) / (RESTARTS + 1);
    if (!(await holdsWithin(WAIT_MS, async () => (await robots.report()).instructions >= mark))) return time - 1;
    await site.postgres.pause();
    await pause(AWAY_MS, never);
    await site.postgres.resume();
    say(`database stopped for ${AWAY_MS / 1000} s and started again (${time} of ${RESTARTS})`);
  }
  return RESTARTS;
}

export const wordsOf = ({ statuses, failure }: Asked): string =>
  `${[...statuses].map(([status, times]) => `${count(times)} × ${status === 0 ? 'no answer' : status}`).join(', ')}${failure === '' ? '' : `, such as: ${failure}`}`;
