import t from 'tap';
import type { Sample } from '../telemetry.ts';
import { rollPitchOf } from './classify-body.ts';
import { type Signals, signalsOf } from './classify-signals.ts';
import { gateOf } from './judge.ts';
import { CLOSED, joints, judgeOf, LIMITS, OPEN, other, RETURNING } from './testing/judge-rig.ts';

t.test('torque: outside its limit is bad, unreadable is unknown, without a limit it does not matter', async (t) => {
  const at = (effortNm: number[], names = ['knee', 'elbow']): string =>
    judgeOf()(joints({ effortNm, names }), 0, 'mechanical_lock');
  t.same(
    [at([50, 0]), at([50.1, 0]), at([-50.1, 0]), at([Number.NaN, 0]), at([1e6, 0]), at([])],
    ['clear', 'bad', 'bad', 'unknown', 'unknown', 'unknown'],
  );
  t.same([at([0, 900]), at([0, Number.NaN])], ['clear', 'clear'], 'a joint without a torque limit');
  t.equal(at([], ['a', 'b']), 'clear');
  const exact = judgeOf()(joints({ effortNm: [100_000, 0] }), 0, 'mechanical_lock');
  t.equal(exact, 'bad', 'the largest torque that can be one');
});

t.test('tracking: a joint far from its command is bad, its own limit first', async (t) => {
  const at = (commandRad: number[], positionRad = [0, 0]): string =>
    judgeOf()(joints({ commandRad, positionRad }), 0, 'mechanical_lock');
  t.same([at([0.5, 0.1]), at([0.51, 0]), at([-0.51, 0]), at([0, 0.11])], ['clear', 'bad', 'bad', 'bad']);
  t.equal(at([Number.NaN, 0]), 'unknown');
  t.equal(at([9]), 'bad', 'fewer commands than joints');
  t.equal(at([0.3, 0]), 'clear');
  t.equal(judgeOf()(joints({ commandRad: [0, 0], positionRad: [] }), 0, 'mechanical_lock'), 'unknown');
  const loose = { ...LIMITS, trackingMaxRad: undefined };
  t.equal(judgeOf(loose)(joints({ commandRad: [9, 0] }), 0, 'mechanical_lock'), 'clear', 'without a limit');
});

t.test('encoders: a jump stops at once, what a joint can do does not', async (t) => {
  const step = (jumpRad: number, stepMs: number, joint = 0, rateHz = 50): string => {
    const judge = judgeOf();
    const at = (rad: number): Signals => joints({ positionRad: joint === 0 ? [rad, 0] : [0, rad] });
    t.equal(judge(at(0), 1000, 'mechanical_lock', 'mcu/joint_state encoders', OPEN, rateHz), 'clear');
    return judge(at(jumpRad), 1000 + stepMs, 'mechanical_lock', 'mcu/joint_state encoders', OPEN, rateHz);
  };
  // Twice 2 rad/s over 20 ms, and 0.2 rad beside.
  t.same([step(0.279, 20), step(0.281, 20), step(-0.281, 20)], ['clear', 'severe', 'severe']);
  t.equal(step(0.279, 0), 'clear', 'two that arrive together still stand for a period each');
  t.equal(step(0.281, 0), 'severe');
  t.equal(step(0.201, 0, 0, 0), 'severe', 'without a promised rate there is no period');
  t.equal(step(0.5, 100), 'clear', 'a longer step may be larger');
  t.same([step(0.27997, 0), step(0.28004, 0)], ['clear', 'severe'], 'a period of exactly 20 ms');
  t.same([step(4.1, 0, 0, 1), step(4.3, 0, 0, 1)], ['clear', 'severe'], 'a period of 1 s');
  const own = judgeOf();
  const free = (rad: number, atMs: number): string =>
    own(
      joints({ names: ['x'], positionRad: [rad], effortNm: [] }),
      atMs,
      'mechanical_lock',
      'mcu/joint_state encoders',
    );
  t.same([free(0, 0), free(1.19, 20), free(2.4, 40)], ['clear', 'clear', 'severe'], 'an own joint without limits');
  t.same([step(1.19, 20, 1), step(1.21, 20, 1)], ['clear', 'severe'], 'a joint without a velocity limit');
});

t.test('encoders: broken values are no place to jump from, other joints start over', async (t) => {
  const judge = judgeOf();
  const at = (positionRad: number[], atMs: number, names = ['knee', 'elbow']): string =>
    judge(joints({ positionRad, names }), atMs, 'mechanical_lock', 'mcu/joint_state encoders');
  at([0, 0], 0);
  at([Number.NaN, 0], 20);
  t.equal(at([0.1, 0], 40), 'clear');
  t.equal(at([0.1, 3], 60), 'severe');
  t.equal(at([0.1, 3], 80), 'clear');
  t.equal(at([3, 0.1], 100, ['elbow', 'knee']), 'clear', 'renamed joints are other joints');
  t.equal(at([3, 3], 120, ['elbow', 'knee']), 'severe');
  t.equal(at([9], 140, ['elbow']), 'clear', 'fewer joints start over');
  t.equal(at([0, 0], 160), 'clear');
  at([Number.NaN, 0], 180);
  t.equal(at([3, 0], 200), 'severe', 'a jump that hides behind a broken value');
  t.equal(at([3, 9], 220, ['knee', 'wrist']), 'clear', 'one joint is another');
  t.equal(judge(joints({ positionRad: [] }), 160, 'mechanical_lock', 'mcu/joint_state encoders'), 'none');
  const foreign = { isOwn: false, stream: '/js' };
  const strange = (names: string[]): string =>
    judge(joints({ ...foreign, names }), 0, 'mechanical_lock', '/js encoders');
  t.same([strange(['q1', 'q2']), strange(['q1', 'knee'])], ['none', 'clear']);
});

t.test('encoders: a joint that says it moves while its position is frozen is unknown', async (t) => {
  const judge = judgeOf();
  const at = (positionRad: number, velocityRadps: number, atMs: number): string =>
    judge(
      joints({ positionRad: [positionRad, 0], velocityRadps: [velocityRadps, 0] }),
      atMs,
      'mechanical_lock',
      'mcu/joint_state encoders',
    );
  t.equal(at(0.1, 0.5, 0), 'clear');
  t.equal(at(0.1, 0.5, 1000), 'clear');
  t.equal(at(0.1, 0.5, 1001), 'unknown');
  t.equal(at(0.1001, 0.5, 1021), 'clear');
  t.equal(at(0.1001, -0.5, 2022), 'unknown', 'backwards too');
  t.equal(at(0.1001, 0.02, 2042), 'clear', 'standing still');
  t.equal(at(0.1001, 0.02, 9000), 'clear');
  t.equal(at(0.1001, 0.5, 9500), 'clear');
  t.equal(at(0.1001, 0.5, 10_001), 'unknown', 'counted from when it began to move');
  const mute = judgeOf();
  const still = (atMs: number): string =>
    mute(joints({ velocityRadps: [] }), atMs, 'mechanical_lock', 'mcu/joint_state encoders');
  t.same([still(0), still(5000)], ['clear', 'clear'], 'who says no velocity does not say that it moves');
});

t.test('motors that heat up too fast are bad once the window is full', async (t) => {
  const judge = judgeOf();
  const at = (celsius: number, atMs: number): string =>
    judge(joints({ temperatureC: [20, celsius] }), atMs, 'thermal_shutdown', 'mcu/joint_state rise');
  for (let ms = 0; ms < 5000; ms += 20) t.equal(at(30 + ms / 100, ms), 'clear') || t.bailout();
  t.equal(at(80, 5000), 'bad', '10 C/s over 5 s');
  for (let ms = 5020; ms < 10_000; ms += 20) at(80, ms);
  t.equal(at(80, 12_000), 'clear');
  const slow = judgeOf();
  const rise = (celsius: number, atMs: number): string =>
    slow(joints({ temperatureC: [celsius, 20] }), atMs, 'thermal_shutdown', 'mcu/joint_state rise');
  t.same([rise(20, 0), rise(45, 5000), rise(70.1, 10_000)], ['clear', 'clear', 'bad'], 'exactly 5 C/s is allowed');
  t.equal(rise(70.7, 10_100), 'bad', 'against the start of the window, not the last sample');
  const late = judgeOf();
  const after = (celsius: number, atMs: number): string =>
    late(joints({ temperatureC: [celsius, 20] }), atMs, 'thermal_shutdown', 'mcu/joint_state rise');
  for (let ms = 0; ms < 30_000; ms += 100) after(20, ms);
  for (let ms = 30_000; ms < 35_000; ms += 100) after(20 + (ms - 30_000) / 150, ms);
  t.equal(after(54, 35_000), 'bad', 'what was long ago does not count');
  const names = (given: string[], celsius: number, atMs: number): string =>
    late(joints({ names: given, temperatureC: [celsius, celsius] }), atMs, 'thermal_shutdown', 'mcu/joint_state rise');
  names(['a', 'b'], 20, 40_000);
  t.equal(names(['c', 'd'], 80, 46_000), 'clear', 'other motors');
  t.equal(judge(joints(), 0, 'thermal_shutdown', 'mcu/joint_state rise'), 'none', 'no temperatures, no reading');
  const board = other('/board', 'temperature', { temperatureC: [20] });
  t.equal(judge(board, 0, 'thermal_shutdown', '/board rise'), 'none', 'not a motor');
  t.equal(judge({ ...board, stream: '/motors' }, 0, 'thermal_shutdown', '/motors rise'), 'clear');
});

const turned = (rollRad: number, pitchRad: number): number[] => {
  const [sr, cr, sp, cp] = [
    Math.sin(rollRad / 2),
    Math.cos(rollRad / 2),
    Math.sin(pitchRad / 2),
    Math.cos(pitchRad / 2),
  ];
  return [sr * cp, cr * sp, -sr * sp, cr * cp];
};
const imu = (orientation: number[], accelerationMps2: number[] = [0, 0, 9.8], stream = 'mcu/imu'): Signals =>
  other(stream, 'imu', { imu: { orientation, accelerationMps2 } });

t.test('heat is remembered every quarter of the window, and no longer than it', async (t) => {
  /** Temperature steps up by 40 C between two samples: how the last sample is judged tells what was remembered. */
  const last = (...samples: readonly (readonly [number, number])[]): string => {
    const judge = judgeOf();
    return samples
      .map(([atMs, celsius]) =>
        judge(joints({ temperatureC: [celsius, 20] }), atMs, 'thermal_shutdown', 'mcu/joint_state rise'),
      )
      .at(-1) as string;
  };
  t.equal(last([0, 20], [1250, 60], [6250, 60]), 'clear', 'a quarter was remembered, and is a window ago');
  t.equal(last([0, 20], [1249, 60], [6249, 60]), 'bad', 'less than a quarter was not');
  t.equal(last([0, 20], [1300, 60], [6300, 60]), 'clear');
  t.equal(last([0, 20], [1250, 60], [2500, 60], [6250, 60]), 'clear', 'the newest of those a window ago counts');
  t.equal(last([0, 20], [600, 60], [5600, 60]), 'bad');
  t.equal(last([0, 20], [1250, 20], [1300, 60], [6300, 60]), 'bad', 'a quarter from the last one, not the first');
  t.equal(last([0, 20], [5000, 45.02]), 'bad', '5.004 C/s');
});

t.test('an encoder may be off by its margin to the bit', async (t) => {
  const jump = (rad: number): string => {
    const judge = judgeOf();
    judge(joints({ names: ['hip', 'elbow'] }), 0, 'mechanical_lock', 'mcu/joint_state encoders');
    const moved = joints({ names: ['hip', 'elbow'], positionRad: [rad, 0] });
    return judge(moved, 20, 'mechanical_lock', 'mcu/joint_state encoders');
  };
  t.same([jump(1.2), jump(1.2001)], ['clear', 'severe']);
});

t.test('roll and pitch of an orientation', async (t) => {
  for (const [roll, pitch] of [
    [0, 0],
    [0.5, 0],
    [0, -0.4],
    [2.5, 0.3],
    [-1.2, 1.1],
    [3, -1.5],
  ] as const) {
    const { rollRad = 9, pitchRad = 9 } = rollPitchOf(turned(roll, pitch)) ?? {};
    t.ok(Math.abs(rollRad - roll) < 1e-9 && Math.abs(pitchRad - pitch) < 1e-9, `${roll} ${pitch}`);
    const scaled = rollPitchOf(turned(roll, pitch).map((q) => q * 1.04)) ?? { rollRad: 9, pitchRad: 9 };
    t.ok(Math.abs(scaled.rollRad - roll) < 1e-6 && Math.abs(scaled.pitchRad - pitch) < 1e-6, 'rounded by a driver');
  }
  for (const q of [[0, 0, 0, 0], [0, 0, 0, 1.06], [0, 0, 0, 0.94], [0, 0, 1], [Number.NaN, 0, 0, 1], []])
    t.equal(rollPitchOf(q), undefined, `${q}`);
  for (let scale = 0.96; scale < 1.04; scale += 0.0007)
    for (const sign of [1, -1]) {
      const q = [0, Math.SQRT1_2 * scale * sign, 0, Math.SQRT1_2 * scale];
      const { pitchRad = 9 } = rollPitchOf(q) ?? {};
      if (!(Math.abs(pitchRad - (sign * Math.PI) / 2) < 1e-6)) t.fail(`straight down or up: ${q}: ${pitchRad}`);
    }
});

t.test('tilt: roll and pitch have limits of their own, either way, and upright is clear', async (t) => {
  const at = (roll: number, pitch: number): string => judgeOf()(imu(turned(roll, pitch)), 0, 'tilt');
  t.same([at(0.79, 0), at(0.81, 0), at(-0.81, 0)], ['fair', 'bad', 'bad']);
  t.same([at(0, 0.59), at(0, 0.61), at(0, -0.61)], ['fair', 'bad', 'bad']);
  t.same([at(0.49, 0.49), at(0.51, 0), at(0, 0.51)], ['clear', 'fair', 'fair']);
  t.equal(at(Math.PI, 0), 'bad', 'on its back');
  t.equal(judgeOf()(imu([0, 0, 0, 0]), 0, 'tilt'), 'unknown');
  t.equal(judgeOf()(imu([1]), 0, 'tilt'), 'unknown', 'a part of an orientation');
  const { rollRad: rollMaxRad = 0 } = rollPitchOf(turned(0.8, 0)) ?? {};
  const { pitchRad: pitchMaxRad = 0 } = rollPitchOf(turned(0, 0.7)) ?? {};
  const { pitchRad: uprightMaxRad = 0 } = rollPitchOf(turned(0, 0.3)) ?? {};
  const edge = judgeOf({ ...LIMITS, body: { ...LIMITS.body, rollMaxRad, pitchMaxRad, uprightMaxRad } });
  t.same(
    [turned(0.8, 0), turned(0, 0.7), turned(0, 0.3)].map((q) => edge(imu(q), 0, 'tilt')),
    ['fair', 'fair', 'fair'],
    'exactly at its limits',
  );
  t.equal(judgeOf()(imu([]), 0, 'tilt'), 'none', 'an IMU without orientation');
  t.equal(judgeOf()(imu(turned(1, 0), [], 'arm/imu'), 0, 'tilt'), 'none', 'an IMU that is not on the body');
});

t.test('a fall is free fall for long, or free fall and then a tilt or an impact', async (t) => {
  const up = turned(0, 0);
  const run = (...steps: readonly (readonly [number, number[], number])[]): string => {
    const judge = judgeOf();
    return steps.map(([atMs, q, z]) => judge(imu(q, [0, 0, z]), atMs, 'fall')).join(' ');
  };
  t.equal(run([0, up, 0.1], [299, up, 0.1], [300, up, 0.1]), 'clear fair severe', 'free fall alone');
  t.equal(run([0, up, 0.1], [99, up, 0.1], [120, turned(1, 0), 9.8]), 'clear clear clear', 'too short');
  t.equal(run([0, up, 0.1], [100, up, 0.1], [120, turned(1, 0), 9.8]), 'clear fair severe', 'then tilted');
  t.equal(run([0, up, 0.1], [100, up, 0.1], [120, up, 31]), 'clear fair severe', 'then an impact');
  t.equal(run([0, up, 0.1], [100, up, 0.1], [120, up, 30]), 'clear fair fair', 'then a step');
  t.equal(run([0, up, 0], [100, up, 0], [1100, turned(1, 0), 9.8]), 'clear fair severe', 'within a second');
  t.equal(run([0, up, 0], [100, up, 0], [1100, up, 31]), 'clear fair severe', 'an impact within a second');
  t.equal(run([0, up, 0], [100, up, 0], [1100, up, 9.8]), 'clear fair fair');
  t.equal(run([0, up, 0], [100, up, 0], [1101, up, 31]), 'clear fair clear');
  t.equal(run([0, [], 0], [100, [], 0], [120, [], 9.8]), 'clear fair fair', 'without an orientation nothing tilts');
  t.equal(run([0, up, 0], [100, up, 0], [120, [0, 0, 0, 0], 9.8]), 'clear fair fair', 'nor with a broken one');
  t.equal(
    run([0, up, 0], [50, up, Number.NaN], [100, up, 0]),
    'clear unknown fair',
    'a broken value does not catch it',
  );
  t.equal(judgeOf()(imu(up, [9.8]), 0, 'fall'), 'unknown', 'a part of an acceleration');
  t.equal(run([0, up, 0], [100, up, 0], [1101, turned(1, 0), 9.8]), 'clear fair clear', 'no longer');
  t.equal(run([0, up, 0.1], [90, up, 9.8], [180, up, 0.1], [200, up, 31]), 'clear clear clear clear', 'two hops');
  t.equal(run([0, up, 3], [400, up, 3]), 'clear clear', 'exactly the limit is no free fall');
  t.equal(run([0, up, 31], [20, turned(1, 0), 31]), 'clear clear', 'a jolt is no fall');
  t.equal(run([0, up, Number.NaN], [20, up, 2001], [40, up, 2000]), 'unknown unknown clear');
  t.equal(judgeOf()(imu(up, []), 0, 'fall'), 'none');
  t.equal(judgeOf()(imu([], [0, 0, 9.8]), 0, 'fall'), 'clear', 'without an orientation');
});

t.test('signals of an IMU and a battery, as a sample has them', async (t) => {
  const sample = (kind: 'imu' | 'power', fields: Readonly<Record<string, number[]>>): Sample => ({
    layout: {
      stream: 's',
      kind,
      names: [],
      fields: Object.entries(fields).map(([name, values]) => ({ name, width: values.length })),
      tags: {},
      declaredRateHz: 50,
    },
    stampNs: 0n,
    receivedNs: 0n,
    receivedMonoNs: 0n,
    flags: 0,
    values: Float64Array.from(Object.values(fields).flat()),
  });
  const body = { orientation: [0, 0, 0, 1], orientation_covariance: [0], linear_acceleration: [1, 2, 3] };
  t.same(Array.from(signalsOf(sample('imu', body), true).imu?.orientation ?? []), [0, 0, 0, 1]);
  t.same(Array.from(signalsOf(sample('imu', body), true).imu?.accelerationMps2 ?? []), [1, 2, 3]);
  const unmeasured = { ...body, orientation_covariance: [-1], linear_acceleration_covariance: [-1] };
  const { imu: none } = signalsOf(sample('imu', unmeasured), true);
  t.same([none?.orientation.length, none?.accelerationMps2.length], [0, 0], 'a covariance of -1 means not measured');
  t.equal(signalsOf(sample('imu', body), true).power, undefined);
  const pack = {
    voltage: [50],
    current: [2],
    state_of_charge: [0.5],
    temperature: [30],
    cell_temperature: [31, Number.NaN],
  };
  const { power, temperatureC, imu: noImu } = signalsOf(sample('power', pack), true);
  t.same(power, { voltageV: 50, currentA: 2, stateOfCharge: 0.5, temperatureC: [30, 31] });
  t.same([temperatureC.length, noImu], [0, undefined], 'the heat of a battery is not that of a motor');
  t.same(signalsOf(sample('power', {}), true).power, {
    voltageV: Number.NaN,
    currentA: Number.NaN,
    stateOfCharge: Number.NaN,
    temperatureC: [],
  });
});

t.test('streams beyond the 64th are judged without a history; the gate follows the phase', async (t) => {
  const judge = judgeOf();
  for (let i = 0; i < 64; i++) judge(joints({ stream: `s${i}` }), 0, 'mechanical_lock');
  t.equal(judge(joints({ stream: 's63' }), 0, 'mechanical_lock', 's63 encoders'), 'clear');
  t.equal(judge(joints({ stream: 's64' }), 0, 'mechanical_lock', 's64 encoders'), 'none');
  t.equal(judge(joints({ stream: 's64' }), 0, 'mechanical_lock', 's64'), 'clear');
  t.same(gateOf({ phase: 'ARMED', returning: true }), RETURNING);
  t.same(gateOf({ phase: 'LATCHED', returning: false }), CLOSED);
});
