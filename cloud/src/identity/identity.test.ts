import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { type EpochMs, type MonotonicMs, systemClock } from '@outrider/shared/time';
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose';
import t from 'tap';
import { Throttle } from '../api/throttle.ts';
import { SecretBox } from '../storage/secret-box.ts';
import { Accounts } from './accounts.ts';
import { Authenticator } from './authenticator.ts';
import { bootstrap } from './bootstrap.ts';
import type { IdentityStore, StoredClient, StoredSigningKey, StoredUser, Tenant } from './ports.ts';
import { coversScope, type Principal, parseScopes, requireRobot, requireScope, SCOPES } from './principal.ts';
import { fingerprint, SecretVerifier } from './secrets.ts';
import { SigningKeys } from './signing-keys.ts';
import { Tokens } from './tokens.ts';

const OPTIONS = { issuer: 'urn:test', audience: 'urn:test:api' };
const PRINCIPAL: Principal = { kind: 'client', sub: 'c', tenantId: 'default', scopes: ['robot:read'] };

/** A store in memory, and clocks that stand still until told. */
function world() {
  const tenants = new Map<string, Tenant>();
  const clients = new Map<string, StoredClient>();
  const users = new Map<string, StoredUser>();
  const keys = new Map<string, StoredSigningKey>();
  const robotKeys = new Map<string, { tenantId: string; robotId: string }>();
  const revoked = new Map<string, number>();
  let robotKeyReads = 0;
  const add = <V>(map: Map<string, V>, key: string, value: V): boolean => !map.has(key) && map.set(key, value).has(key);
  const store: IdentityStore = {
    tenant: async (id) => tenants.get(id),
    addTenant: async (tenant) => add(tenants, tenant.tenantId, tenant),
    client: async (id) => clients.get(id),
    addClient: async (client) => add(clients, client.clientId, { ...client, revoked: false }),
    user: async (name) => users.get(name),
    addUser: async (user) => add(users, user.username, { ...user, disabled: false }),
    signingKeys: async () => [...keys.values()],
    addSigningKey: async (key) => void keys.set(key.kid, key),
    retireSigningKeysExcept: async (kid, atMs) => {
      for (const [id, key] of keys) if (id !== kid) keys.set(id, { retiredAtMs: atMs, ...key });
    },
    robotKey: async (hash) => {
      robotKeyReads += 1;
      return robotKeys.get(hash);
    },
    revokeToken: async (id, atMs) => void revoked.set(id, atMs),
    revokedTokens: async (nowMs) => [...revoked].filter(([, atMs]) => atMs > nowMs).map(([id]) => id),
  };
  let nowMs = Date.UTC(2026, 0, 1);
  const clock = { epochMs: () => nowMs as EpochMs, monotonicMs: () => nowMs as MonotonicMs };
  const box = new SecretBox('0123456789abcdef0123456789abcdef');
  const signing = new SigningKeys(store, box, clock);
  const tokens = new Tokens(signing, store, clock, OPTIONS);
  return {
    store,
    clock,
    box,
    signing,
    tokens,
    accounts: new Accounts(store, tokens, new SecretVerifier()),
    clients,
    keys,
    robotKeys,
    reads: () => robotKeyReads,
    pass: (ms: number) => {
      nowMs += ms;
    },
  };
}

const codeOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'accepted',
    (error: unknown) => (error instanceof DomainError ? error.code : String(error)),
  );

t.test('a token gives back its principal until it expires, with a minute of leeway', async (t) => {
  const { signing, tokens, pass, store, box, clock } = world();
  await signing.open();
  const { accessToken } = await tokens.issue({ ...PRINCIPAL, robotIds: ['RB-1'] });
  const principal = await tokens.verify(accessToken);
  t.match(principal, { sub: 'c', tenantId: 'default', scopes: ['robot:read'], robotIds: ['RB-1'], tokenId: /^tok_/ });
  const replica = new SigningKeys(store, box, clock);
  await replica.open();
  t.match(await new Tokens(replica, store, clock, OPTIONS).verify(accessToken), { sub: 'c' }, 'another replica agrees');
  pass(3_659_000);
  t.equal(await codeOf(tokens.verify(accessToken)), 'accepted');
  pass(2_000);
  t.equal(await codeOf(tokens.verify(accessToken)), 'token_expired', 'although it was verified before');
  t.equal(await codeOf(new Tokens(signing, store, clock, OPTIONS).verify(accessToken)), 'token_expired');
});

t.test('only our own whole tokens are taken', async (t) => {
  const { signing, tokens, clock } = world();
  await signing.open();
  const { kid, key } = signing.signer();
  const nowS = Math.floor(clock.epochMs() / 1000);
  const claims = { tenant: 'default', scope: 'robot:read' };
  const make = async (change: {
    header?: Record<string, unknown>;
    claims?: Record<string, unknown>;
    issuer?: string;
    audience?: string;
    exp?: number;
    key?: CryptoKey;
  }): Promise<string> => {
    const jwt = new SignJWT({ ...claims, sub: 'c', jti: 'tok_1', iat: nowS, ...change.claims })
      .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'at+jwt', ...change.header })
      .setIssuer(change.issuer ?? OPTIONS.issuer)
      .setAudience(change.audience ?? OPTIONS.audience);
    if (change.exp !== 0) jwt.setExpirationTime(change.exp ?? nowS + 60);
    return jwt.sign(change.key ?? key);
  };
  t.equal(await codeOf(tokens.verify(await make({}))), 'accepted', 'the frame of this test is right');
  const foreign = await generateKeyPair('EdDSA', { extractable: true });
  const secret = new TextEncoder().encode(JSON.stringify(await exportJWK(foreign.publicKey)));
  const hmac = await new SignJWT({ ...claims, sub: 'c', jti: 'tok_1' })
    .setProtectedHeader({ alg: 'HS256', kid, typ: 'at+jwt' })
    .setIssuer(OPTIONS.issuer)
    .setAudience(OPTIONS.audience)
    .setIssuedAt(nowS)
    .setExpirationTime(nowS + 60)
    .sign(secret);
  const good = await make({});
  const [head, body, signature] = good.split('.') as [string, string, string];
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const none = `${encode({ alg: 'none', kid, typ: 'at+jwt' })}.${body}.`;
  const cases: Record<string, string> = {
    'alg none': none,
    'alg none with a signature': none + signature,
    'another algorithm': hmac,
    'a foreign key under our id': await make({ key: foreign.privateKey }),
    'an unknown key id': await make({ header: { kid: 'key_other' } }),
    'its own key in the header': await make({
      header: { jwk: await exportJWK(foreign.publicKey) },
      key: foreign.privateKey,
    }),
    'another issuer': await make({ issuer: 'urn:else' }),
    'another audience': await make({ audience: 'urn:else' }),
    'another type': await make({ header: { typ: 'JWT' } }),
    'no expiry': await make({ exp: 0 }),
    'no tenant': await make({ claims: { tenant: undefined } }),
    'no subject': await make({ claims: { sub: undefined } }),
    'no id': await make({ claims: { jti: undefined } }),
    'a tenant that is no text': await make({ claims: { tenant: ['default'] } }),
    'robots that are no list': await make({ claims: { robot_ids: 'RB-1' } }),
    'issued in the future': await make({ claims: { iat: nowS + 3_600 }, exp: nowS + 7_200 }),
    'a changed payload': `${head}.${encode({ ...claims, sub: 'root' })}.${signature}`,
    'a cut signature': good.slice(0, -3),
    'base64 with padding': `${good}=`,
    'base64 of the other alphabet': `${head}.${body}.${signature.replaceAll('-', '+').replaceAll('_', '/')}+`,
    'space inside': good.replace('.', ' .'),
    'four parts': `${good}.x`,
    'an endless one': 'a'.repeat(100_000),
    nothing: '',
  };
  for (const [name, token] of Object.entries(cases))
    t.equal(await codeOf(tokens.verify(token)), 'unauthenticated', name);
  t.equal(await codeOf(tokens.verify(await make({ exp: nowS - 61 }))), 'token_expired', 'expired');
});

const VECTORS = new URL('../../../../../shared/data/jwt/json_web_signature_test.json', import.meta.url);
const skip = existsSync(VECTORS) ? false : 'the vectors of ../shared/data/jwt are not here';

t.test('published signature vectors never become one of our principals', { skip }, async (t) => {
  const { signing, tokens } = world();
  await signing.open();
  const vectors = JSON.parse(readFileSync(VECTORS, 'utf8')) as { testGroups: { tests: { jws: unknown }[] }[] };
  const all = vectors.testGroups.flatMap((group) =>
    group.tests.map(({ jws }) => (typeof jws === 'string' ? jws : JSON.stringify(jws))),
  );
  t.ok(all.length > 300, `${all.length} vectors`);
  const outcomes = new Set(await Promise.all(all.map((jws) => codeOf(tokens.verify(jws)))));
  t.same([...outcomes], ['unauthenticated']);
});

t.test('rotation keeps older tokens good for a day', async (t) => {
  const { signing, tokens, pass, store, box, clock } = world();
  await signing.open();
  const old = await tokens.issue(PRINCIPAL, 3 * 86_400);
  const kid = await signing.rotate();
  t.equal(signing.signer().kid, kid);
  t.equal(signing.jwks().keys.length, 2);
  t.notOk(JSON.stringify(signing.jwks()).includes('"d"'), 'no private part is published');
  const fresh = new Tokens(signing, store, clock, OPTIONS);
  t.equal(await codeOf(fresh.verify(old.accessToken)), 'accepted');
  pass(2 * 86_400_000);
  await signing.open();
  const later = new SigningKeys(store, box, clock);
  await later.open();
  t.equal(await codeOf(new Tokens(later, store, clock, OPTIONS).verify(old.accessToken)), 'unauthenticated');
  pass(91 * 86_400_000);
  await later.open();
  t.not(later.signer().kid, kid, 'a key of 90 days is replaced by itself');
});

t.test('a revoked token ends at once here and with the next refresh elsewhere', async (t) => {
  const { signing, tokens, store, clock } = world();
  await signing.open();
  const { accessToken } = await tokens.issue(PRINCIPAL);
  const replica = new Tokens(signing, store, clock, OPTIONS);
  await replica.verify(accessToken);
  await tokens.revoke(await tokens.verify(accessToken));
  t.equal(await codeOf(tokens.verify(accessToken)), 'unauthenticated');
  await replica.refreshRevocations();
  t.equal(await codeOf(replica.verify(accessToken)), 'unauthenticated');
});

t.test('clients and people get what they are allowed and no more', async (t) => {
  const { signing, tokens, accounts, clients } = world();
  await signing.open();
  await accounts.createTenant('default', 'Default', 'free');
  const secret =
    (await accounts.createClient({
      clientId: 'console',
      tenantId: 'default',
      scopes: ['robot:read', 'command:write'],
    })) ?? '';
  t.match(clients.get('console')?.secretHash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  t.equal(await accounts.createClient({ clientId: 'console', tenantId: 'default' }), undefined, 'not twice');
  const granted = await accounts.grantClientToken('console', secret, parseScopes('telemetry:read'));
  t.same((await tokens.verify(granted.accessToken)).scopes, ['telemetry:read'], 'the other name of robot:read');
  t.equal(await codeOf(accounts.grantClientToken('console', secret, ['robot:admin'])), 'invalid');
  t.equal(await codeOf(accounts.grantClientToken('console', `${secret}x`, [])), 'unauthenticated');
  t.equal(await codeOf(accounts.grantClientToken('nobody', secret, [])), 'unauthenticated');
  clients.set('console', { ...(clients.get('console') as StoredClient), revoked: true });
  t.equal(
    await codeOf(accounts.grantClientToken('console', secret, [])),
    'unauthenticated',
    'revoked, although the secret was right before',
  );
  const password = (await accounts.createUser({ username: 'ada', tenantId: 'default', robotIds: ['RB-1'] })) ?? '';
  const login = await accounts.login('ada', password, []);
  t.same(login.principal.robotIds, ['RB-1']);
  t.equal(await codeOf(accounts.login('ada', 'wrong', [])), 'unauthenticated');
  t.equal(await codeOf(accounts.createUser({ username: 'bob', tenantId: 'default', password: 'short' })), 'invalid');
  t.equal(await codeOf(accounts.createUser({ username: 'bob', tenantId: 'nowhere' })), 'not_found');
});

t.test('scopes: two names of one thing, and nothing by default', async (t) => {
  t.ok(coversScope(['telemetry:read'], 'robot:read'));
  t.ok(coversScope(['robot:control'], 'command:write'));
  t.notOk(coversScope(['robot:read'], 'robot:write'));
  t.notOk(coversScope([], 'robot:read'));
  t.throws(() => requireScope(PRINCIPAL, []), { code: 'forbidden' }, 'a route that names no scope lets nobody in');
  t.throws(() => requireRobot({ ...PRINCIPAL, robotIds: [] }, 'RB-1'), { code: 'forbidden' });
  t.throws(() => parseScopes('robot:read root:all'), { code: 'invalid', message: /'root:all' is not known/ });
  t.same(parseScopes('  robot:read   robot:read '), ['robot:read']);
});

t.test('a robot key speaks for its robot, and is looked up once per 15 s', async (t) => {
  const { signing, tokens, store, clock, robotKeys, reads, pass } = world();
  await signing.open();
  const authenticator = new Authenticator(tokens, store, clock, 'required', 'default');
  const key = `wia_sk_live_${randomBytes(32).toString('base64url')}`;
  robotKeys.set(fingerprint(key), { tenantId: 'default', robotId: 'RB-7' });
  for (const credentials of [{ authorization: `Bearer ${key}` }, { apiKey: key }, { authorization: `bearer  ${key}` }])
    t.match(await authenticator.authenticate(credentials), { kind: 'robot', robotIds: ['RB-7'], tenantId: 'default' });
  t.equal(reads(), 1);
  robotKeys.clear();
  pass(15_001);
  t.equal(await codeOf(authenticator.authenticate({ apiKey: key })), 'unauthenticated', 'revoked');
  const { accessToken } = await tokens.issue(PRINCIPAL);
  const authorization = `Bearer ${accessToken}`;
  t.equal(await codeOf(authenticator.authenticate({ authorization, tenantId: 'default' })), 'accepted');
  t.equal(await codeOf(authenticator.authenticate({ authorization, tenantId: 'other' })), 'forbidden');
  for (const bad of [
    undefined,
    '',
    'Bearer',
    `Basic ${accessToken}`,
    `Bearer ${accessToken} x`,
    'Bearer wia_sk_live_x',
  ])
    t.equal(
      await codeOf(authenticator.authenticate({ authorization: bad })),
      'unauthenticated',
      String(bad).slice(0, 20),
    );
  const open = new Authenticator(tokens, store, clock, 'optional', 'default');
  t.match(await open.authenticate({}), { kind: 'anonymous', tenantId: 'default', scopes: SCOPES });
  t.equal(
    await codeOf(open.authenticate({ authorization: 'Bearer x' })),
    'unauthenticated',
    'a wrong token is not no token',
  );
});

t.test('the first start makes accounts once and writes them where only the owner reads', async (t) => {
  const { signing, accounts } = world();
  await signing.open();
  const folder = t.testdir();
  const path = await bootstrap(accounts, folder, {});
  t.equal(path, join(folder, 'bootstrap.json'));
  t.equal(statSync(path ?? '').mode & 0o777, 0o600);
  const made = JSON.parse(readFileSync(path ?? '', 'utf8')) as Record<string, string>;
  t.match(made, { tenant_id: 'default', client_id: 'fleet-console', admin_user: 'admin' });
  t.equal(await codeOf(accounts.grantClientToken('fleet-console', made['client_secret'] ?? '', [])), 'accepted');
  t.equal(await codeOf(accounts.login('admin', made['admin_password'] ?? '', [])), 'accepted');
  t.equal(await bootstrap(accounts, folder, {}), undefined, 'not again');
  await bootstrap(accounts, folder, { clientId: 'second', clientSecret: 'given-secret-1' });
  const then = JSON.parse(readFileSync(path ?? '', 'utf8')) as Record<string, string>;
  t.match(then, { client_id: 'second', client_secret: 'given-secret-1', admin_password: made['admin_password'] });
});

t.test('rate limits: the sixth wrong secret is refused unseen, and a tier ends where it says', async (t) => {
  const { store, accounts, signing } = world();
  await signing.open();
  await accounts.createTenant('default', 'Default', 'free');
  const throttle = new Throttle(store, () => systemClock.monotonicMs());
  let seen = 0;
  const wrong = (address: string): Promise<string> =>
    codeOf(
      throttle.guardSecret('console', address, async () => {
        seen += 1;
        throw new DomainError('unauthenticated', 'wrong');
      }),
    );
  for (let attempt = 0; attempt < 5; attempt += 1) t.equal(await wrong('10.0.0.1'), 'unauthenticated');
  t.equal(await wrong('10.0.0.1'), 'too_many');
  t.equal(seen, 5);
  t.equal(await wrong('10.0.0.2'), 'unauthenticated', 'another address is not held to it');
  for (let request = 1; request <= 100; request += 1) {
    const allowance = await throttle.takeRequest(PRINCIPAL);
    if (request === 1) t.match(allowance, { limit: 100, remaining: 99 });
  }
  await t.rejects(throttle.takeRequest(PRINCIPAL), { code: 'too_many', retryAfterS: Number });
  t.match(await throttle.takeRequest({ ...PRINCIPAL, sub: 'another' }), { remaining: 99 });
});
