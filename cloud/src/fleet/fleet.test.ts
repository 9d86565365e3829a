import { encodeVerdict, type RiskLevel } from '@outrider/shared/health/verdict';
import { SAMPLE_FLAGS, type Sample, type StreamKind, type StreamLayout } from '@outrider/shared/telemetry';
import type { EpochMs } from '@outrider/shared/time';
import t from 'tap';
import type { HistoryBlock, LatestSample, ShadowEntry, TelemetryReader } from '../telemetry/ports.ts';
import { assessHealth } from './health.ts';
import { type HistoryField, readHistory } from './history.ts';
import { describeState } from './state.ts';

const NOW = Date.UTC(2026, 0, 11) as EpochMs;

function layoutOf(kind: StreamKind, fields: Record<string, number>, names: string[] = []): StreamLayout {
  return {
    stream: `test/${kind}`,
    kind,
    names,
    fields: Object.entries(fields).map(([name, width]) => ({ name, width })),
    tags: {},
    declaredRateHz: 50,
  };
}

function latestOf(layout: StreamLayout, values: number[], ageMs = 100, flags = 0): LatestSample {
  const at = (NOW - ageMs) as EpochMs;
  const ns = BigInt(at) * 1_000_000n;
  const sample: Sample = {
    layout,
    stampNs: ns,
    receivedNs: ns,
    receivedMonoNs: 0n,
    flags,
    values: Float64Array.from(values),
  };
  return { stream: layout.stream, kind: layout.kind, recordedAt: at, ingestedAt: at, sample };
}

const power = (soc: number, ageMs?: number): LatestSample =>
  latestOf(layoutOf('power', { state_of_charge: 1, draw: 1 }), [soc, 312], ageMs);
const heat = (celsius: number): LatestSample =>
  latestOf(layoutOf('temperature', { temperature: 1 }, ['motor_max']), [celsius]);
const failsafe = (value: unknown): ShadowEntry[] => [{ key: 'failsafe', at: NOW, ingestedAt: NOW, value }];
const assess = (latest: LatestSample[], shadow: ShadowEntry[] = []) => {
  const { score, risk } = assessHealth({ presence: 'ONLINE' }, latest, shadow, NOW);
  return [score, risk];
};

const NO_SCORE = 'no anomaly score: no analyser has reported in the last minute';

t.test('health is the worst of its parts, and what is unknown is never nominal', async (t) => {
  t.same(assess([power(0.77)]), [1, 'low'], 'all well');
  t.same(assess([]), [null, 'unknown'], 'no data at all');
  t.same(assess([power(0.77, 61_000)]), [null, 'unknown'], 'old data');
  t.same(assess([power(0.77, 6_000)]), [0.5, 'medium'], 'late data');
  t.same(assess([power(0.77), heat(70)]), [1, 'low'], 'warm');
  t.same(assess([power(0.77), heat(82.5)]), [0.5, 'medium'], 'hot');
  t.same(assess([heat(200)]), [0, 'high'], 'far too hot');
  t.same(assess([power(0.05)]), [0, 'high'], 'empty battery');
  t.same(
    assess([latestOf(layoutOf('imu', { orientation: 4 }), [0, 0, 0, 1], 10, SAMPLE_FLAGS.nonFinite)]),
    [0.7, 'low'],
    'odd samples',
  );
});

t.test('a latched stop decides the risk whatever the data say', async (t) => {
  t.same(
    assess(
      [power(0.9)],
      failsafe({ phase: 'LATCHED', mode: 'thermal_shutdown', action: 'STOP1', causes: ['thermal'] }),
    ),
    [0.2, 'critical'],
  );
  t.same(assess([], failsafe({ phase: 'LATCHED', action: 'STOP0' })), [null, 'critical']);
  t.same(assess([power(0.9)], failsafe({ phase: 'LATCHED' })), [0.4, 'high'], 'a latch without an action is a hold');
  t.same(assess([power(0.9)], failsafe({ phase: 'ARMED', action: 'DERATE' })), [0.6, 'medium']);
  t.same(assess([power(0.9)], failsafe('nonsense')), [1, 'low'], 'a shadow of another shape is no failsafe');
  const { reasons } = assessHealth(
    { presence: 'OFFLINE' },
    [power(0.9)],
    failsafe({ phase: 'LATCHED', mode: 'mechanical_lock', action: 'STOP0' }),
    NOW,
  );
  t.same(reasons, ['failsafe latched: mechanical_lock', NO_SCORE, 'link OFFLINE']);
});

t.test("the robot's own analysis comes before the control plane's, and old ones count nothing", async (t) => {
  const verdict = (anomalyScore: number | null, riskLevel: RiskLevel, healthScore: number) =>
    encodeVerdict({
      state: anomalyScore === null ? 'learning' : 'watching',
      progress: anomalyScore === null ? 0.42 : 1,
      anomalyScore,
      healthScore,
      riskLevel,
      signals: [{ signal: '/joint_states:knee.effort', score: 0.8, cost: 1 - healthScore, sinceMs: NOW - 5000 }],
      alarmSinceMs: undefined,
      updatedAtMs: NOW,
      evidence: undefined,
    });
  const said = (key: string, value: unknown, ageMs = 1000): ShadowEntry => {
    const at = (NOW - ageMs) as EpochMs;
    return { key, at, ingestedAt: at, value };
  };
  const judge = (...shadow: ShadowEntry[]) => assessHealth({ presence: 'ONLINE' }, [power(0.9)], shadow, NOW);
  const edge = said('health', verdict(0.75, 'high', 0.4));
  const cloud = said('cloud_health', verdict(0.1, 'low', 1));
  t.match(judge(edge, cloud), { score: 0.4, anomalyScore: 0.75, risk: 'high', analysedBy: 'edge' });
  t.match(judge(edge, cloud).reasons, [/^\/joint_states:knee\.effort costs 0\.60 since 2026-01-10T23:59:55/]);
  t.match(judge(cloud), { score: 1, anomalyScore: 0.1, risk: 'low', analysedBy: 'cloud' });
  t.match(judge({ ...edge, ingestedAt: (NOW - 61_000) as EpochMs }, cloud), { analysedBy: 'cloud' });
  t.match(judge(said('health', { state: 'watching', health_score: 7 })), { analysedBy: null, anomalyScore: null });
  const learning = judge(said('health', verdict(null, 'unknown', 1)));
  t.match(learning, { score: 1, anomalyScore: null, risk: 'low' });
  t.match(learning.reasons, ['no anomaly score yet: learning what is normal, 42 % done']);
  const latched = { phase: 'LATCHED', mode: 'mechanical_lock', action: 'STOP0' };
  t.match(judge(...failsafe(latched), edge), { score: 0, risk: 'critical' }, 'a stop is worse than any anomaly');
});

t.test('state converts units at the edge and says null for what is not measured', async (t) => {
  const joints = latestOf(layoutOf('joint_state', { position: 3, velocity: 0, effort: 2 }, []), [
    1,
    Number.NaN,
    3,
    6.1,
    7,
  ]);
  const imu = latestOf(layoutOf('imu', { orientation: 4 }), [0, 0, 0.062, 0.998]);
  const robot = {
    robotPk: 1,
    tenantId: 'a',
    robotId: 'RB-1',
    robotName: 'r',
    robotType: 't',
    capabilities: {},
    status: 'operational',
    presence: 'ONLINE',
    lastSeenMs: NOW,
    registeredAtMs: NOW,
  } as const;
  const state = describeState(robot, [joints, imu, power(0.785)], []);
  t.same(state.battery, { percentage: 78.5, time_remaining_minutes: null, draw_w: 312 });
  t.same(state.kinematic_state.base_pose, { position: null, orientation: { w: 0.998, x: 0, y: 0, z: 0.062 } });
  t.same(state.kinematic_state.joints, [
    { name: '#0', position: 1, velocity: null, effort: 6.1, temperature_c: null },
    { name: '#1', position: null, velocity: null, effort: 7, temperature_c: null },
    { name: '#2', position: 3, velocity: null, effort: null, temperature_c: null },
  ]);
  t.equal(describeState(robot, [power(8)], []).battery.percentage, null, 'a state of charge of 8 is not a percentage');
  t.equal(describeState(robot, [], []).timestamp, null);
});

t.test('history keeps the last reading of each interval and says when it was cut', async (t) => {
  const { reader, from } = batteryEverySecond(120);
  const read = (intervalMs: number | undefined, limit: number, fields: HistoryField[] = ['battery']) =>
    readHistory(reader, { robotPk: 1, fromMs: from, toMs: (from + 120_000) as EpochMs, fields, intervalMs, limit });
  const minutes = await read(60_000, 100);
  t.same(minutes, {
    states: [
      { timestamp: new Date(from).toISOString(), battery: 59 },
      { timestamp: new Date(from + 60_000).toISOString(), battery: 100 },
    ],
    truncated: false,
  });
  t.equal((await read(undefined, 1_000)).states.length, 120);
  const cut = await read(undefined, 7);
  t.equal(cut.states.length, 7);
  t.ok(cut.truncated);
  t.same(
    await read(undefined, 10, ['position']),
    { states: [], truncated: false },
    'what nobody measures has no states',
  );
});

/** Battery percentages 0 to 119 (over 100 are capped by the source at 1), one a second, in blocks of 50. */
function batteryEverySecond(count: number): { reader: TelemetryReader; from: EpochMs } {
  const from = (NOW - count * 1000) as EpochMs;
  const layout = layoutOf('power', { state_of_charge: 1 });
  const blocks: HistoryBlock[] = [];
  for (let start = 0; start < count; start += 50) {
    const rows = Array.from({ length: Math.min(50, count - start) }, (_, row) => start + row);
    const ns = BigInt64Array.from(rows, (row) => BigInt(from + row * 1000) * 1_000_000n);
    blocks.push({
      layout,
      count: rows.length,
      stampNs: ns,
      receivedNs: ns,
      receivedMonoNs: ns,
      flags: new Uint32Array(rows.length),
      cells: Float64Array.from(rows, (row) => Math.min(1, row / 100)),
      texts: [],
      recordedAt: (from + start * 1000) as EpochMs,
      ingestedAt: NOW,
      epoch: '0'.repeat(16),
      seq: start + 1,
      bootId: 'b',
    });
  }
  const none = async (): Promise<never[]> => [];
  const reader: TelemetryReader = {
    latest: none,
    shadow: none,
    counts: none,
    gaps: none,
    events: none,
    async *history() {
      yield* blocks;
    },
  };
  return { reader, from };
}
