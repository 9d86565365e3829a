import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EVENT_SCHEMAS } from '@outrider/shared/event-schemas';
import { DEFAULT_ANALYSER } from '@outrider/shared/health/robot-analyser';
import { createLogger } from '@outrider/shared/log';
import type { Sample, StreamLayout } from '@outrider/shared/telemetry';
import type { Clock, EpochMs, MonotonicMs } from '@outrider/shared/time';
import t from 'tap';
import type { OutboxEvent } from '../outbox/records.ts';
import { HealthWatch } from './health-watch.ts';

const LAYOUT: StreamLayout = {
  stream: 'mcu/joint_state',
  kind: 'joint_state',
  names: ['hip', 'knee'],
  fields: [
    { name: 'velocity', width: 2 },
    { name: 'effort', width: 2 },
  ],
  tags: {},
  declaredRateHz: 10,
};
const START_MS = Date.UTC(2026, 0, 11);

/** A robot without a link: everything that its health watch says is kept here. */
class Rig {
  nowMs = START_MS;
  readonly states: Record<string, unknown>[] = [];
  readonly events: OutboxEvent[] = [];
  readonly watch: HealthWatch;
  #tick = 0;
  #seed = 7;

  constructor(stateDir: string) {
    const clock: Clock = {
      epochMs: () => this.nowMs as EpochMs,
      monotonicMs: () => (this.nowMs - START_MS) as MonotonicMs,
      awakeOrAsleepMs: () => (this.nowMs - START_MS) as MonotonicMs,
    } as Clock;
    this.watch = new HealthWatch({
      settings: { ...DEFAULT_ANALYSER, windows: { hopMs: 1000, hops: 5 }, fitWindows: 120, calibrateWindows: 120 },
      stateDir,
      clock,
      log: createLogger('test', 'silent'),
      mayLearn: () => true,
      report: (value) => this.states.push(value as Record<string, unknown>),
      record: async (event) => {
        this.events.push(event);
      },
    });
  }

  /** Ten samples a second, and the watch's own look each second. */
  async work(seconds: number, extraEffort = 0): Promise<void> {
    for (let i = 0; i < seconds * 10; i += 1) {
      this.nowMs += 100;
      this.#tick += 1;
      const speed = Math.sin(this.#tick * 0.163);
      const values = [speed, 0.5 * speed, 2 * speed + extraEffort, speed].map((value) => value + 0.05 * this.#noise());
      const ns = BigInt(this.nowMs) * 1_000_000n;
      const sample: Sample = {
        layout: LAYOUT,
        stampNs: ns,
        receivedNs: ns,
        receivedMonoNs: BigInt(this.nowMs - START_MS) * 1_000_000n,
        flags: 0,
        values: Float64Array.from(values),
      };
      this.watch.add(sample);
      if (this.#tick % 10 === 0) await this.watch.look();
    }
  }

  #noise(): number {
    this.#seed = (Math.imul(this.#seed, 1_664_525) + 1_013_904_223) >>> 0;
    return this.#seed / 2 ** 31 - 1;
  }
}

t.test('a robot without a link learns, keeps what it learnt, and tells of an anomaly with its time', async (t) => {
  const dir = t.testdir();
  const rig = new Rig(dir);
  await rig.watch.load();
  await rig.work(30);
  t.match(rig.states.at(-1), { state: 'learning', anomaly_score: null, risk_level: 'unknown' });
  await rig.work(270);
  t.match(rig.states.at(-1), { state: 'watching', risk_level: 'low' });
  t.same(readdirSync(dir), ['health.model'], 'saved once learnt, and no draft is left');
  t.same(rig.events, []);
  const before = rig.states.length;
  await rig.work(60);
  t.ok(rig.states.length - before < 30, 'an unchanged verdict is not a record a second');

  const faultMs = rig.nowMs;
  await rig.work(30, 4);
  t.equal(rig.events.length, 1, 'one event for one alarm');
  const [event] = rig.events;
  t.equal(event?.type, 'anomaly.detected.v1');
  t.ok((event?.occurredAtMs ?? 0) >= faultMs && (event?.occurredAtMs ?? 0) <= faultMs + 10_000, 'its own time');
  const payload = event?.payload as { signals: { signal: string; since: string }[] };
  t.match(payload, { anomaly_score: Number, risk_level: /medium|high/ });
  t.ok(
    payload.signals.some(({ signal }) => signal.startsWith('mcu/joint_state:hip.')),
    JSON.stringify(payload),
  );
  const schema = EVENT_SCHEMAS.get('anomaly.detected.v1') as { properties: { payload: { required: string[] } } };
  t.same(Object.keys(payload).sort(), [...schema.properties.payload.required].sort());
  t.match(rig.states.at(-1), { risk_level: /medium|high/, alarm_since_ms: Number });
  t.ok(rig.watch.verdict().healthScore < 0.9);

  const again = new Rig(dir);
  await again.watch.load();
  await again.work(30);
  t.match(again.states.at(-1), { state: 'watching', risk_level: 'low' }, 'after a restart nothing is learnt anew');
});

t.test('a torn model is put aside and learnt anew', async (t) => {
  const dir = t.testdir();
  const rig = new Rig(dir);
  await rig.watch.load();
  await rig.work(300);
  const path = join(dir, 'health.model');
  const whole = readFileSync(path);
  for (const torn of [whole.subarray(0, whole.length >> 1), Buffer.alloc(0), Buffer.from('not a model')]) {
    writeFileSync(path, torn);
    const next = new Rig(dir);
    await next.watch.load();
    await next.work(10);
    t.match(next.states.at(-1), { state: 'learning' });
    t.same(readFileSync(`${path}.bad`), torn);
  }
});
