import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '@outrider/shared/time';
import { compactVerify, importJWK, type JWK } from 'jose';
import t from 'tap';
import type { IdentityStore, StoredSigningKey } from '../src/identity/ports.ts';
import { SigningKeys } from '../src/identity/signing-keys.ts';
import { isCompactJws, Tokens } from '../src/identity/tokens.ts';
import { startHarness } from './api-harness.ts';

interface VectorGroup {
  readonly private?: JWK & { readonly keys?: JWK[] };
  readonly public?: JWK & { readonly keys?: JWK[] };
  readonly tests: readonly { tcId: number; comment: string; jws: unknown; result: 'valid' | 'invalid' }[];
}

/** Project Wycheproof's vectors; absent on a clone of the repository alone. */
const DATA = resolve(fileURLToPath(new URL('../../../..', import.meta.url)), 'shared/data/jwt');
const skip = existsSync(DATA) ? false : `${DATA} is not there`;
const groupsOf = (file: string): VectorGroup[] =>
  (JSON.parse(readFileSync(resolve(DATA, file), 'utf8')) as { testGroups: VectorGroup[] }).testGroups;
const textOf = (jws: unknown): string => (typeof jws === 'string' ? jws : JSON.stringify(jws));

const keyOf = (group: VectorGroup): string => JSON.stringify(group.public ?? group.private);

/** Our verifier, with these public keys in its database. */
async function verifierWith(keys: readonly JWK[]): Promise<(token: string) => Promise<boolean>> {
  const stored = keys.map(
    (jwk, index): StoredSigningKey => ({
      kid: jwk.kid ?? 'none',
      publicJwk: jwk,
      sealedPrivateJwk: '',
      createdAtMs: index,
      retiredAtMs: systemClock.epochMs(),
    }),
  );
  const store = { signingKeys: async () => stored, revokedTokens: async () => [] } as unknown as IdentityStore;
  const box = { seal: () => '', open: () => '' };
  const signing = new SigningKeys(store, box, systemClock);
  const tokens = new Tokens(signing, store, systemClock, { issuer: 'i', audience: 'a' });
  return async (token) =>
    tokens.verify(token).then(
      () => true,
      () => false,
    );
}

t.test('no token of the JWS vectors that must be refused is accepted', { skip }, async (t) => {
  let refused = 0;
  let taken = 0;
  // Two that must be refused are, with their key, the same text as one that must be taken: what was odd in them is lost.
  const good = new Set<string>();
  for (const group of groupsOf('json_web_signature_test.json'))
    for (const { jws, result } of group.tests) if (result === 'valid') good.add(`${keyOf(group)} ${textOf(jws)}`);
  for (const group of groupsOf('json_web_signature_test.json')) {
    const jwk = group.public ?? group.private;
    if (!jwk) continue;
    const accepts = await verifierWith([jwk]);
    for (const { tcId, comment, jws, result } of group.tests) {
      const token = textOf(jws);
      if (await accepts(token)) t.fail(`our verifier took ${tcId} ${comment}`);
      // Our tokens have one algorithm, which no vector has: what we add to the library is held against the library.
      const isGood =
        isCompactJws(token) &&
        (await importJWK(jwk, jwk.alg)
          .then((key) => compactVerify(token, key))
          .then(
            () => true,
            () => false,
          ));
      if (isGood && result === 'invalid' && !good.has(`${keyOf(group)} ${token}`))
        t.fail(`spelling and library together took ${tcId} ${comment}`);
      if (result === 'invalid') refused += 1;
      else if (isGood) taken += 1;
    }
  }
  t.equal(refused, 355, 'vectors that must be refused');
  t.ok(taken >= 30, `${taken} good ones pass, so that the frame of this test is right`);
});

t.test('no key of the JWK vectors is taken for ours, alone or in a set', { skip }, async (t) => {
  let tried = 0;
  for (const group of groupsOf('json_web_key_test.json')) {
    const given = group.public ?? group.private;
    const keys = given?.keys ?? (given ? [given] : []);
    const accepts = await verifierWith(keys);
    for (const { tcId, comment, jws } of group.tests) {
      tried += 1;
      if (await accepts(textOf(jws))) t.fail(`${tcId} ${comment} was taken`);
    }
  }
  t.equal(tried, 26);
});

t.test('a token has one spelling', async (t) => {
  t.ok(isCompactJws('eyJh.AA.AAAA'));
  for (const odd of [
    'eyJh.AB.AAAA',
    'eyJh.AA.AAA=',
    'eyJh. AA.AAAA',
    'eyJh.AA.AAAA\n',
    'eyJh.A.AAAA',
    'a.b',
    'e+Jh.AA.AAAA',
    '..',
  ])
    t.notOk(isCompactJws(odd), JSON.stringify(odd));
});

t.test('the key of the tokens is changed, and tokens of the one before stay good', async (t) => {
  const harness = await startHarness();
  t.teardown(() => harness.close());
  const { call } = harness;
  const keyIds = async (): Promise<string[]> =>
    ((await call('GET', '/.well-known/jwks.json')).json as unknown as { keys: { kid: string }[] }).keys.map(
      ({ kid }) => kid,
    );
  const kidOf = (token: string): string =>
    (JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()) as { kid: string }).kid;
  const admin = await harness.token('default', ['robot:admin', 'robot:read']);
  const foreign = await harness.token('other', ['robot:admin']);
  t.same(await keyIds(), [kidOf(admin)]);
  t.equal((await call('POST', '/api/v1/auth/keys/rotate', { token: foreign })).status, 403, 'another tenant may not');
  const rotated = await call('POST', '/api/v1/auth/keys/rotate', { token: admin });
  t.equal(rotated.status, 200, rotated.text);
  const newer = await harness.token('default', ['robot:read']);
  t.equal(kidOf(newer), rotated.json['key_id']);
  t.same((await keyIds()).sort(), [kidOf(admin), kidOf(newer)].sort(), 'both are published');
  for (const token of [admin, newer]) t.equal((await call('GET', '/v1/robots', { token })).status, 200);
  const { jwks } = harness.api.core.signingKeys;
  t.notOk(JSON.stringify(jwks.call(harness.api.core.signingKeys)).includes('"d"'), 'no private key is published');
});
