import t from 'tap';
import { contractTests } from './api-contract.ts';
import { type Answer, describeRobot, EVENT, startHarness } from './api-harness.ts';
import { hostileTests } from './api-hostile.ts';

const harness = await startHarness({ answerTimeoutMs: 100 });
const { call } = harness;
const token = await harness.token('default');
const other = await harness.token('other');
t.teardown(() => harness.close());
for (const robotId of ['RB-1', 'RB-2']) await call('POST', '/v1/robots', { token, body: describeRobot(robotId) });
await call('POST', '/v1/robots', { token: other, body: describeRobot('RB-9') });

/** What an envelope says, whichever surface it is of. */
function readError(surface: string, { json }: Answer): { code: unknown; requestId: unknown } {
  const body = json as Record<string, Record<string, unknown>>;
  if (surface === 'wia' && body['status'] !== ('error' as never)) throw new Error('not a WIA envelope');
  if (surface === 'qers' && body['detail'] === undefined) throw new Error('not a QERS envelope');
  const requestId = surface === 'wia' ? body['metadata']?.['request_id'] : body['error']?.['request_id'];
  return { code: body['error']?.['code'], requestId };
}

t.test('every surface answers failures in its own envelope, whoever finds them', async (t) => {
  const big = `{"robot_id":"${'x'.repeat(5 * 1024 * 1024)}"}`;
  const cases: [string, string, string, number, string, Parameters<typeof call>[2]?][] = [
    ['sigma', 'GET', '/api/v1/robots/RB-1/health', 401, 'UNAUTHENTICATED'],
    ['sigma', 'GET', '/api/v1/robots/none/health', 404, 'NOT_FOUND', { token }],
    ['sigma', 'GET', '/api/v1/twins/x', 404, 'NOT_FOUND'],
    ['sigma', 'PUT', '/api/v1/telemetry/events', 405, 'UNIMPLEMENTED'],
    ['sigma', 'POST', '/api/v1/telemetry/events', 413, 'RESOURCE_EXHAUSTED', { token, body: big }],
    ['sigma', 'POST', '/api/v1/telemetry/events', 400, 'INVALID_ARGUMENT', { token, body: '{"robot_id":' }],
    [
      'sigma',
      'POST',
      '/api/v1/telemetry/events',
      400,
      'INVALID_ARGUMENT',
      { token, body: 'a=1', headers: { 'content-type': 'text/plain' } },
    ],
    [
      'sigma',
      'POST',
      '/api/v1/telemetry/events',
      400,
      'INVALID_ARGUMENT',
      { token, body: '{}', headers: { 'content-encoding': 'gzip' } },
    ],
    [
      'sigma',
      'POST',
      '/api/v1/auth/token',
      401,
      'UNAUTHENTICATED',
      { body: { client_id: 'x', client_secret: 'y', grant_type: 'client_credentials' } },
    ],
    [
      'sigma',
      'POST',
      '/api/v1/auth/token',
      400,
      'INVALID_ARGUMENT',
      { body: { client_id: 'x', client_secret: 'y', grant_type: 'password' } },
    ],
    ['sigma', 'GET', '/api/v1/dashboard/stream', 426, 'FAILED_PRECONDITION', { token }],
    ['wia', 'GET', '/v1/robots', 401, 'INVALID_TOKEN'],
    ['wia', 'GET', '/v1/robots', 401, 'INVALID_TOKEN', { token: `${token}x` }],
    ['wia', 'GET', '/v1/robots', 403, 'INSUFFICIENT_PERMISSIONS', { token, headers: { 'x-tenant-id': 'other' } }],
    ['wia', 'GET', '/v1/robots/RB-1', 403, 'INSUFFICIENT_PERMISSIONS', { token, headers: { 'x-robot-id': 'RB-2' } }],
    ['wia', 'GET', '/v1/robots/none/state', 404, 'ROBOT_NOT_FOUND', { token }],
    ['wia', 'GET', '/v1/fleets/x', 404, 'NOT_FOUND', { token }],
    ['wia', 'DELETE', '/v1/robots', 405, 'METHOD_NOT_ALLOWED'],
    ['wia', 'POST', '/v1/robots', 413, 'PAYLOAD_TOO_LARGE', { token, body: big }],
    ['wia', 'POST', '/v1/robots', 400, 'VALIDATION_FAILED', { token, body: 'no json' }],
    ['wia', 'POST', '/v1/robots', 422, 'VALIDATION_FAILED', { token, body: { robot_descriptor: { robot_id: 7 } } }],
    ['wia', 'POST', '/v1/robots', 409, 'ROBOT_ALREADY_EXISTS', { token, body: describeRobot('RB-1') }],
    ['wia', 'GET', '/v1/robots?limit=201', 422, 'VALIDATION_FAILED', { token }],
    ['wia', 'GET', '/v1/robots?limit=1&limit=2', 422, 'VALIDATION_FAILED', { token }],
    ['wia', 'GET', '/v1/robots?lmit=1', 422, 'VALIDATION_FAILED', { token }],
    [
      'wia',
      'GET',
      '/v1/robots/RB-1/state/history?start_time=2026-02-01T00:00:00Z&end_time=2026-01-01T00:00:00Z',
      422,
      'VALIDATION_FAILED',
      { token },
    ],
    ['wia', 'GET', '/v1/robots/RB-1/state/history?fields=batery', 422, 'VALIDATION_FAILED', { token }],
    ['qers', 'GET', '/v1/runs/none', 404, 'not_found'],
    ['qers', 'POST', '/openapi.json', 405, 'method_not_allowed'],
    ['panthers', 'GET', '/deployments', 404, 'NOT_FOUND'],
    ['panthers', 'POST', '/v1/auth/challenge', 404, 'NOT_FOUND'],
    ['orchestrator', 'GET', '/api/v1/sessions', 404, 'NOT_FOUND'],
    ['orchestrator', 'POST', '/ready', 405, 'METHOD_NOT_ALLOWED'],
    ['system', 'GET', '/nothing/here', 404, 'NOT_FOUND'],
  ];
  for (const [surface, method, path, status, code, options] of cases) {
    const answer = await call(method, path, {
      ...options,
      headers: { 'x-request-id': 'trace.1_a-b', ...options?.headers },
    });
    const name = `${method} ${path.slice(0, 60)} is ${status} ${code}`;
    t.equal(answer.status, status, `${name}: ${answer.text.slice(0, 160)}`);
    t.same(readError(surface, answer), { code, requestId: 'trace.1_a-b' }, name);
    t.equal(answer.headers.get('x-request-id'), 'trace.1_a-b');
  }
  const strange = await call('GET', '/ready', { headers: { 'x-request-id': 'a b' } });
  t.match(strange.headers.get('x-request-id'), /^req_[0-9A-Z]{26}$/, 'an id that is not usable is replaced');
});

t.test('a path that is spelled oddly meets the same check', async (t) => {
  for (const path of ['/v1/%72obots', '/v1/robots/%52B-1', '/api/v1/robots/%52B-1/health']) {
    t.equal((await call('GET', path)).status, 401, path);
    t.equal((await call('GET', path, { token })).status, 200, path);
    t.equal((await call('GET', path, { token: other, headers: {} })).status, path === '/v1/%72obots' ? 200 : 404, path);
  }
});

t.test('telemetry is taken alone, in a list and in an envelope, and the same content is the same event', async (t) => {
  const one = await call('POST', '/api/v1/telemetry/events', { token, body: EVENT });
  t.equal(one.status, 202);
  t.same(Object.keys(one.json), ['accepted', 'event_id', 'ingested_at']);
  const again = await call('POST', '/api/v1/telemetry/events', { token, body: EVENT });
  t.equal(again.json['event_id'], one.json['event_id']);
  const events = [
    EVENT,
    { ...EVENT, robot_id: 'RB-2', power: { battery_soc: 0.5 } },
    { ...EVENT, timestamp: '2026-01-11T06:12:00+01:00', imu: { yaw: 1 } },
  ];
  for (const body of [events, { events }]) {
    const many = await call('POST', '/api/v1/telemetry/events', { token, body });
    t.equal(many.status, 202, many.text);
    const ids = (many.json as { event_ids?: string[] }).event_ids ?? [];
    t.equal(ids.length, 3);
    t.equal(ids[0], one.json['event_id']);
  }
  const refused: [unknown, RegExp][] = [
    [{ ...EVENT, robot_id: 'RB-404' }, /RB-404/],
    [{ robot_id: 'RB-1', timestamp: EVENT.timestamp }, /joint_state/],
    [{ ...EVENT, joint_state: [{ name: 'a' }, { name: 'a' }] }, /twice/],
    [{ ...EVENT, secret: 1 }, /secret/],
    ['{"robot_id":"RB-1","timestamp":"2026-01-11T05:12:00Z","power":{"draw_w":1e400}}', /power\.draw_w/],
    ['{"robot_id":"RB-1","timestamp":"2026-01-11T05:12:00Z","power":{"draw_w":NaN}}', /not valid JSON/],
    ['{"robot_id":"RB-1","robot_id":"RB-2","timestamp":"2026-01-11T05:12:00Z"}', /robot_id is there twice/],
    ['['.repeat(100_000), /nested deeper/],
    [{ ...EVENT, timestamp: '2126-01-11T05:12:00Z' }, /timestamp/],
    [{ ...EVENT, timestamp: '0001-01-01T00:00:00Z' }, /timestamp/],
    [{ events: [] }, /events/],
    [[], /body/],
    [null, /body/],
  ];
  for (const [body, message] of refused) {
    const answer = await call('POST', '/api/v1/telemetry/events', { token, body });
    t.ok(answer.status === 400 || answer.status === 404, `${answer.status} ${answer.text.slice(0, 120)}`);
    t.match(answer.text, message);
  }
});

t.test('what was stored comes out of state, history, counts and export', async (t) => {
  const start = Date.now() - 60_000;
  const events = Array.from({ length: 30 }, (_, index) => ({
    robot_id: 'RB-2',
    timestamp: new Date(start + index * 1000).toISOString(),
    joint_state: [{ name: 'knee', position: index / 3, torque_nm: 5e-324 }],
    power: { battery_soc: index / 100 },
  }));
  // JSON.stringify writes -0 as 0.
  const body = JSON.stringify(events).replace(`"position":${7 / 3}`, '"position":-0');
  t.equal((await call('POST', '/api/v1/telemetry/events', { token, body })).status, 202);
  const { json: state } = await call('GET', '/v1/robots/RB-2/state', { token });
  t.match(state, {
    data: {
      operational_state: 'operational',
      battery: { percentage: 29 },
      kinematic_state: { joints: [{ name: 'knee', position: 29 / 3 }] },
    },
  });
  const { json: health } = await call('GET', '/api/v1/robots/RB-2/health', { token });
  t.match(health, {
    robot_id: 'RB-2',
    health_score: 0.5,
    risk_level: 'medium',
    anomaly_score: null,
    liveness: { presence: null },
  });
  const range = `start_time=${new Date(start).toISOString()}&end_time=${new Date(start + 60_000).toISOString()}`;
  const { json: history } = await call(
    'GET',
    `/v1/robots/RB-2/state/history?${range}&fields=battery,joints&interval=10`,
    { token },
  );
  t.same(
    (history as { data?: { states: { battery: number }[] } }).data?.states.map((entry) => entry.battery),
    [9, 19, 29],
  );
  const stream = encodeURIComponent('api/joint_state');
  const { text } = await call('GET', `/v1/robots/RB-2/telemetry/export?stream=${stream}&${range}`, { token });
  const lines = text
    .trim()
    .split('\n')
    .map(
      (line) =>
        JSON.parse(line) as {
          layout?: unknown;
          values?: number[];
          end?: boolean;
          samples?: number;
          cursor?: string | null;
        },
    );
  const samples = lines.filter((line) => line.values);
  t.equal(samples.length, 30);
  t.ok(
    samples.every((line, index) => Object.is(line.values?.[0], index === 7 ? -0 : index / 3)),
    'to the bit, -0 included',
  );
  t.same(lines.at(-1), { end: true, samples: 30, cursor: null });
  let cursor = '';
  const paged: number[] = [];
  do {
    const page = await call(
      'GET',
      `/v1/robots/RB-2/telemetry/export?stream=${stream}&${range}&limit=7${cursor && `&cursor=${cursor}`}`,
      { token },
    );
    const parts = page.text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { values?: number[]; cursor?: string | null });
    paged.push(...parts.flatMap((line) => line.values?.slice(0, 1) ?? []));
    cursor = parts.at(-1)?.cursor ?? '';
  } while (cursor !== '');
  t.same(
    paged,
    samples.map((line) => line.values?.[0]),
  );
  const { json: counts } = await call('GET', '/v1/robots/RB-2/telemetry/counts', { token });
  const byStream = (counts as { data?: { streams: { stream: string; samples: number }[] } }).data?.streams ?? [];
  t.equal(byStream.find((entry) => entry.stream === 'api/joint_state')?.samples, 30);
});

t.test('the list can be filtered, and pages add up', async (t) => {
  const list = async (
    query: string,
  ): Promise<{ robots: { robot_id: string }[]; pagination: Record<string, unknown> }> =>
    (
      (await call('GET', `/v1/robots?${query}`, { token })).json as unknown as {
        data: { robots: { robot_id: string }[]; pagination: Record<string, unknown> };
      }
    ).data;
  t.same(
    (await list('')).robots.map((robot) => robot.robot_id),
    ['RB-1', 'RB-2'],
  );
  t.same((await list('limit=1')).pagination, { total: 2, limit: 1, offset: 0, has_more: true });
  t.same((await list('limit=1&offset=1')).pagination, { total: 2, limit: 1, offset: 1, has_more: false });
  t.equal((await list('capability=lift')).robots.length, 2);
  t.equal((await list('capability=fly')).robots.length, 0);
  t.equal((await list("capability=' or 1=1 --")).robots.length, 0);
  t.equal((await list('type=arm&status=operational')).robots.length, 2);
  t.equal((await list('type=arm&status=maintenance')).pagination['total'], 0);
});

t.test('a certificate needs the robot’s own key and its own key pair', async (t) => {
  const registered = (await call('POST', '/v1/robots', { token, body: describeRobot('RB-C') })).json as unknown as {
    data: { api_key: string };
  };
  const key = registered.data.api_key;
  const path = '/v1/robots/RB-C/certificates';
  t.equal((await call('POST', path, { token, body: { csr: 'x' } })).status, 403, 'an operator cannot ask for it');
  t.equal((await call('POST', path, { token: key, body: { csr: 'x' } })).status, 422);
  t.equal(
    (await call('GET', '/v1/robots/RB-C', { headers: { 'x-api-key': key } })).status,
    200,
    'the key also goes into X-API-Key',
  );
  t.equal(
    (await call('POST', '/api/v1/telemetry/events', { token: key, body: { ...EVENT, robot_id: 'RB-C' } })).status,
    202,
  );
  t.equal((await call('POST', '/api/v1/telemetry/events', { token: key, body: EVENT })).status, 403);
  t.equal((await call('POST', '/v1/robots', { token: key, body: describeRobot('RB-D') })).status, 403);
});

t.test('rate limits stand in the headers of each surface, and never on telemetry or a stop', async (t) => {
  await harness.identity.accounts.createTenant('free', 'Free', 'free');
  const secret = await harness.identity.accounts.createClient({ clientId: 'free-client', tenantId: 'free' });
  const body = { client_id: 'free-client', client_secret: secret, grant_type: 'client_credentials' };
  const granted = await call('POST', '/api/v1/auth/token', { body });
  t.match(granted.headers.get('x-ratelimit-limit'), /^\d+$/);
  const free = (granted.json as { access_token?: string }).access_token ?? '';
  const first = await call('GET', '/v1/robots', { token: free });
  t.equal(first.headers.get('x-rate-limit-limit'), '100');
  t.equal(first.headers.get('x-rate-limit-remaining'), '99');
  t.ok(Number(first.headers.get('x-rate-limit-reset')) > Date.now() / 1000);
  for (let request = 0; request < 99; request += 1) await call('GET', '/v1/robots', { token: free });
  const over = await call('GET', '/v1/robots', { token: free, headers: { 'x-forwarded-for': '10.9.8.7' } });
  t.match(over, { status: 429, json: { error: { code: 'RATE_LIMIT_EXCEEDED' } } });
  t.ok(Number(over.headers.get('retry-after')) >= 1);
  t.match(await call('GET', '/api/v1/robots/x/health', { token: free }), {
    status: 429,
    json: { error: { code: 'RESOURCE_EXHAUSTED' } },
  });
  t.equal((await call('POST', '/api/v1/telemetry/events', { token: free, body: EVENT })).status, 404, 'not throttled');
  t.equal(
    (await call('POST', '/api/v1/robots/x/failsafe/trigger', { token: free, body: { mode: 'emergency_stop' } })).status,
    404,
    'nor a stop',
  );
});

t.test('a token that was taken back is refused at once', async (t) => {
  const short = await harness.token('default', ['robot:read']);
  t.equal((await call('GET', '/v1/robots', { token: short })).status, 200);
  t.match((await call('POST', '/api/v1/auth/revoke', { token: short })).json, { revoked: true });
  t.equal((await call('GET', '/v1/robots', { token: short })).status, 401);
});

contractTests(t, harness, other);
hostileTests(t, harness, token);

t.test('health, readiness, metrics, keys and documentation are there without a token', async (t) => {
  for (const path of ['/health', '/v1/health', '/api/health', '/api/v1/health'])
    t.match((await call('GET', path)).json, {
      status: 'healthy',
      version: '0.0.0-test',
      uptime: Number,
      deployments_active: 0,
      checks: { database: { status: 'ok' } },
    });
  t.match((await call('GET', '/ready')).json, { ready: true, reasons: [] });
  const metrics = await call('GET', '/metrics');
  t.match(metrics.text, /outrider_http_request_seconds_count\{method="GET",route="\/v1\/robots\/\{robot_id\}"/);
  t.match((await call('GET', '/.well-known/jwks.json')).json, { keys: [{ alg: 'EdDSA', crv: 'Ed25519' }] });
  const docs = await call('GET', '/docs');
  t.match(docs.headers.get('content-security-policy'), /default-src 'none'; script-src 'self'/);
  t.equal((await call('GET', '/docs/swagger-ui-bundle.js')).status, 200);
  for (const file of ['package.json', '..%2fpackage.json', '__proto__', 'index.html'])
    t.equal((await call('GET', `/docs/${file}`)).status, 404, file);
  harness.api.core.readiness.stop();
  t.match(await call('GET', '/health'), { status: 503, json: { status: 'unhealthy' } });
  t.match((await call('GET', '/ready')).json, { ready: false, reasons: ['process: shutting down'] });
});

t.test('nothing that was secret stands in the log', async (t) => {
  const log = harness.log.join('');
  t.ok(log.includes('http.answered'));
  t.notOk(log.includes(token), 'no token');
  t.notMatch(log, /wia_sk_live_|ocs_|eyJ/, 'no key and no secret');
  t.notMatch(log, /"level":50/, 'and no request failed by our fault');
});

t.test('every answer of this file was as the OpenAPI document says', async (t) => {
  t.ok(harness.contract.seen.size > 50, `${harness.contract.seen.size} operations and statuses were seen`);
  t.same([...harness.contract.problems], []);
});
