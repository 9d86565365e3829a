import { request } from 'node:http';
import { createRequire } from 'node:module';
import { EVENT_TYPES } from '@outrider/shared/events';
import { Ajv } from 'ajv';
import t from 'tap';
import { WebSocket } from 'ws';
import { insertBusEvents } from '../src/storage/event-store.ts';
import { until } from '../src/testing/engines.ts';
import { describeRobot, startHarness } from './api-harness.ts';
import { CLOUD_EVENTS, EDGE_PAYLOADS } from './events-rig.ts';

const harness = await startHarness();
const { call, database } = harness;
const token = await harness.token('default');
const other = await harness.token('other');
t.teardown(() => harness.close());
for (const robotId of ['RB-1', 'RB-2', 'RB-3'])
  await call('POST', '/v1/robots', { token, body: describeRobot(robotId) });
await call('POST', '/v1/robots', { token: other, body: describeRobot('RB-1') });

t.test('the AsyncAPI document is valid by the published schema, and says what is sent', async (t) => {
  const document = (await call('GET', '/asyncapi.json')).json as unknown as {
    asyncapi: string;
    channels: Record<string, { address: string }>;
  };
  const published = createRequire(import.meta.url)('@asyncapi/specs/schemas/3.0.0.json') as object;
  // The published schema brings draft 07's own along.
  const ajv = new Ajv({ strict: false, validateFormats: false, meta: false, validateSchema: false });
  const isValid = ajv.validate(published, document);
  t.ok(isValid, JSON.stringify(ajv.errors?.slice(0, 5)));
  t.notOk(ajv.validate(published, { ...document, channels: { x: { address: 7 } } }), 'the schema does refuse');
  const addresses = Object.values(document.channels).map(({ address }) => address);
  for (const type of EVENT_TYPES)
    t.ok(
      addresses.some((address) => address.startsWith(`events/{tenant_id}/${type}/{`)),
      type,
    );
  t.ok(addresses.includes('/api/v1/dashboard/stream'));
  const text = JSON.stringify(document);
  const refs = new Set([...text.matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path]) => path ?? ''));
  t.ok(refs.size > 20);
  for (const ref of refs) {
    let found: unknown = document;
    for (const part of ref.split('/')) found = (found as Record<string, unknown> | undefined)?.[part];
    t.ok(found, ref);
  }
  for (const type of EVENT_TYPES)
    t.match((await call('GET', `/schemas/events/${type}.json`)).json, { title: type, $schema: /2020-12/ });
  t.equal((await call('GET', '/schemas/events/..%2f..%2fetc.json')).status, 404);
  t.match((await call('GET', '/openapi.json')).json, { externalDocs: { url: /\/asyncapi\.json$/ } });
});

t.test('the fleet at a glance is computed from what was stored, and each tenant’s own', async (t) => {
  const overview = async (by: string, query = '') =>
    (await call('GET', `/api/v1/dashboard/fleet/overview${query}`, { token: by })).json as unknown as Record<
      string,
      number
    >;
  t.match(await overview(other), { active_robots: 0, total_robots: 1, energy_usage_kwh: 0, anomaly_count: 0 });
  const hour = 3_600_000;
  const start = Math.floor(Date.now() / hour) * hour - hour;
  const reports = (robotId: string, draws: readonly number[], stepS: number, fromMs = start) =>
    draws.map((drawW, index) => ({
      robot_id: robotId,
      timestamp: new Date(fromMs + index * stepS * 1000).toISOString(),
      power: { draw_w: drawW },
    }));
  const send = async (events: readonly object[]): Promise<void> => {
    for (let at = 0; at < events.length; at += 50)
      t.equal((await call('POST', '/api/v1/telemetry/events', { token, body: events.slice(at, at + 50) })).status, 202);
  };
  // 100 W to 300 W over 100 s: 200 W × 100 s. Sent in pieces, whose joints count too.
  await send(
    reports(
      'RB-1',
      Array.from({ length: 101 }, (_, n) => 100 + 2 * n),
      1,
    ),
  );
  // Nothing is known between readings that are a minute apart.
  await send(reports('RB-2', [500, 500, 500], 60));
  await insertBusEvents(
    database,
    [1, 2, 3].map((n) => ({
      type: 'anomaly.detected.v1',
      tenantId: 'default',
      robotId: n === 3 ? 'RB-2' : 'RB-1',
      occurredAtMs: Date.now() - (n === 2 ? 7_200_000 : 0),
      traceId: 'x',
      payload: EDGE_PAYLOADS['anomaly.detected.v1'],
    })),
    Date.now(),
  );
  await insertBusEvents(database, CLOUD_EVENTS, Date.now());
  const found = await overview(token);
  t.match(found, {
    active_robots: 2,
    total_robots: 3,
    robots_in_failsafe: 0,
    anomaly_count: 3,
    robots_with_anomalies: 2,
    energy: { robots_measured: 2 },
    sla_status: /^(met|breached)$/,
  });
  t.ok(Math.abs((found['energy_usage_kwh'] ?? 0) * 3_600_000 - 20_000) < 1e-6, `${found['energy_usage_kwh']} kWh`);
  t.equal((await overview(token, '?window=1h'))['anomaly_count'], 2);
  await send(reports('RB-1', [100], 1));
  const duplicate = await overview(token, '?window=6h');
  t.equal(duplicate['energy_usage_kwh'], found['energy_usage_kwh'], 'what came twice counts once');
  const sla = found['sla'] as unknown as { name: string; count: number; measured: number; met: boolean | null }[];
  t.same(
    sla.map(({ name }) => name),
    ['read_latency_p95', 'command_dispatch_p95', 'failsafe_availability', 'decision_window_p95'],
  );
  t.ok((sla[0]?.count ?? 0) > 0 && (sla[0]?.measured ?? 0) > 0);
  t.match(await overview(other), { active_robots: 0, total_robots: 1, energy_usage_kwh: 0, anomaly_count: 0 });
  const key = (
    (await call('POST', '/v1/robots', { token, body: describeRobot('RB-9') })).json as unknown as {
      data: { api_key: string };
    }
  ).data.api_key;
  t.match(await overview(key), { total_robots: 1, anomaly_count: 0, energy_usage_kwh: 0 }, 'a robot sees itself');
  t.equal((await call('GET', '/api/v1/dashboard/fleet/overview?window=1y', { token })).status, 400);
  t.match((await call('GET', '/metrics')).text, /outrider_operation_seconds_count\{class="read"\}/);
});

interface Message {
  readonly id?: string;
  readonly type: string;
  readonly data: Record<string, unknown>;
}

t.test('a WebSocket changes what it brings, and server-sent events go on after a break', async (t) => {
  const url = `${harness.url.replace('http', 'ws')}/api/v1/dashboard/stream?include=event&max_rate_hz=5`;
  const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` } });
  const messages: Message[] = [];
  socket.on('message', (data) => messages.push(JSON.parse(String(data)) as Message));
  const until1 = (type: string) => until(() => messages.some((message) => message.type === type), type);
  await until1('welcome');
  const say = (message: object): void => socket.send(JSON.stringify({ type: 'subscribe', ...message }));
  say({ robot_ids: ['RB-404'] });
  await until1('error');
  t.match(messages.at(-1), { data: { code: 'not_found' } });
  messages.length = 0;
  say({ kinds: ['power'], colour: 'red' });
  await until1('error');
  t.match(messages.at(-1), { data: { code: 'invalid', details: [{ field: 'colour' }] } });
  say({ robot_ids: ['RB-3'], include: ['telemetry'], max_rate_hz: 10 });
  await until1('subscribed');
  t.match(messages.at(-1), { data: { robot_ids: ['RB-3'], include: ['telemetry'], max_rate_hz: 10 } });
  const report = async (robotId: string, soc: number): Promise<void> => {
    const body = { robot_id: robotId, timestamp: '2026-01-11T05:12:00Z', power: { battery_soc: soc } };
    t.equal((await call('POST', '/api/v1/telemetry/events', { token, body })).status, 202);
  };
  await report('RB-1', 0.1);
  await report('RB-3', 0.2);
  await until1('telemetry');
  t.same(
    messages.filter(({ type }) => type === 'telemetry').map(({ data }) => data['robot_id']),
    ['RB-3'],
  );
  const lastId = messages.findLast(({ id }) => id !== undefined)?.id ?? '';
  t.match(lastId, /^[0-9a-f]{8}-\d+/);
  socket.close();

  await report('RB-3', 0.3);
  const text = await new Promise<string>((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, accept: 'text/event-stream', 'last-event-id': lastId };
    const ask = request(`${harness.url}/api/v1/dashboard/stream?robot_id=RB-3`, { headers }, (reply) => {
      let all = '';
      reply.on('data', (chunk: Buffer) => {
        all += chunk.toString();
        if (!all.includes('event: telemetry')) return;
        ask.destroy();
        resolve(all);
      });
      reply.on('error', () => undefined);
    });
    ask.on('error', reject);
    ask.end();
  });
  t.match(text, /^id: [0-9a-f]{8}-\d+(-\d+)?\nevent: welcome\n/);
  t.match(text, /id: [0-9a-f]{8}-\d+(-\d+)?\nevent: telemetry\ndata: .*"state_of_charge":\[0\.3\]/);
  t.notMatch(text, /event: gap/);
  t.equal(
    (await call('GET', '/api/v1/dashboard/stream?include=x', { token, headers: { accept: 'text/event-stream' } }))
      .status,
    400,
  );
});
