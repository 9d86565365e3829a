import type { DeviceIdentity } from '@outrider/shared/ids';
import { outrider } from '@outrider/shared/messages';
import { columnOf, type DecodedBlock, decodeBlock } from '@outrider/shared/protocol/block';
import type { EpochMs } from '@outrider/shared/time';
import type { Test } from 'tap';
import type { LiveUpdate, StreamCount } from '../src/telemetry/ports.ts';
import { until } from '../src/testing/engines.ts';
import {
  batch,
  type Credentials,
  epochOf,
  eventRecord,
  gapRecord,
  record,
  samples,
  stateRecord,
  TestEdge,
  telemetryRecord,
} from './ingest-edge.ts';
import { type Ground, metric, type Replica } from './ingest-rig.ts';
import { originSuite } from './origin-suite.ts';

const { BodyKind, Lane } = outrider.v1;
const { LANE_EVENT, LANE_STATE, LANE_TELEMETRY } = Lane;
const RECORDED_2019 = Date.UTC(2019, 4, 3, 10);

export interface SuiteRig {
  readonly ground: Ground;
  /** Where robots connect. */
  readonly url: () => string;
  readonly replica: () => Replica;
  /** Ends the replica and starts another one in its place. */
  restart(): Promise<void>;
}

/** The behaviour of the ingest that is the same on every engine. */
export async function ingestSuite(t: Test, rig: SuiteRig): Promise<void> {
  const { ground } = rig;
  const { database } = ground;
  const reader = () => rig.replica().telemetry.reader;
  const { robot, credentials } = await ground.robot('default', 'RB-1');
  const open = async (device: DeviceIdentity = robot, own: Credentials = credentials): Promise<TestEdge> => {
    const edge = new TestEdge(rig.url(), device, own);
    await edge.ready();
    return edge;
  };
  const counted = async (stream: string): Promise<StreamCount | undefined> =>
    (await reader().counts(robot.robotPk)).find((count) => count.stream === stream);
  let edge = await open();

  await t.test(
    'records are acknowledged once they are stored, and read back to the bit by their own stamps',
    async (t) => {
      const epoch = epochOf('first');
      const list = samples('/old', 100, RECORDED_2019);
      await edge.send(epoch, LANE_TELEMETRY, [
        telemetryRecord(1, list),
        telemetryRecord(2, samples('/old', 5, RECORDED_2019 + 1000)),
      ]);
      await edge.acknowledged(epoch, LANE_TELEMETRY, 2);
      const blocks: DecodedBlock[] = [];
      const range = { fromMs: (RECORDED_2019 + 500) as EpochMs, toMs: (RECORDED_2019 + 1020) as EpochMs };
      for await (const block of reader().history({ robotPk: robot.robotPk, ...range })) blocks.push(block);
      t.same(
        blocks.map((block) => block.count),
        [50, 3],
        'only the rows of the range, of both blocks',
      );
      t.same(
        [...columnOf(blocks[0] as DecodedBlock, 0)],
        list.slice(50).map((sample) => sample.values[0]),
      );
      t.ok(Object.is(columnOf(blocks[0] as DecodedBlock, 1)[0], -0), 'negative zero is kept');
      t.same(await counted('/old'), {
        stream: '/old',
        kind: 'joint_state',
        samples: 105,
        thinned: 0,
        blocks: 2,
        firstAt: RECORDED_2019,
        lastAt: RECORDED_2019 + 1040,
      });
      const newest: number[] = [];
      const latestQuery = { robotPk: robot.robotPk, streams: ['/old'], limit: 8, newestFirst: true };
      for await (const block of reader().history(latestQuery)) newest.push(block.count);
      t.same(newest, [5, 3], 'the newest first, cut to the limit');
    },
  );

  await t.test('a record that comes again is acknowledged again and not stored again', async (t) => {
    const epoch = epochOf('twice');
    const records = [1, 2, 3].map((seq) => telemetryRecord(seq, samples('/twice', 10, RECORDED_2019 + seq * 1000)));
    await edge.send(epoch, LANE_TELEMETRY, records, 71);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 3);
    t.same(edge.acks.at(-1)?.batchIds, [71], 'under its name');
    const acks = edge.acks.length;
    await edge.send(epoch, LANE_TELEMETRY, records.slice(1), 72);
    await until(() => edge.acks.length > acks, 'the second acknowledgement');
    t.match(edge.acks.at(-1), { epoch, upto: 3, collision: false, batchIds: [72] });
    t.equal((await counted('/twice'))?.samples, 30);
    t.ok((await metric(rig.replica().metrics, 'outrider_ingest_duplicates_total')) >= 2);
  });

  await t.test('samples that a robot thinned out of its blocks are counted beside those that it sent', async (t) => {
    const epoch = epochOf('thinned');
    await edge.send(epoch, LANE_TELEMETRY, [
      telemetryRecord(1, samples('/thinned', 12, RECORDED_2019), 100),
      telemetryRecord(2, samples('/thinned', 10, RECORDED_2019 + 1000)),
      telemetryRecord(3, samples('/thinned', 9, RECORDED_2019 + 2000), 59),
    ]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 3);
    t.match(await counted('/thinned'), { samples: 31, thinned: 138, blocks: 3 });
  });

  await t.test(
    'records out of order are stored at once, and acknowledged when the hole before them is filled',
    async (t) => {
      const epoch = epochOf('holes');
      const one = (seq: number) => telemetryRecord(seq, samples('/holes', 1, RECORDED_2019 + seq * 1000));
      await edge.send(epoch, LANE_TELEMETRY, [one(4), one(6)]);
      await edge.acknowledged(epoch, LANE_TELEMETRY, 0);
      t.equal((await counted('/holes'))?.samples, 2);
      await edge.send(epoch, LANE_TELEMETRY, [one(1), one(4)]);
      await edge.acknowledged(epoch, LANE_TELEMETRY, 1);
      await edge.send(epoch, LANE_TELEMETRY, [
        gapRecord(2, 3, {
          reason: 'disk full',
          records: 2,
          samples: 20,
          fromMs: RECORDED_2019,
          toMs: RECORDED_2019 + 1,
        }),
      ]);
      await edge.acknowledged(epoch, LANE_TELEMETRY, 4);
      await edge.send(epoch, LANE_TELEMETRY, [one(5)]);
      await edge.acknowledged(epoch, LANE_TELEMETRY, 6);
      t.equal((await counted('/holes'))?.samples, 4, 'each once');
      t.match((await reader().gaps(robot.robotPk))[0], {
        epoch,
        lane: LANE_TELEMETRY,
        seqFrom: 2,
        seqTo: 3,
        samples: 20,
        reason: 'disk full',
      });
      t.same(
        await database.query('select * from ingest_ahead where epoch = $1', [epoch]),
        [],
        'nothing is left waiting',
      );
    },
  );

  await t.test('a gap over what had arrived beyond a hole counts only what is lost', async (t) => {
    const epoch = epochOf('overlap');
    const one = (seq: number) => telemetryRecord(seq, samples('/overlap', 3, RECORDED_2019 + seq * 1000), 5);
    await edge.send(epoch, LANE_TELEMETRY, [one(1), one(4)]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 1);
    const lost = { reason: 'evicted', records: 4, samples: 20, fromMs: RECORDED_2019, toMs: RECORDED_2019 + 1 };
    await edge.send(epoch, LANE_TELEMETRY, [gapRecord(2, 5, lost)]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 5);
    const gaps = await reader().gaps(robot.robotPk);
    t.match(
      gaps.find((gap) => gap.epoch === epoch),
      { seqFrom: 2, seqTo: 5, samples: 15 },
      'one of the four is held, and says itself that two of its five samples were left out',
    );
  });

  await t.test('other content under a stored position is refused, said, and does not move the watermark', async (t) => {
    const epoch = epochOf('clash');
    const original = telemetryRecord(1, samples('/clash', 1, RECORDED_2019, 1));
    await edge.send(epoch, LANE_TELEMETRY, [original, telemetryRecord(3, samples('/clash', 1, RECORDED_2019 + 1, 3))]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 1);
    for (const seq of [1, 3]) {
      const acks = edge.acks.length;
      const others = [telemetryRecord(seq, samples('/clash', 1, RECORDED_2019, 99))];
      await edge.send(epoch, LANE_TELEMETRY, others, 73);
      await until(() => edge.acks.length > acks, 'the collision');
      t.match(edge.acks.at(-1), { epoch, collision: true, upto: seq === 1 ? 0 : 1 });
      t.same(edge.acks.at(-1)?.batchIds, [], 'not named: its sender must keep it');
    }
    const values: unknown[] = [];
    for await (const block of reader().history({ robotPk: robot.robotPk, streams: ['/clash'] }))
      values.push(block.cells[0]);
    t.same(values, [1, 3], 'the first content stays');
    t.ok((await metric(rig.replica().metrics, 'outrider_ingest_collisions_total')) >= 2);
  });

  await originSuite(t, () => edge, database, robot.robotPk);

  await t.test('poison is quarantined and acknowledged, and its neighbours are stored', async (t) => {
    const epoch = epochOf('poison');
    const good = telemetryRecord(1, samples('/poison', 1, RECORDED_2019));
    await edge.send(epoch, LANE_TELEMETRY, [
      good,
      { ...telemetryRecord(2, samples('/poison', 1, RECORDED_2019)), crc: 1 },
      record(3, BodyKind.BODY_TELEMETRY, Buffer.from('no block')),
      record(4, BodyKind.BODY_STATE, Buffer.from('')),
      record(5, 77 as outrider.v1.BodyKind, Buffer.from('')),
      gapRecord(6, 5, { reason: 'backwards' }),
      telemetryRecord(7, samples('/poi\0son', 1, RECORDED_2019)),
      telemetryRecord(8, samples('/poison', 1, RECORDED_2019 + 10)),
    ]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 8);
    t.equal((await counted('/poison'))?.samples, 2);
    const json = ['{"a":"\\u0000"}', '{"a":"\\ud800"}', '[1e400]', '{', '['.repeat(5000) + ']'.repeat(5000)];
    const events = json.map((payloadJson, i) =>
      eventRecord(i + 1, { eventId: `evt_${i}`, type: 'x.v1', payloadJson, traceId: 't' }),
    );
    await edge.send(epoch, LANE_EVENT, [
      ...events,
      eventRecord(6, { eventId: 'evt_good', type: 'x.v1', occurredAtMs: RECORDED_2019, payloadJson: '{"ok":1}' }),
    ]);
    await edge.acknowledged(epoch, LANE_EVENT, 6);
    t.match(await reader().events(robot.robotPk, { types: ['x.v1'] }), [
      { eventId: 'evt_good', payload: { ok: 1 }, occurredAt: RECORDED_2019 },
    ]);
    const kept = await database.query<{ seq: number }>(
      'select seq from quarantine where epoch = $1 order by lane, seq',
      [epoch],
    );
    t.same(
      kept.map((row) => row.seq),
      [1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7],
    );
  });

  await t.test('a batch that means nothing is kept for a person and never ends the session', async (t) => {
    const closes = edge.closes;
    const count = async () => (await database.query('select 1 from quarantine where epoch is null')).length;
    const before = await count();
    await edge.raw('telemetry', Buffer.from([0xff, 0xff, 0xff]));
    await edge.raw('telemetry', batch('not an epoch', LANE_TELEMETRY, []));
    await edge.raw('event', batch(epochOf('x'), LANE_TELEMETRY, [telemetryRecord(1, samples('/x', 1, 0))]));
    await edge.raw('telemetry', batch(epochOf('x'), LANE_TELEMETRY, [telemetryRecord(0, samples('/x', 1, 0))]));
    await until(async () => (await count()) === before + 4, 'four in quarantine');
    t.equal(edge.closes, closes);
    t.ok(edge.client.connected);
  });

  await t.test('latest and shadow never go backwards, and absurd clocks do not hold them', async (t) => {
    const epoch = epochOf('latest');
    const now = Date.now();
    const latest = async () => (await reader().latest(robot.robotPk)).find((entry) => entry.stream === '/latest');
    await edge.send(epoch, LANE_TELEMETRY, [telemetryRecord(1, samples('/latest', 1, now, 7))]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 1);
    await edge.send(epoch, LANE_TELEMETRY, [telemetryRecord(2, samples('/latest', 3, RECORDED_2019, 1))]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 2);
    t.match(await latest(), { recordedAt: now, sample: { values: [7, -0] } });
    const ahead = samples('/latest', 1, now + 86_400_000, 8).map((sample) => ({
      ...sample,
      receivedNs: BigInt(now + 5) * 1_000_000n,
    }));
    await edge.send(epoch, LANE_TELEMETRY, [telemetryRecord(3, ahead)]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 3);
    t.match(
      await latest(),
      { recordedAt: now + 5, sample: { values: [8, -0] } },
      'a stamp of tomorrow is not believed',
    );
    const state = (seq: number, atMs: number, value: unknown) =>
      stateRecord(seq, { key: 'failsafe', atMs, valueJson: JSON.stringify(value) });
    await edge.send(epoch, LANE_STATE, [state(1, now, { phase: 'ARMED' }), state(2, now - 1000, { phase: 'BOOT' })]);
    await edge.acknowledged(epoch, LANE_STATE, 2);
    t.match(await reader().shadow(robot.robotPk), [{ key: 'failsafe', at: now, value: { phase: 'ARMED' } }]);
    await edge.send(epoch, LANE_STATE, [
      state(3, Date.UTC(2099, 0, 1), { phase: 'LATCHED' }),
      state(4, Date.now() + 2000, { phase: 'RECOVERING' }),
    ]);
    await edge.acknowledged(epoch, LANE_STATE, 4);
    t.match(await reader().shadow(robot.robotPk), [{ value: { phase: 'RECOVERING' } }]);
  });

  await t.test('hello is answered with the watermarks, or with why not', async (t) => {
    const epoch = epochOf('hello');
    await edge.send(epoch, LANE_TELEMETRY, [telemetryRecord(1, samples('/hello', 1, RECORDED_2019))]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 1);
    const answer = await edge.hello({ epoch, bootId: 'b', agentVersion: '1' });
    t.same(
      answer.lanes.map((ack) => [ack.lane, ack.upto]),
      [
        [LANE_EVENT, 0],
        [LANE_STATE, 0],
        [LANE_TELEMETRY, 1],
      ],
    );
    t.equal(answer.refused, '');
    t.match(
      (await edge.hello({ epoch, protocolVersion: 99 })).refused,
      /protocol 1, the edge agent 99: update the control plane/,
    );
    t.match((await edge.hello({ epoch: 'nonsense' })).refused, /epoch/);
    const forgotten = await edge.hello({ epoch, lanes: [{ lane: LANE_TELEMETRY, maxSeq: 60, oldestSeq: 51 }] });
    t.equal(
      forgotten.lanes.find((ack) => ack.lane === LANE_TELEMETRY)?.upto,
      50,
      'a restored cloud does not wait for ever',
    );
    t.match((await reader().gaps(robot.robotPk))[0], { seqFrom: 2, seqTo: 50, reason: /unknown to this database/ });
  });

  await t.test('presence and live updates reach those who may see them, after the commit', async (t) => {
    const updates: LiveUpdate[] = [];
    const foreign: LiveUpdate[] = [];
    const { live } = rig.replica().telemetry;
    const stops = [
      live.subscribe({ tenantId: 'default' }, (update) => updates.push(update)),
      live.subscribe({ tenantId: 'other' }, (update) => foreign.push(update)),
    ];
    await edge.presence('ONLINE');
    await edge.presence('BOGUS');
    const epoch = epochOf('live');
    const event = {
      eventId: 'evt_live',
      type: 'failsafe.transition.v1',
      occurredAtMs: RECORDED_2019,
      payloadJson: '{"mode":"thermal_shutdown"}',
    };
    await edge.send(epoch, LANE_TELEMETRY, [
      telemetryRecord(1, samples('/live', 10, RECORDED_2019)),
      telemetryRecord(2, samples('/live', 10, RECORDED_2019 + 500, 70)),
    ]);
    await edge.send(epoch, LANE_EVENT, [eventRecord(1, event)]);
    await until(
      () =>
        ['presence', 'event', 'telemetry'].every((type) =>
          updates.some((update) => update.type === type && (update.type !== 'telemetry' || update.stream === '/live')),
        ),
      'all kinds of updates',
    );
    for (const stop of stops) stop();
    t.match(
      updates.find((update) => update.type === 'telemetry' && update.stream === '/live'),
      { robotId: 'RB-1', stream: '/live', sampleCount: 20, sample: { values: [79, -0] } },
    );
    t.match(
      updates.find((update) => update.type === 'event'),
      { event: { eventId: 'evt_live', payload: { mode: 'thermal_shutdown' } } },
    );
    t.same(foreign, []);
    t.match(
      await database.query('select presence, boot_id, agent_version from robot_presence where robot_pk = $1', [
        robot.robotPk,
      ]),
      [{ presence: 'ONLINE', boot_id: 'b00t', agent_version: '1.2.3' }],
    );
  });

  await t.test('reports over HTTP are stored once by their content', async (t) => {
    const report = {
      at: (RECORDED_2019 + 5) as EpochMs,
      joints: [
        { name: 'knee_l', positionRad: 0.42, effortNm: 6.1 },
        { name: 'knee_r', positionRad: 0.4 },
      ],
      power: { stateOfCharge: 0.77, drawW: 312 },
      temperaturesC: { motor_max: 64.2 },
      imu: { rollRad: 0, pitchRad: 0, yawRad: Math.PI },
      flags: ['nominal'],
    };
    const { ingest } = rig.replica().telemetry;
    const [first] = await ingest.ingestReports(robot, [report], 'req_1');
    const [again, other] = await ingest.ingestReports(robot, [report, { ...report, flags: ['other'] }], 'req_2');
    t.match(first?.eventId, /^evt_[0-9A-HJKMNP-TV-Z]{26}$/);
    t.same([again?.eventId, again?.duplicate, again?.ingestedAt], [first?.eventId, true, first?.ingestedAt]);
    t.not(other?.eventId, first?.eventId);
    t.equal((await counted('api/joint_state'))?.samples, 2);
    const latest = new Map((await reader().latest(robot.robotPk)).map((entry) => [entry.stream, entry.sample]));
    t.same(
      [...(latest.get('api/joint_state')?.values ?? [])],
      [0.42, 0.4, 6.1, Number.NaN],
      'what was not measured is not zero',
    );
    t.match(latest.get('api/imu')?.values[2], 1);
    t.equal(latest.get('api/diagnostics')?.text, '["other"]');
    await t.rejects(ingest.ingestReports(robot, [{ at: (Date.now() + 3_600_000) as EpochMs, flags: ['x'] }], 'r'), {
      code: 'invalid',
      problems: [{ field: 'timestamp' }],
    });
    await t.rejects(ingest.ingestReports(robot, [{ at: report.at }], 'r'), { code: 'invalid' });
  });

  await t.test('a control plane that ends between commit and acknowledgement loses and doubles nothing', async (t) => {
    const epoch = epochOf('ended');
    const records = Array.from({ length: 20 }, (_, i) =>
      telemetryRecord(i + 1, samples('/ended', 10, RECORDED_2019 + i * 100)),
    );
    const bus = rig.replica().bus;
    bus.publish = async () => {
      throw new Error('it ends here');
    };
    await edge.send(epoch, LANE_TELEMETRY, records.slice(0, 12));
    await until(async () => (await counted('/ended'))?.blocks === 12, 'the commit');
    t.equal(edge.upto(epoch, LANE_TELEMETRY), -1);
    await edge.end();
    await rig.restart();
    edge = await open();
    await edge.send(epoch, LANE_TELEMETRY, records);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 20);
    t.match(await counted('/ended'), { samples: 200, blocks: 20 });
    const bodies = await database.query<{ body: Uint8Array }>('select body from telemetry_block where epoch = $1', [
      epoch,
    ]);
    t.equal(
      bodies.reduce((sum, row) => sum + decodeBlock(row.body).count, 0),
      200,
    );
  });

  await edge.end();
}
