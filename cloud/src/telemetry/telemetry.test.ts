import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import type { DecodedBlock } from '@outrider/shared/protocol/block';
import type { Sample } from '@outrider/shared/telemetry';
import { type EpochMs, systemClock } from '@outrider/shared/time';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import t from 'tap';
import { type Database, isDataError, openDatabase } from '../storage/database.ts';
import { SqlIngestStore } from '../storage/ingest-store.ts';
import { Maintenance } from '../storage/maintenance.ts';
import { createPartitions, removeTelemetryBefore } from '../storage/partitions.ts';
import { acksOf } from './acks.ts';
import { Committer } from './committer.ts';
import { IngestMetrics } from './ingest-metrics.ts';
import type { IngestStore, LaneOutcome } from './ingest-ports.ts';
import { LiveHub } from './live-hub.ts';
import { packUpdates, unpackUpdates } from './live-updates.ts';
import type { LiveUpdate } from './ports.ts';
import type { EventLaneRecord, LaneRecord } from './record.ts';
import { blockSpan, rowTimes } from './recorded-time.ts';
import { quaternionOf } from './report-samples.ts';
import { jsonProblem, textProblem } from './storable.ts';
import { advance, type LaneCursor, type Positioned } from './watermark.ts';

const log = createLogger('test', 'silent');
const clock = systemClock;
const NOW = Date.UTC(2026, 0, 1);
const hashOf = (content: number): Uint8Array => Uint8Array.of(content, 1);

t.test('whatever the order, cuts and repeats, each position is stored once and the watermark is exact', async (t) => {
  const delivery = fc.record({
    count: fc.integer({ min: 1, max: 40 }),
    gaps: fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 6 })), { maxLength: 4 }),
    order: fc.array(fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 12 }), { maxLength: 12 }),
    room: fc.constantFrom(2, 5, 4096),
  });
  fc.assert(
    fc.property(delivery, ({ count, gaps, order, room }) => {
      const records: Positioned[] = Array.from({ length: count }, (_, i) => ({
        seq: i + 1,
        seqTo: i + 1,
        hash: hashOf(i),
      }));
      for (const [seq, more] of gaps) records.push({ seq, seqTo: seq + more, hash: new Uint8Array(0) });
      // In any order first, then all again until there is nothing new, as a sender does.
      const batches = [
        ...order.map((list) => list.map((i) => records[i % records.length] as Positioned)),
        ...Array(60).fill(records),
      ];
      let cursor: LaneCursor = { upto: 0, ahead: [] };
      const stored = new Map<number, number>();
      for (const batch of batches) {
        const verdict = advance(cursor, batch, room);
        if (verdict.upto < cursor.upto) throw new Error('the watermark went back');
        for (const record of verdict.fresh) {
          if (record.hash.length > 0) stored.set(record.seq, (stored.get(record.seq) ?? 0) + 1);
        }
        const ahead = [
          ...cursor.ahead,
          ...verdict.ahead.map(({ seq, seqTo, hash }) => ({ from: seq, to: seqTo, hash })),
        ];
        if (verdict.collisions.length > 0) throw new Error('nothing collides here');
        cursor = { upto: verdict.upto, ahead: ahead.filter((range) => range.to > verdict.upto) };
        if (cursor.ahead.length > room) throw new Error('more was remembered than there is room for');
      }
      const last = records.reduce((max, record) => (record.seq <= max + 1 ? Math.max(max, record.seqTo) : max), count);
      if (cursor.upto < last) throw new Error(`stuck at ${cursor.upto} of ${last}`);
      if ([...stored.values()].some((times) => times > 1)) throw new Error('stored twice');
    }),
    { numRuns: 500 },
  );
  t.pass('500 deliveries');
});

t.test('a watermark never passes a position that nobody sent', async (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 80 }),
      fc.integer({ min: 1, max: 9 }),
      (seqs, cut) => {
        let cursor: LaneCursor = { upto: 0, ahead: [] };
        const sent = new Set<number>();
        for (let at = 0; at < seqs.length; at += cut) {
          const batch = seqs.slice(at, at + cut).map((seq) => ({ seq, seqTo: seq, hash: hashOf(seq) }));
          for (const { seq } of batch) sent.add(seq);
          const verdict = advance(cursor, batch);
          const ahead = [
            ...cursor.ahead,
            ...verdict.ahead.map(({ seq, seqTo, hash }) => ({ from: seq, to: seqTo, hash })),
          ];
          cursor = { upto: verdict.upto, ahead: ahead.filter((range) => range.to > verdict.upto) };
          let expected = 0;
          while (sent.has(expected + 1)) expected += 1;
          if (cursor.upto !== expected) throw new Error(`${cursor.upto} instead of ${expected}`);
        }
      },
    ),
  );
  t.pass();
});

t.test('times that cannot be are not believed, and old recordings are', async (t) => {
  const ns = (ms: number): bigint => BigInt(ms) * 1_000_000n;
  const old = Date.UTC(2019, 0, 1);
  const blockOf = (times: readonly (readonly [bigint, bigint])[]): DecodedBlock => {
    const [stampNs, receivedNs] = [0, 1].map((i) => BigInt64Array.from(times, (pair) => pair[i] as bigint)) as [
      BigInt64Array,
      BigInt64Array,
    ];
    const layout = { stream: 's', kind: 'power', names: [], fields: [], tags: {}, declaredRateHz: 0 } as const;
    const rest = {
      receivedMonoNs: stampNs,
      flags: new Uint32Array(times.length),
      cells: new Float64Array(),
      texts: [],
    };
    return { layout, count: times.length, stampNs, receivedNs, ...rest };
  };
  const recordedMs = (stampNs: bigint, receivedNs: bigint): number =>
    rowTimes(blockOf([[stampNs, receivedNs]]), NOW)(0);
  t.equal(recordedMs(ns(old), ns(NOW)), old);
  t.equal(recordedMs(0n, ns(old)), old);
  t.equal(recordedMs(ns(5), ns(old)), old, 'a stamp of a clock that starts at zero');
  t.equal(recordedMs(ns(NOW + 600_000), ns(NOW + 1)), NOW + 1, 'a stamp of the future');
  t.equal(recordedMs(ns(NOW + 200_000), 0n), NOW + 200_000, 'a clock a little ahead');
  t.equal(recordedMs(-1n, 2n ** 63n - 1n), NOW);
  const sane = (atNs: bigint): number | undefined =>
    atNs >= ns(Date.UTC(2000, 0, 1)) && atNs / 1_000_000n <= NOW + 300_000 ? Number(atNs / 1_000_000n) : undefined;
  const anyNs = fc.oneof(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), fc.bigInt(0n, ns(NOW + 600_000)));
  fc.assert(
    fc.property(fc.array(fc.tuple(anyNs, anyNs), { minLength: 1 }), (pairs) => {
      const each = pairs.map(([stampNs, receivedNs]) => sane(stampNs) ?? sane(receivedNs) ?? NOW);
      const { firstMs, lastMs, lastRow } = blockSpan(blockOf(pairs), NOW);
      return firstMs === Math.min(...each) && lastMs === Math.max(...each) && lastRow === each.lastIndexOf(lastMs);
    }),
  );
  t.same(
    quaternionOf(0, 0, Math.PI).map((x) => Math.round(x * 1e9) / 1e9),
    [0, 0, 1, 0],
  );
});

t.test('what PostgreSQL would refuse is found before', async (t) => {
  for (const bad of ['{"a":"\\u0000"}', '{"\\u0000":1}', '["\\udc00"]', '{"a":[1e999]}', 'nope', ''])
    t.type(jsonProblem(bad), 'string', bad);
  for (const good of ['{}', 'null', '"\\ud83d\\ude00"', '{"a":[1e308,-0.5]}'])
    t.equal(jsonProblem(good), undefined, good);
  t.match(textProblem('a\0', 10), /NUL/);
  t.match(textProblem('aaa', 2), /more than 2/);
  t.equal(textProblem('x', 1), undefined);
});

const eventOf = (seq: number, payloadJson: string): EventLaneRecord => ({
  kind: 'event',
  seq,
  seqTo: seq,
  hash: hashOf(seq),
  bootId: '',
  eventId: `evt_${seq}`,
  type: 'x.v1',
  occurredAtMs: NOW,
  traceId: '',
  payloadJson,
});

async function withRobot(database: Database): Promise<{ robotPk: number; tenantId: string; robotId: string }> {
  await database.query(`insert into tenant (tenant_id, name) values ('t', 't') on conflict do nothing`);
  const [row] = await database.query<{ robot_pk: number }>(
    `insert into robot (tenant_id, robot_id, robot_name, robot_type) values ('t', 'r', 'r', 'x') returning robot_pk`,
  );
  return { robotPk: row?.robot_pk ?? 0, tenantId: 't', robotId: 'r' };
}

t.test('on a database', async (t) => {
  const database = await openDatabase({ dataDir: 'memory://', log, clock });
  t.teardown(() => database.close());
  const robot = await withRobot(database);
  const store = new SqlIngestStore(database);
  const metrics = new IngestMetrics(new Registry());

  await t.test('a record that the database refuses is isolated from its batch, wherever it stands', async (t) => {
    const committer = new Committer({ store, metrics, clock, log, isDataError });
    const records = Array.from({ length: 33 }, (_, i) =>
      eventOf(i + 1, i === 20 || i === 32 ? '{"a":"\\u0000"}' : '{}'),
    );
    const outcomes = await committer.commit([{ robot, epoch: 'e', lane: 1, records }], new AbortController().signal);
    t.equal(Math.max(...outcomes.map((outcome) => outcome.upto)), 33, 'all of it is acknowledged');
    const [events] = await database.query<{ n: number }>('select count(*)::int4 as n from robot_event');
    t.equal(events?.n, 31);
    t.same(await database.query('select seq from quarantine order by seq'), [{ seq: 21 }, { seq: 33 }]);
  });

  await t.test('a store that is away is tried again until it is back, or until the end', async (t) => {
    let failures = 2;
    const flaky: IngestStore = {
      commit: async (work, nowMs): Promise<LaneOutcome[]> => {
        failures -= 1;
        if (failures >= 0) throw new Error('connection refused');
        return await store.commit(work, nowMs);
      },
      quarantine: (stray, nowMs) => store.quarantine(stray, nowMs),
      watermarks: (robotPk, epoch) => store.watermarks(robotPk, epoch),
      acceptForgotten: (...all) => store.acceptForgotten(...all),
    };
    const committer = new Committer({ store: flaky, metrics, clock, log, isDataError });
    const work = [{ robot, epoch: 'f', lane: 1 as outrider.v1.Lane, records: [eventOf(1, '{}')] }];
    t.match(await committer.commit(work, new AbortController().signal), [{ upto: 1 }]);
    failures = Number.POSITIVE_INFINITY;
    t.same(await committer.commit(work, AbortSignal.timeout(20)), [], 'nothing is acknowledged at the end');
  });

  await t.test('poison does not fill the disk', async (t) => {
    await database.query(
      `insert into quarantine (robot_pk, topic, reason, body, body_bytes, received_at)
       select $1::int8, '', 'x', ''::bytea, 0, now() from generate_series(1, 1000)`,
      [robot.robotPk],
    );
    await store.quarantine({ robotPk: robot.robotPk, topic: 't', reason: 'x', body: new Uint8Array(9) }, NOW);
    t.same(await database.query(`select count(*)::int4 as n from quarantine where topic = 't'`), [{ n: 0 }]);
  });

  await t.test('weekly partitions are made around now, and go with their age of arrival', async (t) => {
    const insert = (seq: number, recordedMs_: number, ingestedMs: number) =>
      database.query(
        `insert into telemetry_block values ($1, 'p', $2, to_timestamp($3::float8 / 1000), to_timestamp($3::float8 / 1000),
           to_timestamp($4::float8 / 1000), 's', 'imu', '', 1, ''::bytea, ''::bytea)`,
        [robot.robotPk, seq, recordedMs_, ingestedMs],
      );
    const tables = async () =>
      (
        await database.query<{ name: string }>(
          `select tableoid::regclass::text as name from telemetry_block order by seq`,
        )
      ).map((row) => row.name);
    await createPartitions(database, NOW, log);
    await createPartitions(database, NOW, log);
    const day = 86_400_000;
    await insert(1, NOW, NOW);
    await insert(2, NOW - 6 * day, NOW);
    await insert(3, Date.UTC(2019, 0, 1), NOW + 20 * day);
    await insert(4, Date.UTC(2019, 0, 1), NOW);
    await insert(5, NOW - 6 * day, NOW + 20 * day);
    t.same(await tables(), [
      'telemetry_block_20251229',
      'telemetry_block_20251222',
      'telemetry_block_default',
      'telemetry_block_default',
      'telemetry_block_20251222',
    ]);
    t.same(await removeTelemetryBefore(database, NOW + 15 * day), { partitions: 2, rows: 2 });
    t.same(
      await database.query('select seq from telemetry_block order by seq'),
      [{ seq: 3 }, { seq: 5 }],
      'a recording of 2019 that came lately stays',
    );
    await insert(6, NOW + 100 * day, NOW);
    await createPartitions(database, NOW + 100 * day, log);
    t.equal(
      (await tables()).at(-1),
      'telemetry_block_default',
      'a week that has rows in the default partition stays there',
    );
    await new Maintenance({ database, clock, log, retentionDays: 1 }).maintain();
    t.same(await database.query("select 1 from telemetry_block where ingested_at < now() - interval '1 day'"), []);
  });
});

t.test('a subscriber gets the newest sample of each stream, once a round, whatever the rate', async (t) => {
  const hub = new LiveHub(log);
  const updates: LiveUpdate[] = [];
  const sample: Sample = {
    layout: { stream: '/a', kind: 'imu', names: [], fields: [{ name: 'x', width: 1 }], tags: {}, declaredRateHz: 0 },
    stampNs: 1n,
    receivedNs: 2n,
    receivedMonoNs: 3n,
    flags: 4,
    values: Float64Array.of(Number.NaN),
  };
  const update = (recordedAt: number, robotId = 'r'): LiveUpdate => ({
    type: 'telemetry',
    tenantId: 't',
    robotId,
    ingestedAt: NOW as EpochMs,
    stream: '/a',
    kind: 'imu',
    recordedAt: recordedAt as EpochMs,
    sampleCount: 2,
    sample,
  });
  const presence: LiveUpdate = {
    type: 'presence',
    tenantId: 't',
    robotId: 'r',
    ingestedAt: NOW as EpochMs,
    presence: 'ONLINE',
  };
  const first = new Promise<void>((resolve) => {
    const stop = hub.subscribe({ tenantId: 't', robotIds: ['r'], kinds: ['imu'] }, (each) => {
      updates.push(each);
      if (each.type !== 'telemetry') return;
      stop();
      resolve();
    });
  });
  hub.subscribe({ tenantId: 't' }, () => {
    throw new Error('a subscriber that fails harms nobody');
  });
  for (let i = 0; i < 500; i += 1) hub.publish([update(i), update(i, 'other')]);
  hub.publish([update(3)]);
  hub.publish(unpackUpdates(packUpdates([presence])));
  const keepAlive = setInterval(() => undefined, 1000);
  await first;
  clearInterval(keepAlive);
  t.match(updates, [presence, { recordedAt: 499, sampleCount: 1002, robotId: 'r' }]);
  hub.publish([update(600)]);
  t.equal(updates.length, 2);
  t.same(unpackUpdates(packUpdates([update(1), presence])), [update(1), presence]);
});

t.test('batches are named when all their records are held, and not otherwise', async (t) => {
  const robot = { robotPk: 1, tenantId: 't', robotId: 'r' };
  const records = [1, 2, 3, 4].map((seq) => ({ seq }) as unknown as LaneRecord);
  const place = { robot, epoch: '0123456789abcdef', lane: outrider.v1.Lane.LANE_TELEMETRY };
  const work = [{ ...place, records, batchIds: [2 ** 48 - 2, 7] }];
  const outcome = { ...place, upto: 4, collision: false, stored: records, duplicates: 0, collisions: 0, deferred: 0 };
  const tell = (...outcomes: LaneOutcome[]): { upto: number; batchIds: number[] }[] =>
    acksOf(work, outcomes).map(({ payload }) => outrider.v1.Ack.decode(payload));
  const named = { upto: 4, batchIds: [2 ** 48 - 2, 7] };
  t.match(tell(outcome), [named]);
  const [first, second] = [records.slice(0, 2), records.slice(2)];
  const halves = [
    { ...outcome, upto: 2, stored: first },
    { ...outcome, stored: second.slice(1), duplicates: 1 },
  ];
  t.match(tell(...halves), [named], 'in two halves');
  for (const [why, outcomes] of [
    ['a half is missing', [{ ...outcome, upto: 2, stored: first }]],
    ['one is deferred', [{ ...outcome, upto: 3, stored: records.slice(0, 3), deferred: 1 }]],
    ['one collided', [{ ...outcome, upto: 1, collision: true, stored: first, duplicates: 1, collisions: 1 }]],
  ] as const)
    t.same(tell(...outcomes)[0]?.batchIds, [], why);
  t.same(tell(), [], 'nothing is said of what was not committed');
});
