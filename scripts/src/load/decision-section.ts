import { pause } from '@outrider/shared/service';
import { Consoles } from './consoles.ts';
import { FLUSH_MS } from './ingest-section.ts';
import { Latencies } from './latencies.ts';
import { Robots } from './robots.ts';
import { count, ms, type Section, type SectionContext } from './section.ts';
import { enrolFleet, holdsWithin, never, openSite } from './site.ts';

/** `outbox.flush_interval_ms` of the edge agent: how long a sample may wait on the robot before it is sent. */
const EDGE_FLUSH_MS = 250;
const WINDOW_P99_MS = 500;
const ROBOTS_MAX = 400;
const EVERY_MS = 60;
const WAIT_MS = 30_000;

/** From a sample that is beyond a rule to the alert on a console. */
export const decisionSection: Section = {
  name: 'decision',
  about: 'from a sample on the robot to the alert on a live stream, while the other robots go on sending',
  timeoutMs: () => 180_000,
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
  const robotIds = fleet.map(({ robotId }) => robotId);
  const token = await site.cloud.client.token();
  await consoles.begin({ baseUrl: site.cloud.ready.http_url, token, robotIds });
  await consoles.watch('alert');
  await robots.record(1);
  await pause(options.isShort ? 2000 : 10_000, never);
  const before = await consoles.watched();
  await robots.overheat(EVERY_MS, EDGE_FLUSH_MS);
  const expected = fleet.length;
  await holdsWithin(EVERY_MS * expected + WAIT_MS, async () => (await consoles.watched()).size >= expected, 500);
  const [taken, heard] = await Promise.all([robots.overheated(), consoles.watched()]);
  const window = new Latencies();
  for (const [robotId, takenMs] of taken) {
    const heardMs = heard.get(robotId);
    if (heardMs !== undefined && !before.has(robotId)) window.add(heardMs - takenMs);
  }
  row({
    what: `a motor at 120 °C on one robot after the other, of ${count(expected)} that send ${options.rateHz} samples/s: from the sample, which waits up to ${EDGE_FLUSH_MS} ms for the robot's flush, over the commit to the alert on a live stream`,
    goal: `p99 < ${WINDOW_P99_MS} ms, an alert for each`,
    measured:
      `p50 ${ms(window.quantile(0.5))}, p95 ${ms(window.quantile(0.95))}, p99 ${ms(window.quantile(0.99))}, most ${ms(window.maxMs)}; ` +
      `${count(window.count)} of ${count(expected)} heard${before.size > 0 ? `, ${before.size} had an alert before` : ''}`,
    met: window.count === expected && window.quantile(0.99) < WINDOW_P99_MS,
  });
}
