import { SAMPLE_FLAGS, type Sample, sampleFlagNames, valueCount } from '@outrider/shared/telemetry';
import fc from 'fast-check';
import t from 'tap';
import { JointNames } from './oddities.ts';
import { MESSAGE_BYTES_MAX, ROS_TYPE_NAMES, type RosTypeName } from './ros-messages.ts';
import { StreamDecoder, type StreamDecoderOptions } from './stream-decoder.ts';

/** Writes XCDR1 as a ROS 2 middleware does, in either byte order. */
class CdrWriter {
  readonly #bytes: number[];
  readonly #isLittle: boolean;

  constructor(isLittle = true) {
    this.#isLittle = isLittle;
    this.#bytes = [0, isLittle ? 1 : 0, 0, 0];
  }

  number(width: 1 | 4 | 8, write: (view: DataView, isLittle: boolean) => void): this {
    while ((this.#bytes.length - 4) % width !== 0) this.#bytes.push(0);
    const view = new DataView(new ArrayBuffer(width));
    write(view, this.#isLittle);
    this.#bytes.push(...new Uint8Array(view.buffer));
    return this;
  }

  u8 = (value: number): this => this.number(1, (view) => view.setUint8(0, value));
  u32 = (value: number): this => this.number(4, (view, little) => view.setUint32(0, value, little));
  f32 = (value: number): this => this.number(4, (view, little) => view.setFloat32(0, value, little));
  bits = (value: bigint): this => this.number(8, (view, little) => view.setBigUint64(0, value, little));
  f64 = (value: number): this => this.number(8, (view, little) => view.setFloat64(0, value, little));

  string(text: string | Buffer): this {
    const bytes = Buffer.concat([Buffer.from(text), Buffer.alloc(1)]);
    this.u32(bytes.length);
    this.#bytes.push(...bytes);
    return this;
  }

  list<Item>(items: readonly Item[], write: (item: Item) => unknown): this {
    this.u32(items.length);
    for (const item of items) write(item);
    return this;
  }

  header(seconds = 100, nanoseconds = 5, frame: string | Buffer = 'base'): this {
    return this.u32(seconds >>> 0)
      .u32(nanoseconds)
      .string(frame);
  }

  done = (): Uint8Array => Uint8Array.from(this.#bytes);
}

interface Joints {
  readonly names?: readonly string[];
  readonly position?: readonly number[];
  readonly velocity?: readonly number[];
  readonly effort?: readonly number[];
  readonly seconds?: number;
  readonly nanoseconds?: number;
}

function jointState(joints: Joints, isLittle = true): Uint8Array {
  const writer = new CdrWriter(isLittle).header(joints.seconds ?? 100, joints.nanoseconds ?? 0);
  writer.list(joints.names ?? ['a', 'bb'], writer.string.bind(writer));
  for (const list of [joints.position ?? [], joints.velocity ?? [], joints.effort ?? []]) writer.list(list, writer.f64);
  return writer.done();
}

function imu(orientation: readonly number[], firstCovariance = 0): Uint8Array {
  const writer = new CdrWriter().header();
  for (const value of [...orientation, firstCovariance, ...Array<number>(32).fill(0.5)]) writer.f64(value);
  return writer.done();
}

interface Battery {
  readonly percentage?: number;
  readonly current?: number;
  readonly isDashing?: boolean;
}

function battery({ percentage = 0.5, current = -2, isDashing = false }: Battery): Uint8Array {
  const writer = new CdrWriter().header().f32(12);
  if (!isDashing) writer.f32(25);
  for (const value of [current, Number.NaN, Number.NaN, 10, percentage]) writer.f32(value);
  for (const value of [2, 1, 3, 1]) writer.u8(value);
  return writer.list([4, 4.5], writer.f32).list([], writer.f32).string('slot').string('S1').done();
}

function diagnostics(levels: readonly number[]): Uint8Array {
  const writer = new CdrWriter().header();
  return writer
    .list(levels, (level) => {
      writer.u8(level).string(`status ${level}`).string('fine "quoted"').string('hw');
      writer.list([['key', 'value']], ([key = '', value = '']) => writer.string(key).string(value));
    })
    .done();
}

const TYPES = {
  joints: 'sensor_msgs/msg/JointState',
  imu: 'sensor_msgs/msg/Imu',
  battery: 'sensor_msgs/msg/BatteryState',
  temperature: 'sensor_msgs/msg/Temperature',
  diagnostics: 'diagnostic_msgs/msg/DiagnosticArray',
} as const;

const decoder = (type: RosTypeName, options: Partial<StreamDecoderOptions> = {}): StreamDecoder =>
  new StreamDecoder({ stream: '/s', type, declaredRateHz: 50, jointNames: new JointNames(), ...options });
const decodeOne = (type: RosTypeName, payload: Uint8Array): Sample => decoder(type).decode(payload, 7n, 8n);
const flagsOf = (sample: Sample): string[] => sampleFlagNames(sample.flags);

t.test('both byte orders give the same sample, down to the bits of a NaN', async (t) => {
  const payloads = [true, false].map((isLittle) => {
    const writer = new CdrWriter(isLittle).header(1, 2, 'größer');
    writer.list(['q1', ''], writer.string.bind(writer));
    writer.list([0x7ff4000000000123n, 0x8000000000000000n], writer.bits).list([], writer.bits);
    return writer.list([0xfff8dead0000beefn, 1n], writer.bits).done();
  });
  for (const payload of payloads) {
    const { layout, values, ...rest } = decodeOne(TYPES.joints, payload);
    t.strictSame(
      [...new BigUint64Array(values.buffer)],
      [0x7ff4000000000123n, 0x8000000000000000n, 0xfff8dead0000beefn, 1n],
    );
    t.match(layout, {
      stream: '/s',
      kind: 'joint_state',
      names: ['q1', ''],
      tags: { frame_id: 'größer' },
      declaredRateHz: 50,
    });
    t.strictSame(
      layout.fields.map((field) => field.width),
      [2, 0, 2],
    );
    t.strictSame(rest, { stampNs: 1_000_000_002n, receivedNs: 7n, receivedMonoNs: 8n, flags: SAMPLE_FLAGS.nonFinite });
  }
});

t.test('a shape keeps its layout object, also when shapes alternate', async (t) => {
  const joints = decoder(TYPES.joints);
  const read = (names: string[], position: number[]): Sample['layout'] =>
    joints.decode(jointState({ names, position }), 1n, 1n).layout;
  const first = read(['a'], [1]);
  t.equal(read(['a'], [2]), first);
  const wider = read(['a'], [1, 2]);
  t.not(wider, first);
  t.equal(read(['b'], [1]), read(['b'], [3]));
  t.equal(read(['a'], [9]), first, 'remembered while others came');
  for (let i = 0; i < 100; i += 1) read([`name ${i}`], [1]);
  t.strictSame(read(['a'], [4]), first, 'forgotten after many others, and made again');
});

t.test('each dirty JointState gets its flags and keeps its values', async (t) => {
  const cases: [string, Joints, string[]][] = [
    ['clean', { position: [1, 2], velocity: [0, 0] }, []],
    ['three positions without names', { names: [], position: [1, 2, 3] }, ['nameCountMismatch']],
    ['one velocity for two names', { position: [1, 2], velocity: [3] }, ['nameCountMismatch']],
    ['empty arrays', {}, []],
    ['NaN and infinity', { position: [Number.NaN, Infinity] }, ['nonFinite']],
    ['no stamp', { seconds: 0, position: [1, 2] }, ['noStamp']],
    ['nanoseconds that are none', { nanoseconds: 4_000_000_000, position: [1, 2] }, ['outOfRange']],
  ];
  for (const [what, joints, flags] of cases) {
    const sample = decodeOne(TYPES.joints, jointState(joints));
    t.strictSame(flagsOf(sample), flags, what);
    t.strictSame([...sample.values], [...(joints.position ?? []), ...(joints.velocity ?? [])], what);
  }
});

t.test('what is odd only beside the sample before is flagged, once or as long as it lasts', async (t) => {
  const feed = (options: Partial<StreamDecoderOptions>, ...messages: Joints[]): string[][] => {
    const joints = decoder(TYPES.joints, options);
    return messages.map((message) => flagsOf(joints.decode(jointState(message), 1n, 1n)));
  };
  const at = (ms: number, a: number, more: Joints = {}): Joints => ({
    seconds: 100,
    nanoseconds: ms * 1e6,
    position: [a, 0],
    ...more,
  });
  t.strictSame(feed({}, at(0, 0), at(40, 3.63), at(80, 3.6)), [[], ['jump'], []], '3.63 rad in 40 ms');
  t.strictSame(feed({}, at(0, 0), at(40, 0.5), at(40, 0.52)), [[], [], []], 'noise at the same stamp is no jump');
  t.strictSame(feed({ velocityMaxRadps: { a: 1 } }, at(0, 0), at(40, 0.5)), [[], ['jump']], 'a joint with a limit');
  t.strictSame(feed({}, at(50, 0), at(40, 0), at(45, 0)), [[], ['stampBackwards'], []]);
  t.strictSame(feed({}, at(0, 0), at(1, 9, { names: ['a', 'c'] }), at(2, 9, { names: ['a', 'c'] })), [
    [],
    ['namesChanged'],
    [],
  ]);
  const jointNames = new JointNames();
  const names = (list: string[]): Joints => ({ names: list, position: list.map(() => 0) });
  t.strictSame(feed({ jointNames, stream: '/all' }, names(['q0', 'q1', 'q2'])), [[]]);
  t.strictSame(feed({ jointNames, stream: '/odd' }, names(['q1', 'q2', 'q3']), names(['q1', 'q2', 'q3'])), [
    ['namesChanged'],
    ['namesChanged'],
  ]);
  t.strictSame(feed({ jointNames, stream: '/part' }, names(['q1', 'q2'])), [[]], 'a subset is a part of the robot');
  t.strictSame(feed({ jointNames, stream: '/gripper' }, names(['finger'])), [[]], 'so is another one');
  t.strictSame(
    feed({ jointNames, stream: '/all' }, names(['q0', 'q1', 'q2'])),
    [[]],
    'the first to speak is not the odd one',
  );
});

t.test('a battery has its current turned and its state of charge doubted', async (t) => {
  const sample = decodeOne(TYPES.battery, battery({ percentage: 8, current: -2.5 }));
  t.strictSame(flagsOf(sample), ['nonFinite', 'outOfRange']);
  t.match(sample.layout.tags, { frame_id: 'base', location: 'slot', serial_number: 'S1' });
  t.strictSame([...sample.values], [12, 2.5, 8, 30, 25, Number.NaN, Number.NaN, 10, 2, 1, 3, 1, 4, 4.5]);
  const old = decodeOne(TYPES.battery, battery({ isDashing: true }));
  t.strictSame(
    [...old.values],
    [12, 2, 0.5, 24, Number.NaN, Number.NaN, 10, 2, 1, 3, 1, 4, 4.5],
    'before Foxy: no temperature',
  );
  t.notOk(old.layout.fields.some((field) => field.name === 'temperature'));
});

t.test('Imu, Temperature and DiagnosticArray', async (t) => {
  t.strictSame(flagsOf(decodeOne(TYPES.imu, imu([0, 0, 0, 1]))), []);
  t.strictSame(flagsOf(decodeOne(TYPES.imu, imu([0, 0, 0, 0]))), [], 'a driver without orientation');
  t.strictSame(flagsOf(decodeOne(TYPES.imu, imu([9, 9, 9, 9], -1))), [], 'an orientation that is said to be none');
  t.strictSame(flagsOf(decodeOne(TYPES.imu, imu([113, 114, 0, 0]))), ['outOfRange']);
  const temperature = decodeOne(TYPES.temperature, new CdrWriter().header(1, 1, 'motor_3').f64(-300).f64(0).done());
  t.match(temperature, { layout: { kind: 'temperature', names: ['motor_3'] }, values: Float64Array.from([-300, 0]) });
  t.strictSame(flagsOf(temperature), ['outOfRange']);
  const report = decodeOne(TYPES.diagnostics, diagnostics([0, 2, 9]));
  t.strictSame([...report.values], [0, 2, 9]);
  t.strictSame(flagsOf(report), ['outOfRange']);
  t.strictSame(JSON.parse(report.text ?? '')[1], {
    level: 2,
    name: 'status 2',
    message: 'fine "quoted"',
    hardware_id: 'hw',
    values: [{ key: 'key', value: 'value' }],
  });
});

t.test('a payload that cannot be read whole becomes a malformed sample that says why', async (t) => {
  const whole = jointState({ position: [1, 2] });
  const patched = (offset: number, ...bytes: number[]): Uint8Array => {
    const copy = Uint8Array.from(whole);
    copy.set(bytes, offset);
    return copy;
  };
  const long = new CdrWriter()
    .header(1, 1, 'x'.repeat(300))
    .list([], () => 0)
    .u32(0)
    .u32(0)
    .u32(0);
  const many = jointState({ names: [], position: Array<number>(4097).fill(0) });
  const cases: [string, Uint8Array, RegExp][] = [
    ['nothing', new Uint8Array(0), /0 bytes are too few/],
    ['another encapsulation', patched(1, 7), /0x0007 is not plain CDR/],
    ['a cut', whole.subarray(0, -1), /needs|claims/],
    ['a hostile count', patched(whole.length - 8, 255, 255, 255, 255), /claims 4294967295 elements/],
    ['a longer type', Uint8Array.from([...whole, ...Array<number>(8).fill(0)]), /8 bytes are left/],
    ['a string without end', patched(16, ...Buffer.from('basex')), /has no end/],
    ['no UTF-8', new CdrWriter().header(1, 1, Buffer.from([0xff, 0xfe])).done(), /not UTF-8/],
    ['a NUL inside', new CdrWriter().header(1, 1, 'a\0b').done(), /NUL/],
    ['a huge name', long.done(), /300 characters/],
    ['too many values', many, /4097 values/],
    ['too many bytes', new Uint8Array(MESSAGE_BYTES_MAX + 1), /more than a message's/],
  ];
  for (const [what, payload, reason] of cases) {
    const sample = decodeOne(TYPES.joints, payload);
    t.strictSame(flagsOf(sample), ['noStamp', 'malformed'], what);
    t.match(sample.text, reason, what);
    t.match(sample, { receivedNs: 7n, receivedMonoNs: 8n, values: new Float64Array(0) }, what);
  }
  const joints = decoder(TYPES.joints);
  t.equal(joints.decode(whole.subarray(1), 1n, 1n).layout, joints.decode(whole.subarray(2), 1n, 1n).layout);
});

t.test('random and mutated payloads never throw and never grow beyond what they brought', async (t) => {
  const seeds: [RosTypeName, Uint8Array][] = [
    [TYPES.joints, jointState({ position: [1, 2], velocity: [3, 4], effort: [5] })],
    [TYPES.joints, jointState({ names: [], position: [1, 2, 3] }, false)],
    [TYPES.imu, imu([0, 0, 0, 1])],
    [TYPES.battery, battery({})],
    [TYPES.battery, battery({ isDashing: true })],
    [TYPES.temperature, new CdrWriter().header().f64(20).f64(0).done()],
    [TYPES.diagnostics, diagnostics([0, 1, 2])],
  ];
  const check = (type: RosTypeName, payload: Uint8Array): void => {
    const sample = decodeOne(type, payload);
    const isMalformed = (sample.flags & SAMPLE_FLAGS.malformed) !== 0;
    if (sample.values.length !== valueCount(sample.layout)) throw new Error('values do not fit the layout');
    if (type !== TYPES.diagnostics && isMalformed !== (sample.text !== undefined))
      throw new Error('a malformed sample says why, a whole one needs no text');
    // One value beyond what was sent: a battery's `draw`.
    if (sample.values.length > payload.length + 1 || sample.layout.names.length * 4 > payload.length)
      throw new Error('more values or names than bytes could hold');
    if ((sample.text?.length ?? 0) > 65_536 + 1_000) throw new Error('an endless text');
  };
  fc.assert(
    fc.property(
      fc.constantFrom(...ROS_TYPE_NAMES),
      fc.uint8Array({ maxLength: 400 }),
      fc.boolean(),
      (type, bytes, isFramed) => {
        if (isFramed) bytes.set([0, 1, 0, 0].slice(0, bytes.length));
        check(type, bytes);
      },
    ),
    { numRuns: 4_000 },
  );
  const mutation = fc.record({
    seed: fc.nat(seeds.length - 1),
    cut: fc.nat(8),
    edits: fc.array(fc.tuple(fc.nat(), fc.constantFrom(0, 1, 2, 4, 127, 128, 254, 255)), { maxLength: 6 }),
    insert: fc.uint8Array({ maxLength: 6 }),
    insertAt: fc.nat(),
  });
  fc.assert(
    fc.property(mutation, ({ seed, cut, edits, insert, insertAt }) => {
      const [type, whole] = seeds[seed] as [RosTypeName, Uint8Array];
      const at = insertAt % (whole.length + 1);
      const payload = Buffer.concat([whole.subarray(0, at), insert, whole.subarray(at)]).subarray(
        0,
        whole.length + 6 - cut,
      );
      for (const [where, byte] of edits) payload[where % payload.length] = byte;
      check(type, payload);
    }),
    { numRuns: 8_000 },
  );
  fc.assert(
    fc.property(
      fc.record({
        names: fc.array(
          fc.string({ unit: 'grapheme', maxLength: 20 }).filter((name) => !name.includes('\0')),
          { maxLength: 40 },
        ),
        position: fc.array(fc.double(), { maxLength: 40 }),
        velocity: fc.array(fc.double(), { maxLength: 3 }),
        effort: fc.array(fc.double(), { maxLength: 3 }),
        isLittle: fc.boolean(),
      }),
      ({ isLittle, ...joints }) => {
        const { values, layout } = decodeOne(TYPES.joints, jointState(joints, isLittle));
        const expected = [...joints.position, ...joints.velocity, ...joints.effort];
        const names = joints.names.every((name, i) => Buffer.from(name).toString() === layout.names[i]);
        if (!names || values.length !== expected.length || !expected.every((value, i) => Object.is(value, values[i])))
          throw new Error('a whole message came out different');
      },
    ),
    { numRuns: 1_000 },
  );
  t.pass('13,000 payloads');
});
