import { noPostgres } from '@outrider/cloud/testing/engines';
import t from 'tap';
import { Consoles } from '../src/load/consoles.ts';
import { runOutage } from '../src/load/outage.ts';
import { Robots } from '../src/load/robots.ts';
import { enrolFleet, openSite } from '../src/load/site.ts';

t.setTimeout(300_000);

const ROBOTS = 20;
const AWAY_MS = 8_000;

t.test(
  'PostgreSQL away under load: nothing is lost, stops work, /ready says why, and all of it comes back by itself',
  { skip: noPostgres, timeout: 240_000 },
  async (t) => {
    const say = (line: string): void => t.comment(line);
    const site = await openSite({ say, isDurable: false });
    t.teardown(() => site.end());
    const fleet = await enrolFleet(site, ROBOTS, say);
    const robots = new Robots(fleet, 1);
    t.teardown(() => robots.end());
    await robots.connect({ ...site.mqtt, rateHz: 10, flushMs: 500, joints: 30 });
    const edge = await site.stack.startRobot(site.cloud, { robotId: 'EDGE-1' });
    const consoles = new Consoles();
    t.teardown(() => consoles.end());
    const robotIds = fleet.map(({ robotId }) => robotId);
    const token = await site.cloud.client.token();
    await consoles.begin({ baseUrl: site.cloud.ready.http_url, token, robotIds });
    const seen = await runOutage(site, robots, consoles, { awayMs: AWAY_MS, stops: 40, edge, say });
    t.match(seen.reason, /^503, database /, '/ready says why');
    t.equal(seen.stops.failed, 0, `every stop is confirmed by its robot: ${seen.stops.failure}`);
    t.equal(seen.edgeStop, 200, 'also by the real one');
    t.ok(seen.held > 0, `the robots held ${seen.held} records`);
    t.ok(seen.readyAgainMs >= 0, 'it is ready again');
    t.equal(seen.acknowledged, seen.made, 'everything is acknowledged');
    t.equal(seen.stored, seen.made, 'and there once');
    t.equal(seen.holes, 0, 'no lane has a hole, the real agent’s included');
    t.equal(seen.gaps, 0, 'nothing was dropped');
    t.ok(seen.edgeSamples > 0, `${seen.edgeSamples} samples of the real agent`);
    t.ok(seen.isSameProcess, 'the control plane is the process that it was');
  },
);
