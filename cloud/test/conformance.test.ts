import { readFileSync } from 'node:fs';
import t from 'tap';
import { type CallOptions, startHarness } from './api-harness.ts';
import { at, differences, type Example } from './conformance.ts';

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
  const descriptor = { robot_id: 'RB-1022', robot_name: 'Demo', robot_type: 'humanoid' };
  t.equal(
    (await harness.call('POST', '/v1/robots', { token: admin, body: { robot_descriptor: descriptor } })).status,
    201,
  );
  harness.bus.online.add('default.RB-1022');
  harness.bus.answer = () => ({ done: true, latchId: 1, detail: 'latched' });

  for (const example of [...read('sigma'), ...read('wia')]) {
    const { method, path, auth, headers, body } = example.request;
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
            },
          }
        : {}),
    };
    const answer = await harness.call(method, path, options);
    t.equal(answer.status, example.response.status, `${example.name}: ${answer.text.slice(0, 200)}`);
    t.same(differences(example, answer.json), [], example.name);
    const requestId = headers?.['X-Request-ID'];
    if (requestId !== undefined) t.equal(answer.headers.get('x-request-id'), requestId, 'the request id comes back');
  }
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
