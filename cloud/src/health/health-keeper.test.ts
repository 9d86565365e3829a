import { createLogger } from '@outrider/shared/log';
import { decodeBlock, encodeBlock } from '@outrider/shared/protocol/block';
import { runStages } from '@outrider/shared/service';
import type { StreamLayout } from '@outrider/shared/telemetry';
import type { Clock, EpochMs, MonotonicMs } from '@outrider/shared/time';
import { Registry } from 'prom-client';
import t from 'tap';
import type { LaneOutcome } from '../telemetry/ingest-ports.ts';
import { until } from '../testing/engines.ts';
import { CLOUD_ANALYSER, HealthKeeper } from './health-keeper.ts';
import type { CloudVerdict, HealthStore } from './ports.ts';

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

  async loadModel(): Promise<undefined> {}
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

t.test('a robot is analysed here only while its own agent says nothing of its health', async (t) => {
  let nowMs = 1_000_000;
  const clock = {
    epochMs: () => nowMs as EpochMs,
    monotonicMs: () => nowMs as MonotonicMs,
    awakeOrAsleepMs: () => nowMs as MonotonicMs,
  } as Clock;
  const log = createLogger('test', 'silent');
  const metrics = new Registry();
  const store = new Reports();
  const keeper = new HealthKeeper({ store, settings: CLOUD_ANALYSER, metrics, clock, log });
  const ends = new AbortController();
  const ran = runStages([keeper], ends.signal, log);
  t.teardown(async () => {
    ends.abort();
    await ran;
  });
  const analysed = async (): Promise<number> =>
    (await metrics.getSingleMetric('outrider_health_robots')?.get())?.values[0]?.value ?? -1;
  const [ours, simulated] = [1, 2];

  // An agent of ours says how it is before and beside its telemetry; a simulated or foreign robot only sends samples.
  keeper.stored([saysOfItself(ours), telemetry(ours, nowMs), telemetry(simulated, nowMs)]);
  await until(async () => (await analysed()) === 1, 'the robot that says nothing of itself');
  await keeper.flush();
  t.same([...new Set(store.verdicts.map(({ robot }) => robot.robotPk))], [simulated]);

  // Its agent begins to judge it: from then on that counts.
  keeper.stored([saysOfItself(simulated)]);
  await keeper.flush();
  t.equal(await analysed(), 0);
  const before = store.verdicts.length;
  keeper.stored([telemetry(simulated, nowMs)]);
  await keeper.flush();
  t.same([await analysed(), store.verdicts.length], [0, before]);

  // The agent's analysis is silent for more than a minute, and samples still come.
  nowMs += 61_000;
  keeper.stored([telemetry(ours, nowMs), telemetry(simulated, nowMs)]);
  await until(async () => (await analysed()) === 2, 'both are analysed here again');
});
