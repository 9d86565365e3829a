import { createLogger } from '@outrider/shared/log';
import type { Sample } from '@outrider/shared/telemetry';
import { type EpochMs, type MonotonicMs, systemClock } from '@outrider/shared/time';
import { Ajv } from 'ajv';
import t from 'tap';
import { liveChannel } from '../api/system/asyncapi-live.ts';
import type { Principal } from '../identity/principal.ts';
import { LiveHub } from '../telemetry/live-hub.ts';
import type { LiveUpdate } from '../telemetry/ports.ts';
import { readWish } from './live-filter.ts';
import type { LiveFrame } from './live-frame.ts';
import { LevelMeter, ServiceLevels } from './service-levels.ts';
import type { LiveSink, StreamEnd } from './stream-client.ts';
import { StreamHub } from './stream-hub.ts';

const log = createLogger('test', 'silent');
const principal: Principal = { kind: 'client', sub: 'c', tenantId: 't', scopes: ['telemetry:read'] };
const NOW = Date.UTC(2026, 0, 11) as EpochMs;
const { schemas } = liveChannel();
const ajv = new Ajv({ strict: true, formats: { 'date-time': true } });
const validators = new Map(
  Object.entries(schemas).map(([name, schema]) => [name.replace('live_', ''), ajv.compile(schema as object)]),
);

interface Message {
  readonly id?: string;
  readonly type: string;
  readonly data: Record<string, unknown>;
}

class TestSink implements LiveSink {
  readonly frames: LiveFrame[] = [];
  waiting = 0;
  ended: StreamEnd | undefined;

  send(frame: LiveFrame): void {
    this.frames.push(frame);
  }
  heartbeat(): void {}
  waitingBytes(): number {
    return this.waiting;
  }
  isResponsive(): boolean {
    return true;
  }
  end(reason: StreamEnd): void {
    this.ended = reason;
  }

  get messages(): Message[] {
    return this.frames.map((frame) => JSON.parse(frame.json) as Message);
  }
  of(type: string): Message[] {
    return this.messages.filter((message) => message.type === type);
  }
  get lastId(): string {
    return this.messages.findLast((message) => message.id !== undefined)?.id ?? '';
  }
}

function rig() {
  const feed = new LiveHub(log);
  let nowMs = 0;
  const clock = { ...systemClock, epochMs: () => NOW, monotonicMs: () => nowMs as MonotonicMs };
  const counts = { skipped: 0, dropped: [] as StreamEnd[], sent: 0 };
  const hub = new StreamHub({
    feed,
    recheck: () => Promise.resolve(principal),
    clock,
    log,
    counters: {
      onDropped: (reason) => counts.dropped.push(reason),
      onSkipped: () => {
        counts.skipped += 1;
      },
      onSent: () => {
        counts.sent += 1;
      },
    },
  });
  const open = (wish: Parameters<typeof readWish>[0] = {}, lastPlace?: string) => {
    const sink = new TestSink();
    const stream = hub.open({ principal, secret: undefined }, { ...readWish(wish), tenantId: 't' }, sink, lastPlace);
    return { sink, stream };
  };
  return {
    feed,
    hub,
    counts,
    open,
    pass(ms: number) {
      nowMs += ms;
    },
  };
}

const telemetry = (robotId: string, value: number, kind: Sample['layout']['kind'] = 'imu'): LiveUpdate => ({
  type: 'telemetry',
  tenantId: 't',
  robotId,
  ingestedAt: NOW,
  stream: `/${kind}`,
  kind,
  recordedAt: (NOW + value) as EpochMs,
  sampleCount: 1,
  sample: {
    layout: { stream: `/${kind}`, kind, names: [], fields: [{ name: 'x', width: 1 }], tags: {}, declaredRateHz: 0 },
    stampNs: 1n,
    receivedNs: 1n,
    receivedMonoNs: 1n,
    flags: 0,
    values: Float64Array.of(value),
  },
});
const event = (robotId: string, n: number): LiveUpdate => ({
  type: 'event',
  tenantId: 't',
  robotId,
  ingestedAt: NOW,
  event: {
    eventId: `evt_${n}`,
    type: 'edge.started.v1',
    occurredAt: NOW,
    ingestedAt: NOW,
    traceId: 'x',
    payload: { n },
  },
});
const eventIds = (sink: TestSink): unknown[] => sink.of('event').map(({ data }) => data['event_id']);
const values = (sink: TestSink): unknown[] =>
  sink.of('telemetry').map(({ data }) => (data['values'] as Record<string, number[]>)['x']?.[0]);
const round = (ms = 150): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

t.test('a client gets what it asked for, at its rate, and can ask for something else', async (t) => {
  const { feed, open, hub } = rig();
  const all = open();
  const also = open();
  const some = open({ robotIds: ['a'], include: ['event'] });
  const slow = open({ maxRateHz: 2, kinds: ['imu'] });
  for (let n = 0; n < 20; n += 1) feed.publish([telemetry('a', n), telemetry('b', n, 'power')]);
  feed.publish([event('a', 1), event('b', 2)]);
  t.same(eventIds(all.sink), ['evt_1', 'evt_2'], 'events come at once');
  t.same(eventIds(some.sink), ['evt_1']);
  await round();
  t.same(values(all.sink), [19, 19], 'the newest sample of each stream');
  t.match(all.sink.of('telemetry')[0], { data: { sample_count: 20 } });
  t.equal(all.sink.frames.at(-1), also.sink.frames.at(-1), 'framed once for both');
  t.same(values(slow.sink), []);
  t.same(values(some.sink), []);
  await round(500);
  t.same(values(slow.sink), [19], 'two a second');
  some.stream.change({ tenantId: 't', robotIds: ['b'] });
  feed.publish([event('a', 3), event('b', 4), telemetry('b', 21, 'power')]);
  await round();
  t.same(eventIds(some.sink), ['evt_1', 'evt_4']);
  t.same(values(some.sink), [21]);
  for (const { sink } of [all, some, slow])
    for (const message of sink.messages)
      t.ok(
        validators.get(message.type)?.(message),
        `${message.type} ${JSON.stringify(validators.get(message.type)?.errors)}`,
      );
  for (const { stream } of [all, also, some, slow]) stream.close();
  t.equal(hub.clientCount, 0);
});

t.test('a client goes on where it was', async (t) => {
  const { feed, open } = rig();
  const first = open();
  feed.publish([telemetry('a', 1), event('a', 1)]);
  const held = first.sink.lastId;
  await round();
  const after = first.sink.lastId;
  first.stream.close();
  feed.publish([event('a', 2), telemetry('b', 7), telemetry('b', 8), event('a', 3)]);
  const second = open({}, after);
  t.equal(second.sink.messages[0]?.type, 'welcome');
  t.same(eventIds(second.sink), ['evt_2', 'evt_3']);
  t.same(values(second.sink), [8], 'of telemetry the newest');
  t.same(second.sink.of('gap'), []);
  t.same(values(open({}, held).sink), [1, 8], 'what was held back when the break came is not lost');
  t.same(eventIds(open({ robotIds: ['b'] }, after).sink), [], 'by the filter of now');
  feed.publish([event('a', 4)]);
  t.same(eventIds(second.sink), ['evt_2', 'evt_3', 'evt_4'], 'and then live, each once');
  second.stream.close();
  for (let n = 0; n < 8_000; n += 1) feed.publish([event('a', 100 + n)]);
  const late = open({}, after);
  t.match(late.sink.of('gap'), [{ data: { reason: 'expired' } }]);
  t.ok(eventIds(late.sink).length >= 5_000, 'what is still known comes');
  for (const place of ['00000000-5', 'nonsense\nid: 7', `${feed.runId}-99999999`]) {
    const lost = open({}, place);
    t.match(lost.sink.of('gap'), [{ data: { reason: 'unknown_position' } }], place);
    t.notOk(lost.sink.frames.some((frame) => frame.event.toString().includes('nonsense')));
  }
});

t.test('on another replica a client is told that there is a gap, and goes on from there', async (t) => {
  const [here, there] = [rig(), rig()];
  const first = here.open();
  here.feed.publish([telemetry('a', 1), event('a', 1)]);
  await round();
  const place = first.sink.lastId;
  first.stream.close();
  // The other replica has published as much, so that only whose place it is tells them apart.
  for (let n = 1; n <= 3; n += 1) there.feed.publish([event('a', n)]);
  const { sink, stream } = there.open({}, place);
  t.same(
    sink.messages.map(({ type }) => type),
    ['welcome', 'gap'],
  );
  t.match(sink.of('gap'), [{ data: { reason: 'unknown_position' } }]);
  there.feed.publish([event('a', 4)]);
  t.same(eventIds(sink), ['evt_4'], 'then live');
  const next = sink.lastId;
  stream.close();
  there.feed.publish([event('a', 5)]);
  const again = there.open({}, next);
  t.same(again.sink.of('gap'), [], 'its places are good there');
  t.same(eventIds(again.sink), ['evt_5']);
});

t.test('a client that is behind is spared telemetry, told so, and dropped when it stays behind', async (t) => {
  const { feed, open, counts, pass } = rig();
  const { sink } = open();
  const frozen = open();
  for (const each of [sink, frozen.sink]) each.waiting = 300 * 1024;
  feed.publish([telemetry('a', 1)]);
  await round();
  feed.publish([event('a', 1)]);
  t.same(values(sink), [], 'telemetry is left out');
  t.same(eventIds(sink), ['evt_1'], 'events are not');
  t.equal(counts.skipped, 2);
  sink.waiting = 0;
  pass(6_000);
  feed.publish([telemetry('a', 2)]);
  await round();
  t.match(sink.messages.slice(-2), [{ type: 'gap', data: { reason: 'slow', skipped: 1 } }, { type: 'telemetry' }]);
  t.equal(frozen.sink.ended, 'slow', 'after five seconds');
  sink.waiting = 2 * 1024 * 1024;
  feed.publish([event('a', 2)]);
  t.equal(sink.ended, 'slow', 'at once when too much waits');
  t.same(counts.dropped, ['slow', 'slow']);
});

t.test('what makes no sense is refused with the field that makes none', async (t) => {
  for (const [wish, field] of [
    [{ kinds: ['imu', 'x'] }, 'kind'],
    [{ include: ['x'] }, 'include'],
    [{ maxRateHz: 11 }, 'max_rate_hz'],
    [{ maxRateHz: Number.NaN }, 'max_rate_hz'],
    [{ robotIds: Array.from({ length: 101 }, (_, n) => `r${n}`) }, 'robot_id'],
  ] as const)
    t.throws(() => readWish(wish), { code: 'invalid', problems: [{ field }] });
});

t.test('levels look back an hour and know their targets', async (t) => {
  const meter = new LevelMeter();
  t.same(meter.level(NOW), { count: 0, failed: 0, p95S: null, p99S: null });
  for (let n = 1; n <= 100; n += 1) meter.observe(n / 1000, n > 98, NOW);
  const level = meter.level(NOW);
  t.match(level, { count: 100, failed: 2 });
  t.ok((level.p95S ?? 0) >= 0.095 && (level.p95S ?? 0) < 0.095 * 1.13, `${level.p95S}`);
  t.equal(meter.level(NOW + 2 * 3_600_000).count, 0);
  const levels = new ServiceLevels();
  const none = { count: 0, failed: 0, p95S: null, p99S: null };
  t.ok(
    levels.targets(NOW, none).every(({ isMet }) => isMet === null),
    'without a measurement nothing is claimed',
  );
  levels.observe('read', 0.5, false, NOW);
  for (let n = 0; n < 1000; n += 1) levels.observe('failsafe', 0.01, n === 0, NOW);
  t.match(levels.targets(NOW, { ...none, count: 3, p95S: 0.3 }), [
    { name: 'read_latency_p95', isMet: false },
    { name: 'command_dispatch_p95', isMet: null },
    { name: 'failsafe_availability', measured: 0.999, isMet: false },
    { name: 'decision_window_p95', measured: 300, isMet: true },
  ]);
});
