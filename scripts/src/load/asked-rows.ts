import type { Asked, Asking } from './consoles.ts';
import { type LoadRow, ms } from './section.ts';
import type { Site } from './site.ts';

const READ_P95_MS = 200;
const READ_AIM_MS = 50;
const COMMAND_P95_MS = 350;
const COMMAND_AIM_MS = 100;
const READS_PER_S = 10;
const COMMANDS_PER_S = 2;

const read = (name: string, path: string): Asking => ({ name, method: 'GET', path, ratePerS: READS_PER_S });

const READS: readonly Asking[] = [
  read('read state', '/v1/robots/{robot}/state'),
  read('read health', '/api/v1/robots/{robot}/health'),
  read('read history', '/v1/robots/{robot}/state/history?limit=50'),
  read('read alerts', '/api/v1/alerts?limit=50'),
  read('read fleet overview', '/api/v1/dashboard/fleet/overview'),
];
const COMMAND = 'command';
const STOP = 'stop';
const COMMANDS: readonly Asking[] = [
  {
    name: `${COMMAND} dispatch, until it is stored and on its way`,
    method: 'POST',
    path: '/api/v1/robots/{robot}/commands',
    body: JSON.stringify({ command: 'hold' }),
    robots: 'even',
    ratePerS: COMMANDS_PER_S,
  },
  {
    name: `${STOP} (failsafe trigger), until the robot itself has confirmed it`,
    method: 'POST',
    path: '/api/v1/robots/{robot}/failsafe/trigger',
    body: JSON.stringify({ mode: 'emergency_stop', reason: 'load {nonce}' }),
    robots: 'odd',
    ratePerS: COMMANDS_PER_S,
  },
];

/** What consoles ask for during the load: what this control plane has a route for. */
export async function askingsOf(site: Site, say: (line: string) => void): Promise<Asking[]> {
  const { paths } = await site.cloud.client.get<{ paths: Record<string, Record<string, unknown>> }>('/openapi.json');
  const known = (asking: Asking): boolean => {
    const path = (asking.path.split('?')[0] ?? '').replace('{robot}', '{robot_id}');
    const isThere = paths[path]?.[asking.method.toLowerCase()] !== undefined;
    if (!isThere) say(`not measured, there is no such route: ${asking.method} ${path}`);
    return isThere;
  };
  return [...READS, ...COMMANDS].filter(known);
}

/** The table's lines of what was asked. */
export function rowsOfAsked(asked: readonly Asked[]): LoadRow[] {
  return asked.map(({ name, took, failed, failure }) => {
    const isRead = name.startsWith('read');
    const [limitMs, aimMs] = isRead ? [READ_P95_MS, READ_AIM_MS] : [COMMAND_P95_MS, COMMAND_AIM_MS];
    const p95 = took.quantile(0.95);
    return {
      what: `${name}, meanwhile`,
      goal: `p95 < ${limitMs} ms (aim ${aimMs}), none failed`,
      measured:
        `p50 ${ms(took.quantile(0.5))}, p95 ${ms(p95)}, p99 ${ms(took.quantile(0.99))}; ${took.count} asked, ${failed} failed` +
        (failed > 0 ? ` (${failure})` : ''),
      met: p95 < limitMs && failed === 0,
    };
  });
}
