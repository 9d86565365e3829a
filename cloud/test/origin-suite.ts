import { outrider } from '@outrider/shared/messages';
import type { Test } from 'tap';
import type { Database } from '../src/storage/database.ts';
import { until } from '../src/testing/engines.ts';
import { epochOf, eventRecord, samples, type TestEdge, telemetryRecord } from './ingest-edge.ts';

const { LANE_EVENT, LANE_TELEMETRY } = outrider.v1.Lane;
const RECORDED_2019 = Date.UTC(2019, 4, 3, 10);

type WireRecord = outrider.v1.Record.$Properties;

/** A record as it comes again under another position, of an epoch after the one that it is from. */
const again = (record: WireRecord, seq: number, origEpoch: string, origSeq = record.seq ?? 0): WireRecord => ({
  ...record,
  ...{ seq, origEpoch, origSeq },
});

/** Records that come under a new epoch: once in the store, whatever was stored, lost or answered before. */
export async function originSuite(t: Test, edge: () => TestEdge, database: Database, robotPk: number): Promise<void> {
  const block = (seq: number, value: number): WireRecord =>
    telemetryRecord(seq, samples('/origin', 2, RECORDED_2019 + seq * 1000, value));
  const send = async (epoch: string, upto: number, ...records: WireRecord[]): Promise<void> => {
    await edge().send(epoch, LANE_TELEMETRY, records);
    await edge().acknowledged(epoch, LANE_TELEMETRY, upto);
  };
  const bundles = async (): Promise<number> =>
    (await database.query('select 1 from bus_event where payload like $1', ['%/origin%'])).length;
  /** Positions of an epoch that hold a block. */
  const held = async (epoch: string): Promise<number[]> =>
    (
      await database.query<{ seq: number }>('select seq from telemetry_block where epoch = $1 order by seq', [epoch])
    ).map(({ seq }) => seq);

  await t.test(
    'what is stored under an earlier epoch is acknowledged under the new one and not stored again',
    async (t) => {
      const bundlesBefore = await bundles();
      const [first, second, third] = ['origin 1', 'origin 2', 'origin 3'].map(epochOf) as [string, string, string];
      await send(first, 1, block(1, 1), block(3, 3));
      await send(
        second,
        4,
        again(block(1, 1), 1, first),
        again(block(2, 2), 2, first),
        again(block(3, 3), 3, first),
        block(4, 4),
      );
      t.same(await held(first), [1, 3], 'the third was beyond a hole');
      t.same(await held(second), [2, 4]);
      await send(
        third,
        4,
        ...[1, 2, 3].map((seq) => again(block(seq, seq), seq, first)),
        again(block(4, 4), 4, second),
      );
      t.same(await held(third), [], 'also what came by its origin before');
      await send(first, 3, block(2, 2));
      t.same(await held(first), [1, 3], 'one that was on its way meanwhile');
      t.equal(
        (await bundles()) - bundlesBefore,
        2,
        'the bus hears of it as often as it is stored: with the first batch and the second',
      );
    },
  );

  await t.test('a position that another record holds does not count as its own', async (t) => {
    const [first, second, third] = ['taken 1', 'taken 2', 'taken 3'].map(epochOf) as [string, string, string];
    await send(first, 2, block(1, 1), block(2, 2));
    await send(second, 2, again(block(1, 71), 1, first), again(block(2, 2), 2, first));
    t.same(await held(second), [1], 'other content is stored');
    await send(third, 2, again(block(1, 71), 1, first), again(block(2, 72), 2, first));
    t.same(await held(third), [2], 'and known when it comes again, by its content');
  });

  await t.test('a position that was only covered still tells other content from its own', async (t) => {
    const [first, second] = ['covered 1', 'covered 2'].map(epochOf) as [string, string];
    await send(first, 2, block(1, 1), block(2, 2));
    await send(second, 2, again(block(1, 1), 1, first), again(block(2, 2), 2, first));
    const acks = edge().acks.length;
    await edge().send(second, LANE_TELEMETRY, [block(2, 99)]);
    await until(() => edge().acks.length > acks, 'the collision');
    t.match(edge().acks.slice(acks), [{ epoch: second, collision: true, upto: 1 }]);
    await edge().send(second, LANE_TELEMETRY, [again(block(2, 2), 2, first)]);
    await until(() => edge().acks.length > acks + 1, 'another acknowledgement');
    t.match(edge().acks.at(-1), { epoch: second, collision: false, upto: 2 });
    t.same(await held(second), []);
  });

  await t.test('records beyond a hole, several of one origin in one batch, and claims without sense', async (t) => {
    const [first, second, third] = ['odd 1', 'odd 2', 'odd 3'].map(epochOf) as [string, string, string];
    await send(first, 1, block(1, 1));
    await send(second, 0, again(block(1, 1), 2, first), again(block(2, 2), 3, first), again(block(2, 2), 4, first));
    t.same(await held(second), [3]);
    await send(second, 4, again(block(3, 3), 1, first));
    t.same(await held(second), [1, 3]);
    t.same(await database.query('select 1 from ingest_ahead where epoch = $1', [second]), []);
    await send(
      third,
      4,
      again(block(1, 1), 1, 'no epoch'),
      again(block(2, 2), 2, first, 0),
      again(block(3, 3), 3, third),
      again(block(4, 4), 4, third, 3),
    );
    t.same(await held(third), [1, 2, 3, 4], 'a claim that cannot be true costs no record');
  });

  await t.test('an event that comes under a new epoch is stored, published and judged once', async (t) => {
    const [first, second, third, fourth] = ['told 1', 'told 2', 'told 3', 'told 4'].map(epochOf) as [
      string,
      string,
      string,
      string,
    ];
    const event = (seq: number, n: number): WireRecord =>
      eventRecord(seq, {
        eventId: `evt_told_${n}`,
        type: 'edge.started.v1',
        occurredAtMs: RECORDED_2019,
        payloadJson: JSON.stringify({ boot_id: 'b00t', agent_version: String(n), epoch: first }),
      });
    const tell = async (epoch: string, upto: number, ...records: WireRecord[]): Promise<void> => {
      await edge().send(epoch, LANE_EVENT, records);
      await edge().acknowledged(epoch, LANE_EVENT, upto);
    };
    await tell(first, 2, event(1, 1), event(2, 2));
    await tell(second, 3, again(event(2, 2), 1, first), again(event(3, 3), 2, first), event(3, 4));
    await tell(third, 3, again(event(2, 2), 1, first), again(event(3, 3), 2, first), again(event(3, 4), 3, second));
    const rows = async (): Promise<string[][]> =>
      (
        await database.query<{ epoch: string; event_id: string }>(
          "select epoch, event_id from robot_event where event_id like 'evt\\_told\\_%' order by event_id, ingested_at",
        )
      ).map((row) => [row.epoch, row.event_id]);
    const once = [
      [first, 'evt_told_1'],
      [first, 'evt_told_2'],
      [second, 'evt_told_3'],
      [second, 'evt_told_4'],
    ];
    t.same(await rows(), once);
    const pending = await database.query<{ epoch: string; n: number }>(
      'select epoch, count(*)::int4 as n from alert_pending where robot_pk = $1 and epoch = any($2::text[]) group by epoch',
      [robotPk, [first, second, third]],
    );
    t.same(new Map(pending.map(({ epoch, n }) => [epoch, n])), new Map([first, second].map((epoch) => [epoch, 2])));
    await tell(fourth, 1, event(1, 1));
    const bus = await database.query<{ n: number }>(
      "select count(*)::int4 as n from bus_event where event_id like 'evt\\_told\\_%' group by event_id",
    );
    t.same(
      bus.map(({ n }) => n),
      [1, 1, 1, 1],
      'an id that was published does not stop a commit that brings it without an origin',
    );
  });
}
