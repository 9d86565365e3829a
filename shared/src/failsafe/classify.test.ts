import t from 'tap';
import { SAMPLE_FLAGS, type Sample } from '../telemetry.ts';
import {
  type AgentFacts,
  classifyAgent,
  classifyMcu,
  classifyMcuSilence,
  classifyStopLine,
  classifyStream,
  type LivenessLimits,
  staleAfterMs,
} from './classify-liveness.ts';
import { classifySignals, isStandstill, type SignalLimits, type Signals, signalsOf } from './classify-signals.ts';

const LIMITS: SignalLimits = {
  joints: {
    knee: { positionMinRad: -1, positionMaxRad: 1, velocityMaxRadps: 2 },
    hot: { temperatureMaxC: 60 },
  },
  thermal: { maxC: 85, tripC: 95, clearC: 70 },
  thermalStreams: ['motors'],
  standstillRadps: 0.02,
};

const signals = (change: Partial<Signals>): Signals => ({
  stream: 'mcu/joint_state',
  kind: 'joint_state',
  names: ['knee', 'hot'],
  positionRad: [0, 0],
  velocityRadps: [0, 0],
  temperatureC: [],
  isOwn: true,
  isMalformed: false,
  ...change,
});

const verdict = (change: Partial<Signals>, cause: string): string | undefined =>
  classifySignals(signals(change), LIMITS).find((reading) => reading.cause === cause)?.verdict;

t.test('motor temperatures: bad above 85, severe above 95, clear below 70, impossible ones unknown', async (t) => {
  for (const [celsius, expected] of [
    [20, 'clear'],
    [69.9, 'clear'],
    [70, 'fair'],
    [85, 'fair'],
    [85.1, 'bad'],
    [95, 'bad'],
    [95.1, 'severe'],
    [250.1, 'unknown'],
    [250, 'severe'],
    [-60, 'clear'],
    [-60.1, 'unknown'],
    [-61, 'unknown'],
    [Number.NaN, 'unknown'],
    [Number.POSITIVE_INFINITY, 'unknown'],
    [Number.NEGATIVE_INFINITY, 'unknown'],
  ] as const)
    t.equal(verdict({ temperatureC: [celsius, 20] }, 'thermal_shutdown'), expected, `${celsius} C`);
  t.equal(verdict({ temperatureC: [20, 60.5] }, 'thermal_shutdown'), 'bad', 'a joint with a limit of its own');
  t.equal(verdict({ temperatureC: [20, 70.5] }, 'thermal_shutdown'), 'severe', 'its trip moves with it');
  t.equal(verdict({ temperatureC: [20, 44] }, 'thermal_shutdown'), 'clear', 'its clearing too');
  t.equal(verdict({ temperatureC: [20, 46] }, 'thermal_shutdown'), 'fair', 'not clear yet, by its own limit');
  t.equal(verdict({ temperatureC: [20, 20], isMalformed: true }, 'thermal_shutdown'), 'unknown', 'whose are they?');
  t.equal(verdict({ temperatureC: [Number.NaN, 200] }, 'thermal_shutdown'), 'severe', 'the worst joint counts');
  t.equal(verdict({ temperatureC: [] }, 'thermal_shutdown'), undefined, 'no temperature is no reading');
});

t.test('only listed temperature streams are motors', async (t) => {
  const hot = { kind: 'temperature', temperatureC: [99], names: ['board'] };
  t.equal(verdict({ ...hot, stream: 'mcu/temperature' }, 'thermal_shutdown'), undefined);
  t.equal(verdict({ ...hot, stream: 'motors' }, 'thermal_shutdown'), 'severe');
  t.equal(verdict({ ...hot, stream: 'motors' }, 'mechanical_lock'), undefined, 'a temperature is no joint');
});

t.test('joint limits: outside is bad, moving is fair, broken values are unknown', async (t) => {
  const at = (positionRad: number, velocityRadps = 0): string | undefined =>
    verdict({ positionRad: [positionRad, 0], velocityRadps: [velocityRadps, 0] }, 'mechanical_lock');
  t.equal(at(1), 'clear');
  t.equal(at(1.01), 'bad');
  t.equal(at(-1.01), 'bad');
  t.equal(at(0, 0.5), 'fair');
  t.equal(at(0, -2.1), 'bad');
  t.equal(at(Number.NaN), 'unknown');
  t.equal(at(0, Number.POSITIVE_INFINITY), 'unknown');
  t.equal(at(20_000), 'unknown', 'a broken encoder, not a limit');
  t.equal(verdict({ positionRad: [0, Number.NaN] }, 'mechanical_lock'), 'unknown', 'of our own, every joint must read');
  t.equal(verdict({ isMalformed: true }, 'mechanical_lock'), 'unknown');
});

t.test('a foreign stream is judged by its limited joints only', async (t) => {
  const foreign = { isOwn: false, stream: '/joint_states' };
  t.equal(verdict({ ...foreign, names: ['q1', 'q2'], positionRad: [Number.NaN, 9] }, 'mechanical_lock'), undefined);
  t.equal(verdict({ ...foreign, names: ['q1', 'knee'], positionRad: [Number.NaN, 0] }, 'mechanical_lock'), 'clear');
  t.equal(verdict({ ...foreign, positionRad: [], velocityRadps: [] }, 'mechanical_lock'), 'unknown');
  for (const limit of [{ positionMinRad: -1 }, { positionMaxRad: 1 }, { velocityMaxRadps: 1 }]) {
    const joints = { ...LIMITS, joints: { knee: limit } };
    const bare = signals({ ...foreign, names: ['knee'], positionRad: [], velocityRadps: [] });
    t.equal(classifySignals(bare, joints)[0]?.verdict, 'unknown', `${Object.keys(limit)} needs its value`);
  }
  const bare = signals({ ...foreign, names: ['knee'], positionRad: [], velocityRadps: [] });
  t.equal(classifySignals(bare, { ...LIMITS, joints: { knee: {} } })[0]?.verdict, 'clear', 'no limit needs none');
  t.equal(verdict({ ...foreign, names: [], positionRad: [1, 2, 3] }, 'mechanical_lock'), undefined);
});

t.test('joints at their limits, without limits, without names, under load and away from their command', async (t) => {
  // Position, velocity, torque and command of one joint: null is not said.
  type Row = readonly [position: number | null, velocity: number | null, effort: number | null, command: number | null];
  const limits: SignalLimits = {
    ...LIMITS,
    joints: { ...LIMITS.joints, strong: { effortMaxNm: 1e6 }, led: { trackingMaxRad: 0.5 }, undefined: {} },
  };
  const list = (value: number | null): number[] => (value === null ? [] : [value]);
  const judge = (name: string | null, [position, velocity, effort, command]: Row, isOwn = true) =>
    classifySignals(
      signals({
        names: name === null ? [] : [name],
        positionRad: list(position),
        velocityRadps: list(velocity),
        effortNm: list(effort),
        commandRad: list(command),
        isOwn,
      }),
      limits,
    ).find(({ cause }) => cause === 'mechanical_lock');
  for (const [name, row, expected] of [
    ['knee', [-1, 0, null, null], 'clear'],
    ['knee', [1, 0, null, null], 'clear'],
    ['knee', [0, 2, null, null], 'fair'],
    ['knee', [0, 0.02, null, null], 'fair'],
    ['knee', [0, 0.0199, null, null], 'clear'],
    ['free', [Number.NaN, 0, null, null], 'unknown'],
    ['free', [10_000, 0, null, null], 'clear'],
    ['free', [-10_000.5, 0, null, null], 'unknown'],
    ['free', [0, 1000, null, null], 'fair'],
    ['free', [0, 1000.5, null, null], 'unknown'],
    ['free', [null, null, null, null], 'clear'],
    ['strong', [0, 0, 100_000, null], 'clear'],
    ['strong', [0, 0, -100_000.5, null], 'unknown'],
    ['strong', [0, 0, null, null], 'unknown'],
    ['free', [null, 0, null, 1], 'clear'],
    ['led', [null, 0, null, 1], 'unknown'],
    ['led', [1, 0, null, 1.5], 'clear'],
    ['led', [1, 0, null, -1], 'bad'],
  ] as const)
    t.equal(judge(name, row)?.verdict, expected, `${name} ${row}`);
  t.equal(judge(null, [9, 0, null, null], false), undefined, 'a joint without a name has no limits');
  const both = signals({ names: ['knee', 'knee'], positionRad: [-3, 3] });
  t.equal(classifySignals(both, LIMITS)[0]?.detail, 'knee position -3.0000 rad, at least -1', 'the first of equals');
});

t.test('of an IMU only what it measures is taken', async (t) => {
  const imu = (covariance: number): Sample => ({
    layout: {
      stream: 'imu',
      kind: 'imu',
      names: [],
      fields: [
        { name: 'orientation', width: 4 },
        { name: 'orientation_covariance', width: 1 },
        { name: 'linear_acceleration', width: 3 },
      ],
      tags: {},
      declaredRateHz: 50,
    },
    stampNs: 0n,
    receivedNs: 0n,
    receivedMonoNs: 0n,
    flags: 0,
    values: Float64Array.of(0, 0, 0, 1, covariance, 0, 0, 9.81),
  });
  const taken = (covariance: number) => signalsOf(imu(covariance), false).imu;
  t.equal(signalsOf(imu(0), false).isMalformed, false);
  t.same(Array.from(taken(0)?.orientation ?? []), [0, 0, 0, 1]);
  t.equal(taken(-1)?.orientation.length, 0, 'a covariance of -1: not measured');
  t.same(Array.from(taken(-1)?.accelerationMps2 ?? []), [0, 0, 9.81]);
});

t.test('standing still needs a velocity of every joint', async (t) => {
  t.equal(isStandstill(signals({}), LIMITS), true);
  t.equal(isStandstill(signals({ velocityRadps: [0, 0.02] }), LIMITS), false);
  t.equal(isStandstill(signals({ velocityRadps: [0.02, 0] }), LIMITS), false, 'the first one too');
  t.equal(isStandstill(signals({ velocityRadps: [0, Number.NaN] }), LIMITS), false);
  t.equal(isStandstill(signals({ velocityRadps: [] }), LIMITS), false);
});

t.test('signals are taken out of a sample as they are', async (t) => {
  const sample: Sample = {
    layout: {
      stream: 'mcu/joint_state',
      kind: 'joint_state',
      names: ['a', 'b'],
      fields: [
        { name: 'position', width: 2 },
        { name: 'velocity', width: 0 },
        { name: 'temperature', width: 2 },
      ],
      tags: {},
      declaredRateHz: 50,
    },
    stampNs: 0n,
    receivedNs: 0n,
    receivedMonoNs: 0n,
    flags: SAMPLE_FLAGS.nameCountMismatch,
    values: Float64Array.of(1, 2, 30, Number.NaN),
  };
  const { positionRad, velocityRadps, temperatureC, isMalformed } = signalsOf(sample, true);
  t.same(
    [[...Array.from(positionRad)], velocityRadps.length, [...Array.from(temperatureC)], isMalformed],
    [[1, 2], 0, [30, Number.NaN], true],
  );
});

const LIVE: LivenessLimits = {
  staleFactor: 5,
  staleMsMin: 100,
  mcuSilentMs: 100,
  agentStuckMs: 200,
  bootGraceMs: 1000,
  mcuReactionMs: 500,
};

t.test('a stream is stale after five of its periods, and never before the floor', async (t) => {
  t.equal(staleAfterMs(50, LIVE), 100);
  t.equal(staleAfterMs(10, LIVE), 500);
  t.equal(staleAfterMs(1000, LIVE), 100);
  t.equal(staleAfterMs(0, LIVE), 5000);
  t.equal(staleAfterMs(0.5, LIVE), 10_000, 'slower than once a second');
  const at = (lastMs: number | undefined, nowMs: number): string =>
    classifyStream('s', lastMs, 50, 0, nowMs, LIVE).verdict;
  t.equal(classifyStream('s', undefined, 50, 500, 1500, LIVE).verdict, 'pending', 'counted from the start');
  t.same([at(undefined, 1000), at(undefined, 1001), at(900, 1000), at(899, 1000)], ['pending', 'bad', 'clear', 'bad']);
  const mcu = (lastMs: number | undefined, nowMs: number): string => classifyMcuSilence(lastMs, 0, nowMs, LIVE).verdict;
  t.same(
    [mcu(undefined, 1000), mcu(undefined, 1001), mcu(900, 1000), mcu(899, 1000)],
    ['pending', 'bad', 'clear', 'bad'],
  );
});

t.test('silence that two punctual rounds would have judged twice needs no second look', async (t) => {
  const agent = { isConnected: true, wasConnected: true, hasProved: true, samplesWaitSinceMs: undefined };
  const proved = { ...agent, tickMovedMs: 1000 };
  for (const [silence, limitMs] of [
    [(nowMs: number) => classifyStream('s', 1000, 10, 0, nowMs, LIVE), 500],
    [(nowMs: number) => classifyMcuSilence(1000, 0, nowMs, LIVE), LIVE.mcuSilentMs],
    [(nowMs: number) => classifyAgent(proved, nowMs, LIVE), LIVE.agentStuckMs],
    [(nowMs: number) => classifyAgent({ ...proved, tickMovedMs: nowMs, samplesWaitSinceMs: 1000 }, nowMs, LIVE), 200],
    [(nowMs: number) => classifyAgent({ ...proved, isConnected: false }, nowMs, LIVE), 200],
  ] as const) {
    const after = (ms: number) => silence(1000 + limitMs + ms);
    t.same([after(1).verdict, after(40).verdict, after(40.1).verdict], ['bad', 'bad', 'severe'], after(40).detail);
  }
});

t.test('the microcontroller must do what the phase wants of it', async (t) => {
  const facts = { hasRestarted: false, hasArmed: false };
  const at = (phase: 'LATCHED' | 'ARMED', change: Partial<Parameters<typeof classifyMcu>[0]>, forMs = 10): string =>
    classifyMcu({ ...facts, state: 'STOPPED', ...change }, phase, 0, forMs, LIVE).verdict;
  t.equal(at('LATCHED', {}), 'clear');
  t.equal(at('LATCHED', { state: 'ARMED' }), 'fair', 'it is still stopping');
  t.equal(at('LATCHED', { state: 'ARMED' }, 501), 'bad', 'it does not obey');
  t.equal(at('LATCHED', { state: 'HOLDING' }, 501), 'bad', 'holding is not stopped');
  t.equal(at('LATCHED', { state: 'UNKNOWN' }), 'pending');
  t.equal(at('ARMED', {}), 'fair', 'it is arming');
  t.equal(at('ARMED', {}, 501), 'severe', 'it did not arm');
  t.equal(at('ARMED', { state: 'ARMED', hasArmed: true }), 'clear');
  t.equal(at('ARMED', { hasArmed: true }), 'severe', 'it stopped by itself');
  const holding = { state: 'HOLDING', hasArmed: true } as const;
  t.equal(at('ARMED', holding), 'severe', 'it holds by itself');
  t.equal(at('ARMED', { ...holding, isHoldWanted: true }), 'clear', 'it holds as it was told');
  t.equal(at('ARMED', { hasArmed: true, isHoldWanted: true }), 'severe', 'told to hold, it stopped');
  t.equal(at('LATCHED', { ...holding, isHoldWanted: true }, 501), 'bad', 'told to stop, holding is not enough');
  t.equal(at('ARMED', { state: 'ARMED', hasRestarted: true }), 'severe');
  t.equal(at('ARMED', { state: 'SILENT' }), 'fair', 'silence is another cause');
  t.equal(at('LATCHED', { state: 'SILENT' }, 501), 'pending', 'of a silent one nothing is known');
  t.equal(at('ARMED', { state: 'UNKNOWN' }), 'pending');
  t.equal(at('LATCHED', { state: 'ARMED' }, 500), 'fair', 'exactly in time');
  const later = { ...facts, state: 'ARMED' } as const;
  t.equal(classifyMcu(later, 'LATCHED', 1000, 1500, LIVE).verdict, 'fair', 'counted from the phase');
});

t.test('a stop line: pressed is severe, unreadable is unknown', async (t) => {
  t.same(
    [true, false, undefined].map((isActive) => classifyStopLine('gpio', isActive).verdict),
    ['severe', 'clear', 'unknown'],
  );
});

t.test('an agent must prove its work by counters that move', async (t) => {
  const good: AgentFacts = {
    isConnected: true,
    wasConnected: true,
    hasProved: true,
    tickMovedMs: 0,
    samplesWaitSinceMs: undefined,
  };
  const at = (change: Partial<AgentFacts>, nowMs: number): string =>
    classifyAgent({ ...good, ...change }, nowMs, LIVE).verdict;
  t.equal(at({}, 200), 'clear');
  t.equal(at({}, 201), 'bad', 'its ticks stand still');
  t.equal(at({ tickMovedMs: 500, samplesWaitSinceMs: 299 }, 500), 'bad', 'it ticks and consumes nothing');
  t.equal(at({ tickMovedMs: 500, samplesWaitSinceMs: 300 }, 500), 'clear');
  t.equal(at({ isConnected: false }, 0), 'bad');
  t.equal(at({ isConnected: false, wasConnected: false }, 9999), 'pending');
  t.equal(at({ hasProved: false }, 1000), 'pending', 'it is starting');
  t.equal(at({ hasProved: false }, 1001), 'severe', 'it never started to work');
});
