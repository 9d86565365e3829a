import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { alternate, format, spreadOf } from '../bench/measure.ts';
import { end } from '../bench/robot.ts';
import { type Asking, Consoles } from './consoles.ts';
import { cpuMsOf } from './processes.ts';
import { count, type Section, type SectionContext } from './section.ts';
import { enrolFleet, openSite } from './site.ts';

const RATIO_MAX = 2;
const AT_ONCE = 8;
/** Enough that a round lasts a second, against the 10 ms in which the kernel counts. */
const REQUESTS = 20_000;
const REQUESTS_SHORT = 500;
const PAIRS = 5;

const ROUTES: readonly (Asking & { readonly what: string })[] = [
  {
    name: 'ticket',
    what: 'token, scope, path and limits checked, an answer without the database (POST /api/v1/auth/ticket)',
    method: 'POST',
    path: '/api/v1/auth/ticket',
    ratePerS: 0,
  },
  {
    name: 'state',
    what: 'the same and a read of the database (GET /v1/robots/{robot_id}/state)',
    method: 'GET',
    path: '/v1/robots/{robot}/state',
    ratePerS: 0,
  },
];

/** What an answer costs in processor time. */
export const httpSection: Section = {
  name: 'http',
  about: 'processor time an HTTP answer, against node:http that says the same without looking, alternating',
  timeoutMs: () => 180_000,
  run,
};

async function run(context: SectionContext): Promise<void> {
  const { options, say, defer, row } = context;
  const site = await openSite({ say, isDurable: true });
  defer(() => site.end());
  const fleet = await enrolFleet(site, 10, say);
  const robotIds = fleet.map(({ robotId }) => robotId);
  const { client, ready } = site.cloud;
  const token = await client.token();
  const requests = options.isShort ? REQUESTS_SHORT : REQUESTS;
  for (const route of ROUTES) {
    const path = route.path.replace('{robot}', robotIds[0] ?? '');
    const reply = await client.request(route.method, path);
    if (!reply.ok) throw new Error(`${route.method} ${path}: ${reply.status}`);
    const child = fork(fileURLToPath(new URL('./http-child.js', import.meta.url)), [], { execArgv: [] });
    defer(() => end(child));
    child.send(await reply.text());
    const [port] = (await once(child, 'message')) as [number];
    const ask = async (baseUrl: string, pid: number): Promise<number> => {
      const consoles = new Consoles();
      try {
        await consoles.begin({ baseUrl, token, robotIds });
        await consoles.burst(route, 200, AT_ONCE);
        const beforeMs = cpuMsOf(pid);
        const { failed, failure } = await consoles.burst(route, requests, AT_ONCE);
        if (failed > 0) throw new Error(`${failed} of ${requests} failed: ${failure}`);
        return (cpuMsOf(pid) - beforeMs) / requests;
      } finally {
        await consoles.end();
      }
    };
    const { ours, theirs, ratio } = await alternate(
      options.isShort ? 2 : PAIRS,
      () => ask(ready.http_url, ready.pid),
      () => ask(`http://127.0.0.1:${port}`, child.pid ?? 0),
    );
    row({
      what: `processor time an answer, ${count(requests)} a round, ${AT_ONCE} at once: ${route.what}; against node:http with the same answer`,
      goal: `≤ ${RATIO_MAX}×`,
      measured:
        `${format(spreadOf(ours).median)} against ${format(spreadOf(theirs).median)} ms: ${format(ratio.median)} ` +
        `(${format(ratio.low)} – ${format(ratio.high)}, ${ratio.runs} pairs)`,
      met: ratio.median <= RATIO_MAX,
    });
  }
}
