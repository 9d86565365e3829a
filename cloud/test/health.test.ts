import { decodeModel } from '@outrider/shared/health/model-codec';
import { DEFAULT_ANALYSER, RobotAnalyser, type RobotModel, streamOf } from '@outrider/shared/health/robot-analyser';
import { TrainingSet, trainStream } from '@outrider/shared/health/training';
import { createLogger } from '@outrider/shared/log';
import { runStages } from '@outrider/shared/service';
import type { Sample, StreamLayout } from '@outrider/shared/telemetry';
import { systemClock } from '@outrider/shared/time';
import { Registry } from 'prom-client';
import t from 'tap';
import { CLOUD_ANALYSER, HealthKeeper } from '../src/health/health-keeper.ts';
import { SqlHealthStore } from '../src/storage/health-store.ts';
import type { LaneOutcome } from '../src/telemetry/ingest-ports.ts';
import { until } from '../src/testing/engines.ts';
import { describeRobot, type Harness, startHarness } from './api-harness.ts';

const SETTINGS = {
  ...CLOUD_ANALYSER,
  windows: { hopMs: 1000, hops: 4 },
  fitWindows: 80,
  calibrateWindows: 80,
};
const log = createLogger('test', 'silent');

/** Another replica's analysis of what this database stores. */
function keeperOf(harness: Harness): { keeper: HealthKeeper; stop: () => Promise<void> } {
  const keeper = new HealthKeeper({
    store: new SqlHealthStore(harness.database),
    settings: SETTINGS,
    metrics: new Registry(),
    clock: systemClock,
    log,
  });
  const forget = harness.telemetry.onStored((outcomes) => keeper.stored(outcomes));
  const ends = new AbortController();
  const ran = runStages([keeper], ends.signal, log);
  return {
    keeper,
    stop: async () => {
      forget();
      ends.abort();
      await ran;
    },
  };
}

/** Reports of an arm, one a second, ending now. */
function reports(robotId: string, from: number, count: number, startMs: number, extraTorque = 0): unknown[] {
  return Array.from({ length: count }, (_, i) => {
    const n = from + i;
    const speed = Math.sin(n * 0.71);
    const wobble = (k: number): number =>
      0.05 * Math.sin(n * (7.3 + k) * (1 + k)) + 0.03 * Math.cos(n * n * (0.37 + k));
    return {
      robot_id: robotId,
      timestamp: new Date(startMs + n * 1000).toISOString(),
      joint_state: ['hip', 'knee'].map((name, k) => ({
        name,
        velocity: speed + wobble(k),
        torque_nm: 2 * speed + wobble(k + 2) + extraTorque,
      })),
    };
  });
}

t.test('telemetry over HTTP is learnt, judged, and an anomaly is told once by all replicas', async (t) => {
  const harness = await startHarness();
  t.teardown(() => harness.close());
  const token = await harness.token('acme', [
    'robot:read',
    'telemetry:read',
    'telemetry:write',
    'robot:write',
    'robot:admin',
    'fleet:write',
  ]);
  const robotId = 'RB-77';
  t.equal((await harness.call('POST', '/v1/robots', { token, body: describeRobot(robotId) })).status, 201);
  const health = async (): Promise<Record<string, unknown>> =>
    (await harness.call('GET', `/api/v1/robots/${robotId}/health`, { token })).json as Record<string, unknown>;
  // The newest must stay fresh throughout: a clock may be ahead by minutes.
  const startMs = Date.now() - 50_000;
  const send = async (from: number, count: number, extraTorque = 0): Promise<void> => {
    for (let at = from; at < from + count; at += 50) {
      const body = { events: reports(robotId, at, Math.min(50, from + count - at), startMs, extraTorque) };
      t.equal((await harness.call('POST', '/api/v1/telemetry/events', { token, body })).status, 202);
    }
  };
  const [one, two] = [keeperOf(harness), keeperOf(harness)];
  t.teardown(() => Promise.all([one.stop(), two.stop()]));

  await send(0, 60);
  await until(async () => (await health())['analysed_by'] === 'cloud', 'a first verdict');
  t.match(await health(), { anomaly_score: null, signals: [] });
  t.ok(((await health())['reasons'] as string[]).some((reason) => /learning what is normal, \d+ % done/.test(reason)));

  await send(60, 160);
  await until(async () => (await health())['anomaly_score'] !== null, 'the end of learning');
  await until(async () => (await harness.database.query('select 1 from health_model')).length === 1, 'the model');
  t.match(await health(), { risk_level: 'low', analysed_by: 'cloud' });

  await send(220, 40, 5);
  await until(async () => ((await health())['anomaly_score'] as number) > 0.5, 'the anomaly');
  const sick = await health();
  t.match(sick, { risk_level: /medium|high/, updated_at: String });
  t.ok((sick['health_score'] as number) < 0.9);
  const signals = sick['signals'] as { signal: string; score: number; cost: number; since: string }[];
  t.ok(signals.some(({ signal, cost, since }) => signal.includes('effort') && cost > 0 && Date.parse(since) > startMs));
  const told = (): Promise<{ payload: string; occurred_at: Date }[]> =>
    harness.database.query(`select payload, occurred_at from bus_event where type = 'anomaly.detected.v1'`);
  await until(async () => (await told()).length > 0, 'the event');
  await Promise.all([one.keeper.flush(), two.keeper.flush()]);
  const events = await told();
  t.equal(events.length, 1, 'two replicas, one event');
  const at = events[0]?.occurred_at.getTime() ?? 0;
  t.ok(at >= startMs + 220_000 && at <= startMs + 240_000, 'with the time of the anomaly');
  t.match(JSON.parse(events[0]?.payload ?? '{}'), { anomaly_score: Number, risk_level: /medium|high/, signals: Array });

  // The robot's agent begins to judge itself: from now on it decides, and the control plane stops looking.
  const [robot] = await harness.database.query<{ robot_pk: number }>('select robot_pk from robot');
  const robotPk = robot?.robot_pk ?? 0;
  const verdict = {
    state: 'watching',
    progress: 1,
    anomaly_score: 0.125,
    health_score: 1,
    risk_level: 'low',
    signals: [],
    alarm_since_ms: null,
    updated_at_ms: Date.now(),
  };
  await harness.database.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value) values ($1, 'health', now(), now(), $2::jsonb)`,
    [robotPk, JSON.stringify(verdict)],
  );
  t.match(await health(), { anomaly_score: 0.125, analysed_by: 'edge', signals: [] });
  const outcome = {
    robot: { robotPk, tenantId: 'acme', robotId },
    stored: [{ kind: 'state', key: 'health', valueJson: JSON.stringify(verdict), atMs: Date.now(), seq: 1, seqTo: 1 }],
  } as unknown as LaneOutcome;
  for (const { keeper } of [one, two]) keeper.stored([outcome]);
  const before = await harness.database.query(`select ingested_at from robot_shadow where key = 'cloud_health'`);
  await send(260, 20);
  await Promise.all([one.keeper.flush(), two.keeper.flush()]);
  t.same(await harness.database.query(`select ingested_at from robot_shadow where key = 'cloud_health'`), before);
});

t.test('a robot that was trained elsewhere is judged by what that taught', async (t) => {
  const harness = await startHarness();
  t.teardown(() => harness.close());
  const token = await harness.token('acme', ['robot:read', 'robot:write', 'robot:admin', 'fleet:write']);
  t.equal((await harness.call('POST', '/v1/robots', { token, body: describeRobot('RB-78') })).status, 201);
  const trainedOn = (stream: string): RobotModel => {
    const set = new TrainingSet(DEFAULT_ANALYSER);
    for (let n = 0; n < 200; n += 1) set.add(armSample(stream, n), false);
    return new Map([...set.streams].map(([key, windows]) => [key, trainStream(windows).model]));
  };
  const store = new SqlHealthStore(harness.database);
  await store.putModel('acme', 'RB-78', trainedOn('mcu/joint_state'), Date.now());
  await store.putModel('acme', 'RB-78', trainedOn('mcu/imu'), Date.now());
  await t.rejects(store.putModel('other', 'RB-78', new Map(), Date.now()), { code: 'not_found' });
  const [robot] = await harness.database.query<{ robot_pk: number }>('select robot_pk from robot');
  const stored = decodeModel((await store.load(robot?.robot_pk ?? 0)).model ?? new Uint8Array());
  t.same([...stored.keys()].map(streamOf).sort(), ['mcu/imu', 'mcu/joint_state'], 'one beside the other');
  // The control plane's own windows are ten times as long; the model brings those that it knows.
  const analyser = new RobotAnalyser(CLOUD_ANALYSER, stored);
  for (let n = 0; n < 20; n += 1) analyser.observe(armSample('mcu/joint_state', n));
  t.match(analyser.verdict(), { state: 'watching', anomalyScore: Number });
});

function armSample(stream: string, n: number): Sample {
  const layout: StreamLayout = {
    stream,
    kind: 'joint_state',
    names: ['hip'],
    fields: [{ name: 'velocity', width: 1 }],
    tags: {},
    declaredRateHz: 1,
  };
  const ns = BigInt(Date.UTC(2026, 0, 11) + n * 1000) * 1_000_000n;
  const values = Float64Array.of(Math.sin(n * 0.7));
  return { layout, stampNs: ns, receivedNs: ns, receivedMonoNs: ns, flags: 0, values };
}
