import { readFileSync } from 'node:fs';
import { eventSchema } from '@outrider/shared/event-schemas';
import { EVENT_TYPES } from '@outrider/shared/events';
import t from 'tap';
import { WebSocket } from 'ws';
import { until } from '../src/testing/engines.ts';
import { type CallOptions, describeRobot, startHarness } from './api-harness.ts';
import { at, differences, type Example, fitsPattern, type SeedDocument } from './conformance.ts';
import { OpenApiChecker } from './openapi-checker.ts';

const read = (name: string): Example[] =>
  JSON.parse(readFileSync(new URL(`../../test/conformance/${name}.json`, import.meta.url), 'utf8')) as Example[];

t.test('the seeds’ own examples get the answers that the seeds show', async (t) => {
  const harness = await startHarness();
  t.teardown(() => harness.close());
  const { accounts } = harness.identity;
  const admin = await harness.token('default');
  const seed = await harness.token('default', ['telemetry:read', 'command:write']);
  const clientSecret = await accounts.createClient({ clientId: 'fleet-console', tenantId: 'default' });
  const password = await accounts.createUser({ username: 'admin', tenantId: 'default' });
  for (const robotId of ['RB-1022', 'RB-2001'])
    t.equal((await harness.call('POST', '/v1/robots', { token: admin, body: describeRobot(robotId) })).status, 201);
  harness.bus.online.add('default.RB-1022');
  await harness.database.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
     select robot_pk, 'failsafe', now(), now(), '{"phase":"ARMED","latch_id":1,"motion_epoch":0}' from robot`,
  );
  // What the documents' examples take for granted: robots that report, and one that is too hot.
  for (const [robot_id, motor_max_c] of [
    ['RB-1022', 64.2],
    ['RB-2001', 99],
  ] as const) {
    const body = { robot_id, timestamp: new Date().toISOString(), thermal: { motor_max_c } };
    t.equal((await harness.call('POST', '/api/v1/telemetry/events', { token: admin, body })).status, 202);
  }
  let alertId = '';
  await until(async () => {
    const { text } = await harness.call('GET', '/api/v1/alerts?severity=critical&robot_id=RB-2001', { token: admin });
    alertId = (JSON.parse(text) as { alerts: { alert_id: string }[] }).alerts[0]?.alert_id ?? '';
    return alertId !== '';
  }, 'the alert of the robot that is too hot');
  harness.bus.answer = () => ({ done: true, latchId: 1, detail: 'latched' });

  const contract = new OpenApiChecker((await harness.call('GET', '/openapi.json')).json);
  const problemsOf = (method: string, path: string, status: number, body: unknown): string[] =>
    contract.check({ method, path, status, contentType: 'application/json', body });
  t.not(problemsOf('GET', '/v1/robots', 200, { status: 'success' }).length, 0, 'a wrong answer would show');
  for (const example of [...read('sigma'), ...read('wia')]) {
    const { method, path, auth, headers, body, transport } = example.request;
    if (transport === 'websocket') {
      const message = await firstMessage(`${harness.url.replace('http', 'ws')}${path}`, seed);
      t.same(differences(example, message), [], example.name);
      continue;
    }
    const options: CallOptions = {
      ...(auth === 'none' ? {} : { token: auth === 'seed' ? seed : admin }),
      ...(headers ? { headers } : {}),
      // The documents hide their secrets.
      ...(body
        ? {
            body: {
              ...body,
              ...('client_secret' in body ? { client_secret: clientSecret } : {}),
              ...('password' in body ? { password } : {}),
              ...('alert_id' in body ? { alert_id: alertId } : {}),
            },
          }
        : {}),
    };
    const answer = await harness.call(method, path, options);
    if (example.notBuilt !== undefined) {
      t.equal(answer.status, 404, `${example.name}: ${example.notBuilt} is not built yet`);
      t.match(answer.json, { error: { code: 'NOT_FOUND' } }, 'in the envelope of the document');
      continue;
    }
    t.equal(answer.status, example.response.status, `${example.name}: ${answer.text.slice(0, 200)}`);
    t.same(differences(example, answer.json), [], example.name);
    t.same(problemsOf(method, path, answer.status, answer.json), [], `${example.name} is as /openapi.json says`);
    const requestId = headers?.['X-Request-ID'];
    if (requestId !== undefined) t.equal(answer.headers.get('x-request-id'), requestId, 'the request id comes back');
  }
});

t.test('no field of an example takes another type', async (t) => {
  const harness = await startHarness();
  t.teardown(() => harness.close());
  const token = await harness.token('default');
  const descriptor = { robot_id: 'RB-1022', robot_name: 'Demo', robot_type: 'humanoid' };
  await harness.call('POST', '/v1/robots', { token, body: { robot_descriptor: descriptor } });
  const wrong: unknown[] = [null, true, 7, '7', '', [], {}, [[]], { a: 1 }, 'x'.repeat(3_000)];
  let tried = 0;
  for (const example of [...read('sigma'), ...read('wia')]) {
    const { method, path, body } = example.request;
    if (!body || example.response.status >= 400 || example.notBuilt !== undefined) continue;
    for (const field of leavesOf(body)) {
      // What is under `capabilities` is the integrator's own.
      if (field.includes('capabilities') && field.length > 2) continue;
      const name = field
        .map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
        .join('')
        .slice(1);
      for (const value of wrong.filter((other) => !sameType(other, valueAt(body, field)))) {
        const changed = structuredClone(body);
        (valueAt(changed, field.slice(0, -1)) as Record<PropertyKey, unknown>)[field.at(-1) ?? ''] = value;
        const answer = await harness.call(method, path, { token, body: changed });
        tried += 1;
        const isNamed = answer.text.includes(`"${name}`);
        if (![400, 422].includes(answer.status) || !isNamed)
          t.fail(
            `${example.name}: ${name} = ${JSON.stringify(value)?.slice(0, 20)}: ${answer.status} ${answer.text.slice(0, 200)}`,
          );
      }
    }
  }
  t.ok(tried > 150, `${tried} wrong values were refused by name`);
});

t.test('the examples and the routes are those of the document itself', async (t) => {
  const harness = await startHarness();
  t.teardown(() => harness.close());
  const seed = JSON.parse(
    readFileSync(new URL('../../test/conformance/sigma-seed.json', import.meta.url), 'utf8'),
  ) as SeedDocument;
  const rows = read('sigma');
  for (const { section, method, path, request, responses } of seed.routes) {
    const name = `${section} ${method} ${path}`;
    const row = rows.find((each) => each.request.method === method && fitsPattern(path, each.request.path));
    t.ok(row, `${name} has a row`);
    if (request !== undefined) t.same(row?.request.body, request, `${name}: the request as it is written`);
    for (const { status, body } of responses) {
      t.equal(row?.response.status, status, name);
      t.same(row?.response.body, body, `${name}: the answer as it is written`);
    }
  }
  t.ok(
    rows.some((row) => JSON.stringify(row.response.body) === JSON.stringify(seed.error)),
    '§12 has a row',
  );
  t.same(EVENT_TYPES, seed.eventTypes, '§11');
  for (const type of EVENT_TYPES) {
    const { required = [] } = eventSchema(type) as { required?: string[] };
    const fields = seed.eventFields.filter((field) => !['robot_id', 'swarm_id'].includes(field));
    t.same(
      fields.filter((field) => !required.includes(field)),
      [],
      `${type} has what each event includes`,
    );
    t.equal(required.filter((field) => ['robot_id', 'swarm_id'].includes(field)).length, 1, 'and one of the two');
    t.ok(required.includes('payload'));
  }
  const document = (await harness.call('GET', '/openapi.json')).json as unknown as {
    paths: Record<string, Record<string, { tags?: string[] }>>;
  };
  const built = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations)
      .filter(([, operation]) => operation.tags?.includes('SigmaPrompt'))
      .map(([method]) => `${method.toUpperCase()} ${path}`),
  );
  const wanted = seed.routes.map(({ method, path }) => `${method} ${path}`);
  t.same(wanted.filter((route) => !built.includes(route)).sort(), [...NOT_BUILT].sort(), 'not built yet');
  t.same(built.filter((route) => !wanted.includes(route)).sort(), [...BEYOND_THE_DOCUMENT].sort(), 'beyond it');
});

t.test('a difference from an example is found', async (t) => {
  const example: Example = {
    name: 'x',
    request: { method: 'GET', path: '/', auth: 'none' },
    response: {
      status: 200,
      exact: true,
      body: { a: { b: [{ c: 1 }] }, d: 'x' },
      equal: ['d'],
      match: { d: '^x' },
      nullable: { 'a.b.0.c': 'why' },
    },
  };
  t.same(differences(example, { a: { b: [{ c: 2 }] }, d: 'x' }), []);
  t.same(differences(example, { a: { b: [{ c: null }] }, d: 'x' }), []);
  t.equal(differences(example, { a: { b: [{ c: '2' }] }, d: 'x' }).length, 1);
  t.equal(differences(example, { a: { b: {} }, d: 'x' }).length, 1);
  t.equal(differences(example, { a: { b: [] }, d: 'y' }).length, 2);
  t.equal(differences(example, { a: { b: [] }, d: 'x', e: 1 }).length, 1);
  t.equal(differences(example, {}).length > 1, true);
  t.equal(at({ a: [{ b: 1 }] }, 'a.0.b'), 1);
});

/** Routes of SigmaPrompt that do not exist yet. */
const NOT_BUILT = ['POST /api/v1/swarm/tasks/allocate', 'POST /api/v1/twins/{robot_id}/simulate'];
/** Routes on SigmaPrompt's paths that it does not name. */
const BEYOND_THE_DOCUMENT: readonly string[] = [
  'DELETE /api/v1/alerts/rules/{rule_id}',
  'DELETE /api/v1/alerts/webhooks/{webhook_id}',
  'DELETE /api/v1/robots/{robot_id}/commands/{command_id}',
  'GET /api/v1/alerts/rules',
  'GET /api/v1/alerts/rules/{rule_id}',
  'GET /api/v1/alerts/webhooks',
  'GET /api/v1/alerts/webhooks/{webhook_id}',
  'GET /api/v1/alerts/webhooks/{webhook_id}/deliveries',
  'GET /api/v1/alerts/{alert_id}',
  'GET /api/v1/robots/{robot_id}/blackbox-requests',
  'GET /api/v1/robots/{robot_id}/blackboxes',
  'GET /api/v1/robots/{robot_id}/blackboxes/{box_id}',
  'GET /api/v1/robots/{robot_id}/commands',
  'GET /api/v1/robots/{robot_id}/commands/{command_id}',
  'PATCH /api/v1/alerts/rules/{rule_id}',
  'PATCH /api/v1/alerts/webhooks/{webhook_id}',
  'POST /api/v1/alerts/clear',
  'POST /api/v1/alerts/rules',
  'POST /api/v1/alerts/unack',
  'POST /api/v1/alerts/webhooks',
  'POST /api/v1/alerts/webhooks/{webhook_id}/test',
  'POST /api/v1/auth/keys/rotate',
  'POST /api/v1/auth/revoke',
  'POST /api/v1/auth/ticket',
  'POST /api/v1/robots/{robot_id}/blackboxes/{box_id}/chunks',
  'POST /api/v1/robots/{robot_id}/blackboxes/{box_id}/request',
];

/** The first message of a live stream. */
function firstMessage(url: string, token: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` } });
    socket.on('error', reject);
    socket.on('message', (data) => {
      socket.close();
      resolve(JSON.parse(String(data)));
    });
  });
}

type Path = readonly PropertyKey[];
const valueAt = (value: unknown, path: Path): unknown =>
  path.reduce<unknown>((found, key) => (found as Record<PropertyKey, unknown>)[key], value);
const kindOf = (value: unknown): string => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value);
const sameType = (a: unknown, b: unknown): boolean =>
  kindOf(a) === kindOf(b) && !(typeof a === 'string' && a.length > 1_000);

/** Every member of an example's body, containers too. */
function leavesOf(value: unknown, path: Path = []): Path[] {
  const own = path.length === 0 ? [] : [path];
  if (Array.isArray(value)) return [...own, ...value.flatMap((item, index) => leavesOf(item, [...path, index]))];
  if (typeof value !== 'object' || value === null) return own;
  return [...own, ...Object.entries(value).flatMap(([key, item]) => leavesOf(item, [...path, key]))];
}
