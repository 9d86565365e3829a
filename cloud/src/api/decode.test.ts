import { DomainError } from '@outrider/shared/errors';
import fc from 'fast-check';
import t from 'tap';
import { parseJson } from './json.ts';
import { TelemetryEvent, telemetryShapeOf } from './sigma/schemas.ts';
import { ownsPath } from './surface.ts';
import { validate } from './validation.ts';
import { exactNumber } from './wia/export.ts';

const parse = (text: string): unknown => parseJson(new TextEncoder().encode(text));

function refusal(work: () => unknown): { message: string; fields: string[] } {
  try {
    work();
  } catch (error) {
    if (error instanceof DomainError && error.code === 'invalid')
      return { message: error.message, fields: error.problems.map(({ field }) => field) };
    throw error;
  }
  throw new Error('was not refused');
}

t.test('JSON that JSON.parse would bend is refused by name', async (t) => {
  for (const [text, field] of [
    ['{"power":{"draw_w":1e400}}', 'power.draw_w'],
    ['{"joint_state":[{"position":1},{"position":-1e999}]}', 'joint_state[1].position'],
    ['[[1e400]]', '[0][0]'],
    ['1e400', 'body'],
    ['{"a":1,"a":2}', 'a'],
    ['{"a":1,"\\u0061":2}', 'a'],
    ['{"x":{"__proto__":{"admin":true}}}', '__proto__'],
    ['{"constructor":1}', 'constructor'],
    ['{"name":"a\\u0000b"}', 'name'],
    ['{"name":"\\ud800"}', 'name'],
    ['{"\\udc00":1}', '\udc00'],
    [`${'['.repeat(33)}${']'.repeat(33)}`, 'body'],
    ['['.repeat(100_000), 'body'],
    [`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`, 'body'],
    ['', 'body'],
    ['{"a":NaN}', 'body'],
    ['\ufeff{}', 'body'],
    ['{"a":"\n"}', 'body'],
  ] as const)
    t.same(refusal(() => parse(text)).fields, [field], text.slice(0, 60));
  t.same(refusal(() => parseJson(Uint8Array.of(0x22, 0xff, 0x22))).message, 'body is not UTF-8');
});

t.test('JSON that is fine comes back as JSON.parse gives it', async () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 12 }), (value) => {
      const text = JSON.stringify(value);
      if (/\\u0000|\\ud[89a-f]|__proto__|"constructor"|"prototype"/.test(text)) return;
      t.same(parse(text), JSON.parse(text));
    }),
    { numRuns: 200 },
  );
  t.same(parse(`${'['.repeat(32)}${']'.repeat(32)}`), JSON.parse(`${'['.repeat(32)}${']'.repeat(32)}`));
  t.same(parse('{"a":{"k":1},"b":{"k":1},"c":"{\\"k\\":1,\\"k\\":2}"}'), {
    a: { k: 1 },
    b: { k: 1 },
    c: '{"k":1,"k":2}',
  });
});

t.test('any bytes are parsed or refused, and nothing else', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        parseJson(bytes);
      } catch (error) {
        if (!(error instanceof DomainError)) throw error;
      }
    }),
    { numRuns: 2_000 },
  );
});

t.test('a wrong field is named as the caller wrote it', async (t) => {
  const good = { robot_id: 'RB-1', timestamp: '2026-01-11T05:12:00Z', flags: ['nominal'] };
  t.same(
    refusal(() => validate(TelemetryEvent, { ...good, robot_id: undefined }, 'body')),
    {
      message: 'robot_id is required',
      fields: ['robot_id'],
    },
  );
  for (const [change, field] of [
    [{ robot_id: 7 }, 'robot_id'],
    [{ robot_id: 'a.b' }, 'robot_id'],
    [{ timestamp: 'yesterday' }, 'timestamp'],
    [{ timestamp: '2026-01-11T05:12:00' }, 'timestamp'],
    [{ surprise: 1 }, 'surprise'],
    [{ power: { battery_soc: 8 } }, 'power.battery_soc'],
    [{ power: { batterySoc: 1 } }, 'power.batterySoc'],
    [{ joint_state: [{ name: 'a' }, { position: 1 }] }, 'joint_state[1].name'],
    [{ joint_state: [{ name: 'a', position: '1' }] }, 'joint_state[0].position'],
    [{ imu: { pitch: Number.POSITIVE_INFINITY } }, 'imu.pitch'],
    [{ thermal: { motor_max: 3 } }, 'thermal.motor_max'],
    [{ flags: 'nominal' }, 'flags'],
  ] as const)
    t.same(refusal(() => validate(TelemetryEvent, { ...good, ...change }, 'body')).fields, [field], field);
  const batch = { events: [good, { ...good, robot_id: 3 }] };
  t.same(refusal(() => validate(telemetryShapeOf(batch), batch, 'body')).fields, ['events[1].robot_id']);
  t.same(refusal(() => validate(telemetryShapeOf([]), [], 'body')).fields, ['body']);
  t.same(refusal(() => validate(telemetryShapeOf(5), 5, 'body')).fields, ['body']);
});

t.test('an exported number gives back the bits it had', async (t) => {
  const words = new BigUint64Array(1);
  const doubles = new Float64Array(words.buffer);
  const read = (text: string): bigint => {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'number') doubles[0] = value;
    else if (value === 'NaN') words[0] = 0x7ff8000000000000n;
    else if (typeof value === 'string' && value.startsWith('NaN:')) words[0] = BigInt(`0x${value.slice(4)}`);
    else doubles[0] = value === 'Infinity' ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
    return words[0] as bigint;
  };
  for (const bits of [
    0n,
    1n << 63n,
    0x7ff8000000000000n,
    0xfff8000000000001n,
    0x7ff0000000000000n,
    0xfff0000000000000n,
    1n,
    0x3fb999999999999an,
  ]) {
    words[0] = bits;
    t.equal(read(exactNumber(doubles[0] as number)), bits, bits.toString(16));
  }
  fc.assert(
    fc.property(fc.double(), (value) => {
      doubles[0] = value;
      const bits = words[0];
      return read(exactNumber(value)) === bits;
    }),
  );
});

t.test('a prefix owns itself and what is below it, not what merely begins like it', async (t) => {
  t.ok(ownsPath('/v1/robots', '/v1/robots'));
  t.ok(ownsPath('/v1/robots', '/v1/robots/RB-1/state'));
  t.notOk(ownsPath('/v1/robots', '/v1/robotsx'));
  t.notOk(ownsPath('/v1/robots', '/v1'));
});
