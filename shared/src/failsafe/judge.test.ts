import t from 'tap';
import type { Sample } from '../telemetry.ts';
import {
  type CommLimits,
  classifyComm,
  classifyHost,
  type HealthFacts,
  RateMeter,
  stricterComm,
} from './classify-agent.ts';
import { rollPitchOf } from './classify-body.ts';
import { insideM } from './classify-place.ts';
import { type Signals, signalsOf } from './classify-signals.ts';
import { gateOf, type JudgeLimits, SignalJudge } from './judge.ts';
import type { CauseId } from './rules.ts';

const LIMITS: JudgeLimits = {
  joints: {
    knee: { velocityMaxRadps: 2, effortMaxNm: 50 },
    elbow: { trackingMaxRad: 0.1 },
  },
  thermal: { maxC: 85, tripC: 95, clearC: 70 },
  thermalStreams: ['/motors'],
  standstillRadps: 0.02,
  trackingMaxRad: 0.5,
  history: { jumpRadpsMax: 50, jumpMarginRad: 0.2, frozenMs: 1000, motorRiseMaxCps: 5, riseWindowMs: 5000 },
  body: {
    imuStreams: ['mcu/imu'],
    rollMaxRad: 0.8,
    pitchMaxRad: 0.6,
    uprightMaxRad: 0.5,
    freeFallMps2: 3,
    freeFallMs: 100,
    freeFallMsMax: 300,
    impactMps2: 30,
  },
  power: {
    batteryStreams: ['mcu/power'],
    criticalSoc: 0.05,
    clearSoc: 0.15,
    lowSoc: 0.2,
    voltageMinV: 40,
    sagRatio: 0.15,
    maxC: 55,
    tripC: 65,
    clearC: 45,
  },
  host: { diskMinBytes: 256e6, slowFactor: 0.5 },
  geofence: {
    frame: 'map',
    corners: [
      [0, 0],
      [10, 0],
      [10, 10],
      [0, 10],
    ],
    marginM: 0.2,
  },
  inwardSpeedMaxMps: 0.1,
};
const OPEN = { isOpen: true, isReturning: false };
const CLOSED = { isOpen: false, isReturning: false };
const RETURNING = { isOpen: true, isReturning: true };

const joints = (change: Partial<Signals> = {}): Signals => ({
  stream: 'mcu/joint_state',
  kind: 'joint_state',
  names: ['knee', 'elbow'],
  positionRad: [0, 0],
  velocityRadps: [0, 0],
  effortNm: [0, 0],
  temperatureC: [],
  isOwn: true,
  isMalformed: false,
  ...change,
});
const other = (stream: string, kind: string, change: Partial<Signals>): Signals => ({
  ...joints({ stream, kind, names: [], positionRad: [], velocityRadps: [], effortNm: [] }),
  ...change,
});

/** A judge that remembers, and what it says of one channel now. */
function judgeOf(limits: JudgeLimits = LIMITS) {
  const judge = new SignalJudge(limits);
  return (
    signals: Signals,
    atMs: number,
    cause: CauseId,
    channel = signals.stream,
    gate = OPEN,
    rateHz = 50,
  ): string => {
    const found = judge.judge(signals, atMs, rateHz, gate).filter((r) => r.cause === cause && r.channel === channel);
    return found.map((reading) => reading.verdict).join() || 'none';
  };
}

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
  t.equal(at([3], 140, ['elbow']), 'clear');
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
  t.ok(rollPitchOf([0, Math.SQRT1_2 * 1.01, 0, Math.SQRT1_2 * 1.01]), 'straight down');
});

t.test('tilt: roll and pitch have limits of their own, either way, and upright is clear', async (t) => {
  const at = (roll: number, pitch: number): string => judgeOf()(imu(turned(roll, pitch)), 0, 'tilt');
  t.same([at(0.79, 0), at(0.81, 0), at(-0.81, 0)], ['fair', 'bad', 'bad']);
  t.same([at(0, 0.59), at(0, 0.61), at(0, -0.61)], ['fair', 'bad', 'bad']);
  t.same([at(0.49, 0.49), at(0.51, 0), at(0, 0.51)], ['clear', 'fair', 'fair']);
  t.equal(at(Math.PI, 0), 'bad', 'on its back');
  t.equal(judgeOf()(imu([0, 0, 0, 0]), 0, 'tilt'), 'unknown');
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
  t.equal(run([0, up, 0], [100, up, 0], [1101, turned(1, 0), 9.8]), 'clear fair clear', 'no longer');
  t.equal(run([0, up, 0.1], [90, up, 9.8], [180, up, 0.1], [200, up, 31]), 'clear clear clear clear', 'two hops');
  t.equal(run([0, up, 3], [400, up, 3]), 'clear clear', 'exactly the limit is no free fall');
  t.equal(run([0, up, 31], [20, turned(1, 0), 31]), 'clear clear', 'a jolt is no fall');
  t.equal(run([0, up, Number.NaN], [20, up, 2001], [40, up, 2000]), 'unknown unknown clear');
  t.equal(judgeOf()(imu(up, []), 0, 'fall'), 'none');
  t.equal(judgeOf()(imu([], [0, 0, 9.8]), 0, 'fall'), 'clear', 'without an orientation');
});

const battery = (stateOfCharge: number, currentA = 1, voltageV = 50, temperatureC: number[] = []): Signals =>
  other('mcu/power', 'power', { power: { stateOfCharge, currentA, voltageV, temperatureC } });

t.test('a battery is critical below 5 %, low below 20 %, and neither while it charges', async (t) => {
  const at = (soc: number, currentA = 1): string[] => [
    judgeOf()(battery(soc, currentA), 0, 'battery_critical'),
    judgeOf()(battery(soc, currentA), 0, 'battery_low'),
  ];
  t.same(at(0.5), ['clear', 'clear']);
  t.same(at(0.219), ['clear', 'fair']);
  t.same(at(0.2), ['clear', 'fair']);
  t.same(at(0.199), ['clear', 'bad']);
  t.same(at(0.151), ['clear', 'bad']);
  t.same(at(0.15), ['fair', 'bad']);
  t.same(at(0.05), ['fair', 'bad']);
  t.same(at(0.049), ['bad', 'bad']);
  t.same(at(0.01, -0.06), ['clear', 'clear'], 'charging');
  t.same(at(0.21, -0.06), ['clear', 'clear'], 'charging');
  t.same(at(0.1, -0.06), ['clear', 'clear'], 'charging');
  t.same(at(0.01, -0.05), ['bad', 'bad'], 'that little is noise');
  t.same(
    [at(0), at(1)],
    [
      ['bad', 'bad'],
      ['clear', 'clear'],
    ],
  );
  t.same([at(8), at(-0.01), at(1.01)].flat(), ['unknown', 'unknown', 'unknown', 'unknown', 'unknown', 'unknown']);
  t.equal(judgeOf()({ ...battery(0.01), stream: '/spare' }, 0, 'battery_critical'), 'none', 'not its battery');
});

t.test('a battery that never measured its charge is judged by its voltage; one that stops is broken', async (t) => {
  const judge = judgeOf();
  t.equal(judge(battery(Number.NaN), 0, 'battery_critical'), 'clear');
  t.equal(judge(battery(Number.NaN, 1, 39.9), 1, 'battery_critical'), 'bad');
  t.equal(judge(battery(0.5), 2, 'battery_critical'), 'clear');
  t.equal(judge(battery(Number.NaN), 3, 'battery_critical'), 'unknown');
  const { voltageMinV: _, ...power } = LIMITS.power;
  const free = judgeOf({ ...LIMITS, power });
  t.equal(free(battery(Number.NaN, 1, Number.NaN), 0, 'battery_critical'), 'none');
  t.equal(free(battery(Number.NaN, 1, Number.NaN), 0, 'battery_low'), 'none');
  t.equal(free(battery(Number.NaN, 1, 10), 1, 'battery_low'), 'clear');
  t.equal(free(battery(Number.NaN, 1, 10), 1, 'battery_critical'), 'none');
  t.equal(free(battery(Number.NaN, 1, Number.NaN), 2, 'battery_low'), 'unknown');
  t.equal(free(battery(0.5, 1, 10), 3, 'battery_critical'), 'clear');
  const volts = (voltageV: number): string => judgeOf()(battery(0.5, 1, voltageV), 0, 'battery_critical');
  t.same(
    [volts(40), volts(39.99), volts(0), volts(-0.1), volts(2000), volts(2000.1), volts(Number.NaN)],
    ['clear', 'bad', 'bad', 'unknown', 'clear', 'unknown', 'unknown'],
  );
  t.equal(judgeOf()(battery(0.5, 1, -1), 0, 'battery_low'), 'unknown');
});

t.test('a voltage sags against that of the last half minute', async (t) => {
  const judge = judgeOf();
  const at = (voltageV: number, atMs: number): string => judge(battery(0.9, 1, voltageV), atMs, 'battery_low');
  t.equal(at(60, 0), 'clear');
  t.equal(at(51, 100), 'clear', '15 % is allowed');
  t.equal(at(50.9, 200), 'bad');
  for (let ms = 1000; ms <= 120_000; ms += 1000) at(50.9, ms);
  t.equal(at(50.9, 121_000), 'clear', 'it has become the usual');
  t.equal(at(43, 121_100), 'bad');
  t.equal(at(60, 121_200), 'clear');
  const steady = judgeOf();
  t.equal(steady(battery(0.9, 1, 60), 1_000_000, 'battery_low'), 'clear', 'the first one is the usual');
  t.equal(steady(battery(0.9, 1, 50), 1_000_100, 'battery_low'), 'bad');
  t.equal(steady(battery(0.9, 1, 50), 1_012_000, 'battery_low'), 'bad', 'not yet after 12 s: 56.7 V');
  t.equal(steady(battery(0.9, 1, 50), 1_042_000, 'battery_low'), 'clear');
});

t.test('batteries and cells that are too hot', async (t) => {
  const at = (...celsius: number[]): string =>
    judgeOf()(battery(0.9, 1, 50, celsius), 0, 'thermal_shutdown', 'mcu/power battery');
  t.same([at(44.9), at(45), at(55), at(55.1), at(65), at(65.1)], ['clear', 'fair', 'fair', 'bad', 'bad', 'severe']);
  t.same([at(20, 56, 30), at(Number.NaN), at(251), at(-61)], ['bad', 'unknown', 'unknown', 'unknown']);
  t.same([at(250), at(-60)], ['severe', 'clear']);
  t.equal(at(), 'none');
});

const place = (at: number[], frame = 'map'): Signals => other('/pose', 'pose', { place: { frame, at } });

t.test('the distance to the edge of a fence', async (t) => {
  const corners = LIMITS.geofence?.corners ?? [];
  const at = (x: number, y: number): number => insideM(corners, [x, y]);
  t.same([at(5, 5), at(1, 5), at(5, 9), at(11, 5), at(-2, 5), at(13, 14), at(0, 5)], [5, 1, 1, -1, -2, -5, 0]);
  t.equal(insideM([...corners].reverse(), [1, 5]), 1, 'either way round');
  const concave = [
    [0, 0],
    [10, 0],
    [10, 10],
    [5, 1],
    [0, 10],
  ] as const;
  t.ok(insideM(concave, [5, 5]) < 0);
  t.ok(insideM(concave, [1, 5]) > 0);
  t.ok(insideM(concave, [9, 5]) > 0);
  t.equal(
    insideM(
      [
        [0, 0],
        [0, 0],
        [10, 0],
        [10, 10],
        [0, 10],
      ],
      [1, 5],
    ),
    1,
    'a corner twice',
  );
});

t.test('geofence: outside is bad while armed; stopped outside it waits for a way back', async (t) => {
  const at = (x: number, gate = OPEN): string => judgeOf()(place([x, 5]), 0, 'geofence_lock', '/pose', gate);
  t.same([at(5), at(9.79), at(9.81), at(10), at(10.01)], ['clear', 'clear', 'fair', 'fair', 'bad']);
  t.same([at(10.01, CLOSED), at(5, CLOSED)], ['fair', 'clear']);
  const bad = (values: number[], frame?: string): string =>
    judgeOf()(place(values, frame), 0, 'geofence_lock', '/pose', CLOSED);
  t.same(
    [bad([Number.NaN, 5]), bad([5, Number.POSITIVE_INFINITY]), bad([5]), bad([5, 5], 'odom'), bad([200_000, 0])],
    ['unknown', 'unknown', 'unknown', 'unknown', 'unknown'],
  );
  t.equal(judgeOf({ ...LIMITS, geofence: undefined })(place([99, 99]), 0, 'geofence_lock'), 'none');
});

t.test('geofence: back inwards slowly, and not any other way', async (t) => {
  const run = (...steps: readonly (readonly [number, number])[]): string => {
    const judge = judgeOf();
    judge(place([steps[0]?.[1] ?? 0, 5]), 0, 'geofence_lock', '/pose', CLOSED);
    return steps.map(([ms, x]) => judge(place([x, 5]), ms, 'geofence_lock', '/pose', RETURNING)).join(' ');
  };
  t.equal(run([100, 11], [1000, 10.9], [2000, 10.8], [12_000, 9.79], [14_000, 9.7]), 'fair fair fair clear clear');
  t.equal(run([100, 11], [1000, 11.04], [2000, 11.051]), 'fair fair severe', 'outwards, beyond wavering');
  t.equal(run([100, 11], [5000, 10.5], [6000, 10.56]), 'fair fair severe', 'outwards from its best');
  t.equal(run([500, 11], [1000, 10.93]), 'fair fair');
  t.equal(run([500, 11], [1000, 10.9]), 'fair severe', '0.2 m/s');
  t.equal(run([100, 11], [499, 10.5]), 'fair fair', 'too short to call it a speed');
  t.equal(run([500, 11], [600, 10.96], [700, 10.92], [1001, 10.88]), 'fair fair fair severe', '0.24 m/s over 0.5 s');
  const judge = judgeOf();
  const at = (ms: number, x: number, gate: typeof OPEN): string =>
    judge(place([x, 5]), ms, 'geofence_lock', '/pose', gate);
  at(0, 10.5, RETURNING);
  at(9000, 12, CLOSED);
  t.equal(at(18_000, 12, RETURNING), 'fair', 'carried away while stopped, it starts anew');
});

t.test('geofence: latitude and longitude, also across the date line', async (t) => {
  const metre = 1 / 111_194.93;
  for (const [latitude, longitude] of [
    [52, 13],
    [-33, 179.9999],
    [60, -180],
  ] as const) {
    const width = (10 * metre) / Math.cos((latitude * Math.PI) / 180);
    const wrap = (deg: number): number => (deg > 180 ? deg - 360 : deg < -180 ? deg + 360 : deg);
    const fence = {
      frame: 'wgs84',
      corners: [
        [latitude, longitude],
        [latitude, wrap(longitude + width)],
        [latitude + 10 * metre, wrap(longitude + width)],
        [latitude + 10 * metre, longitude],
      ],
      marginM: 0.2,
    } as const;
    const at = (north: number, east: number): string =>
      judgeOf({ ...LIMITS, geofence: fence })(
        place([latitude + north * metre, wrap(longitude + (east / 10) * width)], 'wgs84'),
        0,
        'geofence_lock',
        '/pose',
      );
    t.same(
      [at(5, 5), at(9.7, 5), at(9.9, 5), at(10.1, 5), at(5, 9.7), at(5, 9.9), at(5, 10.1), at(5, -0.1)],
      ['clear', 'clear', 'fair', 'bad', 'clear', 'fair', 'bad', 'bad'],
      `${latitude} ${longitude}`,
    );
    const judge = judgeOf({ ...LIMITS, geofence: fence });
    for (const broken of [
      [0, 0],
      [91, 0],
      [-91, 0],
      [0, 181],
      [0, -181],
      [Number.NaN, 0],
    ])
      t.equal(judge(place(broken, 'wgs84'), 0, 'geofence_lock', '/pose'), 'unknown', `${broken}`);
  }
  const equator = {
    frame: 'wgs84',
    corners: [
      [-1, -1],
      [-1, 1],
      [1, 1],
      [1, -1],
    ],
    marginM: 0,
  } as const;
  const judge = judgeOf({ ...LIMITS, geofence: equator });
  t.same(
    [
      [0, 0.5],
      [0.5, 0],
    ].map((at) => judge(place(at, 'wgs84'), 0, 'geofence_lock', '/pose')),
    ['clear', 'clear'],
    'only both zero is no fix',
  );
});

t.test('a stream below half its rate is slow', async (t) => {
  const run = (periodMs: number, rateHz: number, forMs: number): string[] => {
    const meter = new RateMeter();
    const found: string[] = [];
    for (let ms = 0; ms <= forMs; ms += periodMs) {
      const reading = meter.sample('s', ms, rateHz, LIMITS.host);
      if (reading) found.push(`${ms} ${reading.verdict}`);
    }
    return found;
  };
  t.same(run(20, 50, 6000), ['3000 clear', '6000 clear']);
  t.same(run(40, 50, 3000), ['3000 clear'], 'exactly half');
  t.same(run(50, 50, 6000), ['3000 bad', '6000 bad']);
  t.same(run(2500, 1, 12_500), ['10000 bad'], 'ten periods of a slow stream');
  t.same(run(100, 0, 9000), [], 'without a promise there is nothing to keep');
  t.same(run(2000, 0.9, 60_000), [], 'too slow to count');
  t.equal(judgeOf()(joints(), 0, 'source_slow'), 'none');
  const judge = judgeOf();
  for (let ms = 0; ms < 3000; ms += 50) judge(joints(), ms, 'source_slow');
  t.equal(judge(joints(), 3000, 'source_slow'), 'bad');
  for (let ms = 0; ms <= 9000; ms += 50)
    t.equal(judge(other('/board', 'temperature', { temperatureC: [20] }), ms, 'source_slow'), 'none') || t.bailout();
});

const HEALTH: HealthFacts = {
  hasLink: true,
  isLinkUp: true,
  linkAgeMs: 0,
  missionPolicy: undefined,
  missionMaxMs: 0,
  diskFreeBytes: 1e9,
  clockQuality: 'good',
  receivedMs: 1000,
};
const comm = (facts: Partial<HealthFacts>, limits: Partial<CommLimits>, nowMs = 1000): string =>
  classifyComm({ ...HEALTH, ...facts }, nowMs, { policy: 'hold', lostMs: 3000, maxMs: 0, ...limits })
    .map(({ cause, verdict }) => `${cause} ${verdict}`)
    .join(', ');

t.test('a lost link holds, slows or is ignored, by policy and for how long', async (t) => {
  t.equal(comm({ linkAgeMs: 3000 }, {}), 'comm_loss clear, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 3001 }, {}), 'comm_loss bad, comm_degraded clear');
  t.equal(comm({ isLinkUp: false }, {}), 'comm_loss fair, comm_degraded clear', 'cut a moment ago');
  t.equal(comm({}, {}, 4001), 'comm_loss bad, comm_degraded clear', 'the age grows while nothing is reported');
  t.equal(comm({}, {}, 500), 'comm_loss clear, comm_degraded clear');
  t.equal(comm({ linkAgeMs: Number.NaN }, {}), 'comm_loss bad, comm_degraded clear');
  const derate = { policy: 'derate', maxMs: 60_000 } as const;
  t.equal(comm({ linkAgeMs: 3001 }, derate), 'comm_loss clear, comm_degraded bad');
  t.equal(comm({ linkAgeMs: 63_000 }, derate), 'comm_loss clear, comm_degraded bad');
  t.equal(comm({ linkAgeMs: 63_001 }, derate), 'comm_loss bad, comm_degraded bad');
  t.equal(comm({ isLinkUp: false }, derate), 'comm_loss clear, comm_degraded fair');
  t.equal(comm({ linkAgeMs: 9e9 }, { policy: 'derate' }), 'comm_loss clear, comm_degraded bad', 'without end');
  const ignore = { policy: 'ignore', maxMs: 60_000 } as const;
  t.equal(comm({ linkAgeMs: 63_000 }, ignore), 'comm_loss clear, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 63_001, hasLink: false }, ignore), 'comm_loss bad, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 9e9, isLinkUp: false }, { policy: 'ignore' }), 'comm_loss clear, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 9e9, hasLink: false }, { policy: 'ignore' }), '', 'nothing to lose');
  t.equal(comm({ linkAgeMs: 9e9, hasLink: false }, {}), 'comm_loss bad, comm_degraded clear');
  const asked = { linkAgeMs: 9e9, hasLink: false, missionPolicy: 'hold' } as const;
  t.equal(comm(asked, { policy: 'ignore' }), 'comm_loss bad, comm_degraded clear');
  t.match(classifyComm({ ...HEALTH, linkAgeMs: 5000 }, 1000, { policy: 'hold', lostMs: 3000, maxMs: 0 }), [
    { detail: 'no link for 5 s', channel: 'link' },
    { detail: '' },
  ]);
});

t.test('a mission may ask for a stricter policy, never for a looser one', async (t) => {
  const base = { policy: 'derate', lostMs: 3000, maxMs: 5000 } as const;
  t.equal(stricterComm(base, undefined, 1), base);
  t.match(stricterComm(base, 'ignore', 0), { policy: 'derate', maxMs: 5000, lostMs: 3000 });
  t.match(stricterComm(base, 'hold', 9000), { policy: 'hold', maxMs: 5000 });
  t.match(stricterComm(base, 'derate', 1000), { policy: 'derate', maxMs: 1000 });
  t.match(stricterComm({ ...base, maxMs: 0 }, 'ignore', 1000), { policy: 'derate', maxMs: 1000 });
  t.match(stricterComm({ ...base, maxMs: 0 }, 'ignore', 0), { maxMs: 0 });
});

t.test('disk and clock as the agent reports them', async (t) => {
  const host = (facts: Partial<HealthFacts>): string =>
    classifyHost({ ...HEALTH, ...facts }, LIMITS.host)
      .map(({ cause, verdict }) => `${cause} ${verdict}`)
      .join(', ');
  t.equal(host({}), 'disk_low clear, clock_bad clear');
  t.equal(host({ diskFreeBytes: 512e6, clockQuality: 'unsure' }), 'disk_low clear, clock_bad fair');
  t.equal(host({ diskFreeBytes: 511e6, clockQuality: 'bad' }), 'disk_low fair, clock_bad bad');
  t.equal(host({ diskFreeBytes: 256e6, clockQuality: '' }), 'disk_low fair');
  t.equal(host({ diskFreeBytes: 255e6, clockQuality: 'x' }), 'disk_low bad, clock_bad bad');
  t.equal(host({ diskFreeBytes: Number.NaN, clockQuality: '' }), '');
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
