import fc from 'fast-check';
import t from 'tap';
import { DomainError } from '../errors.ts';
import { type Sample, type StreamLayout, sampleFlagNames, valueCount } from '../telemetry.ts';
import { BLOCK_SAMPLES_MAX, decodeBlock, encodeBlock, encodeSample, sampleAt } from './block.ts';

const layout = (fields: StreamLayout['fields'], names: string[] = []): StreamLayout => ({
  stream: '/joint_states',
  kind: 'joint_state',
  names,
  fields,
  tags: { frame_id: 'base_link' },
  declaredRateHz: 50,
});

const bitsOf = (values: Float64Array): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('hex');

const anySample = (shape: StreamLayout): fc.Arbitrary<Sample> =>
  fc
    .record({
      stampNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      receivedNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      receivedMonoNs: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
      flags: fc.integer({ min: 0, max: 0x3ff }),
      values: fc.array(fc.double(), { minLength: valueCount(shape), maxLength: valueCount(shape) }),
      text: fc.option(fc.string({ minLength: 1 }), { nil: undefined }),
    })
    .map(({ values, text, ...rest }) => ({
      ...rest,
      layout: shape,
      values: Float64Array.from(values),
      ...(text === undefined ? {} : { text }),
    }));

const isSame = (back: Sample, sample: Sample): boolean =>
  back.stampNs === sample.stampNs &&
  back.receivedNs === sample.receivedNs &&
  back.receivedMonoNs === sample.receivedMonoNs &&
  back.flags === sample.flags &&
  back.text === sample.text &&
  bitsOf(back.values) === bitsOf(sample.values);

t.test('every sample comes back with the bits it had, in a block or alone, whatever they are', async (t) => {
  const shapes = fc
    .array(fc.record({ name: fc.constantFrom('position', 'velocity', 'effort'), width: fc.nat(4) }), { maxLength: 4 })
    .map((fields) => layout(fields, ['a', 'b']));
  fc.assert(
    fc.property(
      shapes.chain((shape) => fc.array(anySample(shape), { minLength: 1, maxLength: BLOCK_SAMPLES_MAX })),
      (samples) => {
        const block = decodeBlock(encodeBlock(samples));
        if (block.count !== samples.length) return false;
        return samples.every(
          (sample, row) =>
            isSame(sampleAt(block, row), sample) && isSame(sampleAt(decodeBlock(encodeSample(sample)), 0), sample),
        );
      },
    ),
    { numRuns: 200 },
  );
  t.pass('200 random blocks');
});

t.test('a sample of 30 joints takes at most 0.15 of its JSON', async (t) => {
  const joints = 30;
  const names = Array.from({ length: joints }, (_, i) => `joint_${i}`);
  const shape = layout(
    ['position', 'velocity', 'effort', 'temperature'].map((name) => ({ name, width: joints })),
    names,
  );
  let noise = 12345;
  const random = (): number => {
    noise = (Math.imul(noise, 1103515245) + 12345) >>> 0;
    return noise / 2 ** 32 - 0.5;
  };
  // As a serial line delivers it: 32-bit floats, a smooth motion, sensor noise in the last digits.
  const samples = Array.from({ length: 100 }, (_, row): Sample => {
    const values = new Float64Array(4 * joints);
    for (let joint = 0; joint < joints; joint += 1) {
      const phase = row / 50 + joint;
      values[joint] = Math.fround(Math.sin(phase) + 1e-4 * random());
      values[joints + joint] = Math.fround(Math.cos(phase) + 1e-3 * random());
      values[2 * joints + joint] = Math.fround(5 * Math.sin(phase) + 0.05 * random());
      values[3 * joints + joint] = Math.fround(40 + Math.round(random() * 10) / 10);
    }
    const at = BigInt(row) * 20_000_000n + 1_700_000_000_000_000_000n;
    return { layout: shape, stampNs: at, receivedNs: at + 1000n, receivedMonoNs: at, flags: 0, values };
  });
  const json = samples
    .map((sample) =>
      JSON.stringify({
        stamp_ns: String(sample.stampNs),
        received_ns: String(sample.receivedNs),
        joint_state: names.map((name, i) => ({
          name,
          position: sample.values[i],
          velocity: sample.values[joints + i],
          effort: sample.values[2 * joints + i],
          temperature: sample.values[3 * joints + i],
        })),
      }),
    )
    .join('\n').length;
  const packed = encodeBlock(samples).length;
  t.comment(`${packed / 100} bytes a sample packed, ${json / 100} as JSON, ratio ${(packed / json).toFixed(3)}`);
  t.ok(packed <= 0.15 * json, `ratio ${(packed / json).toFixed(3)}`);
});

t.test('a block that lies about itself is refused with the field that lies, and costs no memory', async (t) => {
  const shape = layout([{ name: 'position', width: 2 }]);
  const good = encodeBlock([
    {
      layout: shape,
      stampNs: 1n,
      receivedNs: 2n,
      receivedMonoNs: 3n,
      flags: 0,
      values: Float64Array.of(1, 2),
    },
  ]);
  t.equal(decodeBlock(good).count, 1);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(), fc.nat(255), (noise, at, byte) => {
      for (const bytes of [noise, Uint8Array.from(good, (value, i) => (i === at % good.length ? byte : value))]) {
        try {
          decodeBlock(bytes);
        } catch (error) {
          if (!(error instanceof DomainError)) return false;
        }
      }
      return true;
    }),
    { numRuns: 5000 },
  );
  t.throws(() => encodeBlock([]), RangeError);
});

t.test('a block says how many samples it held before it was thinned, and more than there are', async (t) => {
  const sample = {
    layout: layout([]),
    stampNs: 1n,
    receivedNs: 2n,
    receivedMonoNs: 3n,
    flags: 0,
    values: new Float64Array(),
  };
  t.equal(decodeBlock(encodeBlock([sample, sample], 100)).thinnedFrom, 100);
  t.notOk('thinnedFrom' in decodeBlock(encodeBlock([sample, sample])));
  for (const lie of [1, 2, 10_001]) t.throws(() => decodeBlock(encodeBlock([sample, sample], lie)), /thinned_from/);
});

t.test('flags have names', async (t) => {
  t.same(sampleFlagNames(0b1000000011), ['nameCountMismatch', 'nonFinite', 'replayed']);
});
