import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
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
  await harness.database.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
     select robot_pk, 'failsafe', now(), now(), '{"phase":"LATCHED","latch_id":1,"motion_epoch":0}' from robot`,
  );
  harness.bus.answer = () => ({ done: true, latchId: 1, detail: 'latched' });

  const contract = new Contract((await harness.call('GET', '/openapi.json')).json);
  t.not(contract.problems('GET', '/v1/robots', 200, { status: 'success' }).length, 0, 'a wrong answer would show');
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
    t.same(contract.problems(method, path, answer.status, answer.json), [], `${example.name} is as /openapi.json says`);
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
  const wrong: unknown[] = [null, true, 7, '7', '', [], {}, [[]], { a: 1 }, 'x'.repeat(2_000)];
  let tried = 0;
  for (const example of [...read('sigma'), ...read('wia')]) {
    const { method, path, body } = example.request;
    if (!body || example.response.status >= 400) continue;
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

/** Answers against the schemas of the OpenAPI document. */
class Contract {
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false });
  readonly #paths: Record<
    string,
    Record<string, { responses: Record<string, { content?: Record<string, { schema: object }> }> }>
  >;

  constructor(document: object) {
    this.#ajv.addSchema(document, 'api');
    this.#paths = (document as { paths: Record<string, never> }).paths;
  }

  problems(method: string, path: string, status: number, answer: unknown): string[] {
    const segments = (path.split('?')[0] ?? '').split('/');
    const pattern = Object.keys(this.#paths).find((known) => {
      const parts = known.split('/');
      return (
        parts.length === segments.length &&
        parts.every((part, index) => part.startsWith('{') || part === segments[index])
      );
    });
    const pointer = [
      'paths',
      pattern ?? '',
      method.toLowerCase(),
      'responses',
      String(status),
      'content',
      'application/json',
      'schema',
    ];
    const declared =
      this.#paths[pattern ?? '']?.[method.toLowerCase()]?.responses[status]?.content?.['application/json'];
    if (!declared) return [`${method} ${pattern} does not declare ${status}`];
    const ref = `api#/${pointer.map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}`;
    const validate = this.#ajv.compile({ $ref: ref });
    return validate(answer) ? [] : (validate.errors ?? []).map((error) => `${error.instancePath} ${error.message}`);
  }
}
