import { type CryptoKey, generateKeyPair, SignJWT } from 'jose';
import t from 'tap';
import { SCOPES } from '../src/identity/principal.ts';
import { describeRobot, startHarness } from './api-harness.ts';

/** Every token × every route of the OpenAPI document × a tenant that owns things and one that does not. */

const harness = await startHarness({ answerTimeoutMs: 200, recoverTimeoutMs: 200 });
const { call, database } = harness;
t.teardown(() => harness.close());

const OWNER = 'owner-tenant';
const ROBOT = 'RB-SECRET';
const MARK = 'canary-7f3a';
const owner = await harness.token(OWNER);
const stranger = await harness.token('stranger-tenant');

async function make(path: string, body: unknown, id: string): Promise<string> {
  const answer = await call('POST', path, { token: owner, body });
  if (answer.status >= 300) throw new Error(`POST ${path} as its owner: ${answer.status} ${answer.text}`);
  const flat = { ...answer.json, ...(answer.json['data'] as object | undefined) } as Record<string, unknown>;
  return String(flat[id]);
}

const signal = { kind: 'temperature', field: 'temperature' };
const rule = {
  name: `${MARK} rule`,
  severity: 'warning',
  condition: { kind: 'threshold', signal, operator: '>', value: 80 },
};
const robotKey = await make('/v1/robots', describeRobot(ROBOT), 'api_key');
const neighbourKey = await make('/v1/robots', describeRobot('RB-NEIGHBOUR'), 'api_key');
const telemetry = { robot_id: ROBOT, timestamp: new Date().toISOString(), flags: [MARK], thermal: { motor_max_c: 50 } };
await make('/api/v1/telemetry/events', telemetry, 'event_id');
await database.query(
  `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
   select robot_pk, 'failsafe', now(), now(), '{"phase":"ARMED","latch_id":7,"motion_epoch":4,"causes":[]}'::jsonb
     from robot where robot_id = $1`,
  [ROBOT],
);
const rulePath = '/api/v1/alerts/rules';
const webhookPath = '/api/v1/alerts/webhooks';
const command = { command: 'hold', reason: MARK, expires_in_ms: 600_000 };
const ids: Record<string, string> = {
  robot_id: ROBOT,
  rule_id: await make(rulePath, rule, 'rule_id'),
  webhook_id: await make(webhookPath, { url: `https://example.com/${MARK}` }, 'webhook_id'),
  command_id: await make(`/api/v1/robots/${ROBOT}/commands`, command, 'command_id'),
};

interface Operation {
  readonly method: string;
  readonly path: string;
  readonly isPublic: boolean;
}
const document = (await call('GET', '/openapi.json')).json as unknown as {
  paths: Record<string, Record<string, { security?: object[] }>>;
};
const operations: Operation[] = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, { security }]) => ({
    method: method.toUpperCase(),
    path,
    isPublic: (security ?? []).length === 0,
  })),
);
const guarded = operations.filter(({ isPublic }) => !isPublic);

/** Bodies that name what belongs to the owner. */
const BODIES: Record<string, unknown> = {
  // Ids are each tenant's own, so a stranger may have a robot of the same name: another one here.
  '/v1/robots': describeRobot('RB-MINE'),
  '/v1/robots/{robot_id}/certificates': { csr: 'x' },
  '/api/v1/telemetry/events': telemetry,
  '/api/v1/robots/{robot_id}/failsafe/trigger': { mode: 'emergency_stop' },
  '/api/v1/robots/{robot_id}/failsafe/recover': { latch_id: 7 },
  '/api/v1/robots/{robot_id}/commands': command,
  '/api/v1/robots/{robot_id}/blackboxes/{box_id}/chunks': { size: 1, sha256: '0'.repeat(64), offset: 0, data: 'AA==' },
  [rulePath]: { ...rule, name: 'mine', robot_ids: [ROBOT] },
  [`${rulePath}/{rule_id}`]: { name: 'mine now', enabled: false },
  [`${webhookPath}/{webhook_id}`]: { enabled: false },
};
function bodyOf({ method, path }: Operation): unknown {
  if (method === 'GET' || method === 'DELETE') return undefined;
  return BODIES[path] ?? { alert_id: 'alt_x' };
}
const concrete = (path: string): string =>
  path.replaceAll(/\{(\w+)\}/g, (_all, name: string) => ids[name] ?? 'ff') +
  (path.endsWith('/export') ? '?stream=api/flags' : '');
const ask = (operation: Operation, headers: Record<string, string>) =>
  call(operation.method, concrete(operation.path), { headers, body: bodyOf(operation) });
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

/** Everything that the owner has, as the database holds it. */
async function holdings(): Promise<string> {
  const rows = await database.query<{ what: string }>(
    `select json_build_object(
       'robots', (select json_agg(r order by r.robot_pk) from robot r where tenant_id = $1),
       'keys', (select count(*) from robot_api_key join robot using (robot_pk)
                 where tenant_id = $1 and revoked_at is null),
       'commands', (select json_agg(c order by c.command_id) from command c),
       'rules', (select json_agg(a order by a.rule_id) from alert_rule a where tenant_id = $1),
       'webhooks', (select json_agg(w order by w.webhook_id) from alert_webhook w where tenant_id = $1),
       'blocks', (select count(*) from telemetry_block))::text as what`,
    [OWNER],
  );
  return rows[0]?.what ?? '';
}

t.test('the document has the routes, and only these few of them are for everybody', (t) => {
  t.ok(guarded.length >= 25, `${guarded.length} routes need a token`);
  const isOpen =
    /^\/(v1\/|api\/|api\/v1\/)?(health|ready|metrics|docs|openapi\.json|asyncapi\.json|schemas|\.well-known)/;
  const others = operations.filter(({ isPublic, path }) => isPublic && !isOpen.test(path)).map(({ path }) => path);
  // The stream asks for a token or a ticket itself; the other two are where tokens come from.
  t.same(others.sort(), ['/api/v1/auth/token', '/api/v1/dashboard/stream', '/v1/auth/login']);
  t.end();
});

t.test('no false token opens any route', async (t) => {
  const { kid, key } = harness.identity.keys.signer();
  const nowS = Math.floor(Date.now() / 1000);
  const { privateKey } = await generateKeyPair('EdDSA');
  const sign = (change: { issuer?: string; audience?: string; exp?: number; key?: CryptoKey }) => {
    const token = new SignJWT({
      tenant: OWNER,
      scope: SCOPES.join(' '),
      sub: 'mallory',
      jti: 'tok_matrix',
      iat: nowS - 900,
    })
      .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'at+jwt' })
      .setIssuer(change.issuer ?? 'urn:outrider:cloud')
      .setAudience(change.audience ?? 'urn:outrider:api')
      .setExpirationTime(change.exp ?? nowS + 600);
    return token.sign(change.key ?? key);
  };
  const good = await sign({});
  t.equal((await call('GET', `/v1/robots/${ROBOT}`, { token: good })).status, 200, 'the frame of this test is right');
  const [, payload] = good.split('.');
  const none = Buffer.from(JSON.stringify({ alg: 'none', kid, typ: 'at+jwt' })).toString('base64url');
  const jwks = await call('GET', '/.well-known/jwks.json');
  const hmacKey = new TextEncoder().encode(jwks.text);
  const hmac = await new SignJWT({ tenant: OWNER, scope: SCOPES.join(' '), sub: 'mallory', jti: 'tok_hmac' })
    .setProtectedHeader({ alg: 'HS256', kid, typ: 'at+jwt' })
    .setIssuer('urn:outrider:cloud')
    .setAudience('urn:outrider:api')
    .setIssuedAt(nowS)
    .setExpirationTime(nowS + 600)
    .sign(hmacKey);
  const callers: Record<string, Record<string, string>> = {
    nobody: {},
    'no scheme': { authorization: good },
    'basic authentication': { authorization: `Basic ${Buffer.from('a:b').toString('base64')}` },
    'alg none': bearer(`${none}.${payload}.`),
    'our public keys as a shared secret': bearer(hmac),
    'a foreign key': bearer(await sign({ key: privateKey })),
    expired: bearer(await sign({ exp: nowS - 300 })),
    'another issuer': bearer(await sign({ issuer: 'urn:else' })),
    'another audience': bearer(await sign({ audience: 'urn:else' })),
    'a made-up key of a robot': { 'x-api-key': 'wia_sk_live_0000000000000000000000000000000000000000000' },
  };
  const before = await holdings();
  for (const [name, headers] of Object.entries(callers)) {
    const opened: string[] = [];
    for (const operation of guarded) {
      const { status, text } = await ask(operation, headers);
      if (status !== 401 || text.includes(MARK)) opened.push(`${operation.method} ${operation.path}: ${status}`);
    }
    t.same(opened, [], `${name}: 401 on ${guarded.length} routes`);
  }
  t.equal(await holdings(), before, 'nothing was changed');
});

t.test(
  'a token without the scope, for another tenant, or for another robot reaches nothing of the owner',
  async (t) => {
    const before = await holdings();
    const sentBefore = harness.bus.sent.length;
    // No route so far is for work sessions.
    const useless = bearer(await harness.token(OWNER, ['work:read']));
    const spoofed = { ...bearer(stranger), 'x-tenant-id': OWNER };
    const wrong: string[] = [];
    let looked = 0;
    for (const operation of guarded) {
      const name = `${operation.method} ${operation.path}`;
      if (operation.path === '/api/v1/auth/revoke') continue;
      looked += 1;
      const withoutScope = await ask(operation, useless);
      if (withoutScope.status !== 403) wrong.push(`${name} without a scope: ${withoutScope.status}`);
      const otherTenant = await ask(operation, spoofed);
      if (otherTenant.status !== 403) wrong.push(`${name} with a false X-Tenant-ID: ${otherTenant.status}`);
      const foreign = await ask(operation, bearer(stranger));
      if (foreign.text.includes(MARK) || foreign.text.includes(ids['rule_id'] ?? '-'))
        if (!concrete(operation.path).includes(ids['rule_id'] ?? '-'))
          wrong.push(`${name} tells a stranger of the owner`);
      const named = /\{(\w+)\}/.exec(operation.path)?.[1];
      if (named && ![403, 404].includes(foreign.status)) wrong.push(`${name} for a stranger: ${foreign.status}`);
      if (!operation.path.includes('{robot_id}')) continue;
      const neighbour = await ask(operation, { 'x-api-key': neighbourKey });
      if (neighbour.status !== 403) wrong.push(`${name} with the key of another robot: ${neighbour.status}`);
    }
    t.same(wrong, [], `${looked} routes`);
    t.ok(looked >= 25, `${looked} routes were tried`);
    t.equal(await holdings(), before, 'nothing of the owner was changed');
    t.equal(harness.bus.sent.length, sentBefore, 'no robot was told anything');
  },
);

t.test('no secret of this run stands in the log or in the database', async (t) => {
  const log = harness.log.join('');
  t.ok(log.length > 0);
  const secrets = { robotKey, neighbourKey, owner, stranger };
  for (const [name, secret] of Object.entries(secrets)) {
    t.notOk(log.includes(secret), `${name} is not in the log`);
    for (const table of ['robot_api_key', 'oauth_client', 'audit_entry', 'alert_webhook', 'signing_key', 'command'])
      t.same(
        await database.query(`select 1 from ${table} x where strpos(x::text, $1) > 0`, [secret]),
        [],
        `${name} is not in ${table}`,
      );
  }
});
