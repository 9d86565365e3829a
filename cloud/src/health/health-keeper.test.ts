import { createLogger } from '@outrider/shared/log';
import { decodeBlock, encodeBlock } from '@outrider/shared/protocol/block';
import { runStages } from '@outrider/shared/service';
import type { StreamLayout } from '@outrider/shared/telemetry';
import type { Clock, EpochMs, MonotonicMs } from '@outrider/shared/time';
import { Registry } from 'prom-client';
import t, { type Test } from 'tap';
import type { LaneOutcome } from '../telemetry/ingest-ports.ts';
import { until } from '../testing/engines.ts';
import { CLOUD_ANALYSER, HealthKeeper } from './health-keeper.ts';
import type { CloudVerdict, HealthStore, KnownHealth } from './ports.ts';

const LAYOUT: StreamLayout = {
  stream: '/joint_states',
  kind: 'joint_state',
  names: ['hip'],
  fields: [{ name: 'position', width: 1 }],
  tags: {},
  declaredRateHz: 10,
};

/** A store of which only what is reported matters. */
class Reports implements HealthStore {
  readonly verdicts: CloudVerdict[] = [];

  edgeJudgedMs: number | undefined;
  loads = 0;

  async load(): Promise<KnownHealth> {
    this.loads += 1;
    return { model: undefined, edgeJudgedMs: this.edgeJudgedMs };
  }
  async saveModel(): Promise<void> {}
  async report(verdicts: readonly CloudVerdict[]): Promise<void> {
    this.verdicts.push(...verdicts);
  }
}

const robotOf = (robotPk: number): LaneOutcome['robot'] => ({ robotPk, tenantId: 'acme', robotId: `RB-${robotPk}` });

function telemetry(robotPk: number, atMs: number): LaneOutcome {
  const ns = BigInt(Math.round(atMs)) * 1_000_000n;
  const sample = { stampNs: ns, receivedNs: ns, receivedMonoNs: ns, flags: 0, values: Float64Array.of(0.5) };
  const block = decodeBlock(encodeBlock([{ layout: LAYOUT, ...sample }]));
  return { robot: robotOf(robotPk), stored: [{ kind: 'telemetry', block }] } as unknown as LaneOutcome;
}

const saysOfItself = (robotPk: number): LaneOutcome =>
  ({ robot: robotOf(robotPk), stored: [{ kind: 'state', key: 'health', valueJson: '{}' }] }) as unknown as LaneOutcome;

/** A keeper that runs on a clock of ours. */
class Rig {
  nowMs = 1_000_000;
  readonly store = new Reports();
  readonly #metrics = new Registry();
  readonly keeper: HealthKeeper;

  constructor(t: Test) {
    const log = createLogger('test', 'silent');
    const clock = {
      epochMs: () => this.nowMs as EpochMs,
      monotonicMs: () => this.nowMs as MonotonicMs,
      awakeOrAsleepMs: () => this.nowMs as MonotonicMs,
    } as Clock;
    this.keeper = new HealthKeeper({
      store: this.store,
      settings: CLOUD_ANALYSER,
      metrics: this.#metrics,
      clock,
      log,
    });
    const ends = new AbortController();
    const ran = runStages([this.keeper], ends.signal, log);
    t.teardown(async () => {
      ends.abort();
      await ran;
    });
  }

  async analysed(): Promise<number> {
    return (await this.#metrics.getSingleMetric('outrider_health_robots')?.get())?.values[0]?.value ?? -1;
  }

  /** Robots of which a verdict was reported. */
  reported(): number[] {
    return [...new Set(this.store.verdicts.map(({ robot }) => robot.robotPk))];
  }
}

t.test('a robot is analysed here only while its own agent says nothing of its health', async (t) => {
  const rig = new Rig(t);
  const { keeper, store } = rig;
  const [ours, simulated] = [1, 2];

  // An agent of ours says how it is before and beside its telemetry; a simulated or foreign robot only sends samples.
  keeper.stored([saysOfItself(ours), telemetry(ours, rig.nowMs), telemetry(simulated, rig.nowMs)]);
  await until(async () => (await rig.analysed()) === 1, 'the robot that says nothing of itself');
  await keeper.flush();
  t.same(rig.reported(), [simulated]);

  // Its agent begins to judge it: from then on that counts.
  keeper.stored([saysOfItself(simulated)]);
  await keeper.flush();
  t.equal(await rig.analysed(), 0);
  const before = store.verdicts.length;
  keeper.stored([telemetry(simulated, rig.nowMs)]);
  await keeper.flush();
  t.same([await rig.analysed(), store.verdicts.length], [0, before]);

  // The agent's analysis is silent for more than a minute, and samples still come.
  rig.nowMs += 61_000;
  keeper.stored([telemetry(ours, rig.nowMs), telemetry(simulated, rig.nowMs)]);
  await until(async () => (await rig.analysed()) === 2, 'both are analysed here again');
});

t.test('what its agent said to another replica, or before a restart, counts too', async (t) => {
  const rig = new Rig(t);
  const [judged, other] = [1, 2];
  rig.store.edgeJudgedMs = rig.nowMs - 20_000;
  rig.keeper.stored([telemetry(judged, rig.nowMs)]);
  await until(() => rig.store.loads === 1, 'the store to be asked');
  rig.store.edgeJudgedMs = undefined;
  rig.keeper.stored([telemetry(judged, rig.nowMs), telemetry(other, rig.nowMs)]);
  await until(async () => (await rig.analysed()) === 1, 'the robot that nobody judges');
  t.equal(rig.store.loads, 2, 'the first is known by now');
  await rig.keeper.flush();
  t.same(rig.reported(), [other]);

  rig.nowMs += 41_000;
  rig.keeper.stored([telemetry(judged, rig.nowMs)]);
  await until(async () => (await rig.analysed()) === 2, 'the other one too, a minute after its agent spoke');
});
