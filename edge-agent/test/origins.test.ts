import { closeSync, openSync, readdirSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { outrider } from '@outrider/shared/messages';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import Database from 'better-sqlite3';
import t from 'tap';
import type { Outbox } from '../src/outbox/outbox.ts';
import { changeFile, eventOf, jointLayout, openOutbox, readLane, sampleOf } from './outbox-rig.ts';

const { EventRecord } = outrider.v1;

/** What the event lane holds: number of the event, position, first position. */
const eventsIn = (
  outbox: Outbox,
): [id: string, seq: number, epoch: string | undefined, origSeq: number | undefined][] =>
  readLane(outbox, 'event')
    .filter(({ samples }) => samples > 0)
    .map(({ body, seq, origin }) => [EventRecord.decode(body).eventId, seq, origin?.epoch, origin?.seq]);

t.test('over any number of epochs a record keeps the position that it had first, and its bytes', async (t) => {
  const dir = t.testdir();
  let outbox = openOutbox(dir);
  for (let n = 1; n <= 4; n += 1) await outbox.appendEvent(eventOf(n));
  const bodies = readLane(outbox, 'event').map(({ body }) => Buffer.from(body));
  t.same(eventsIn(outbox)[0], ['evt_1', 1, undefined, undefined], 'a record of the present epoch has no other');
  const first = outbox.epoch;
  outbox.acknowledge({ epoch: first, lane: 'event', upto: 1 });
  outbox.flush();
  t.ok(outbox.startEpoch('test'));
  await outbox.appendEvent(eventOf(5));
  const second = outbox.epoch;
  outbox.refuseRecord('event', 2);
  outbox.close();
  outbox = openOutbox(dir);
  const inSecond = [
    ['evt_2', 1, first, 2],
    ['evt_4', 3, first, 4],
    ['evt_5', 4, undefined, undefined],
  ];
  t.same(eventsIn(outbox), inSecond, 'also after a restart');
  t.ok(outbox.startEpoch('test'));
  await outbox.appendEvent(eventOf(6));
  t.same(eventsIn(outbox), [...inSecond.slice(0, 2), ['evt_5', 4, second, 4], ['evt_6', 5, undefined, undefined]]);
  t.same(readLane(outbox, 'event')[0]?.body, bodies[1], 'the content that the cloud compares is the same');
  t.notOk(
    readLane(outbox, 'event').some(({ seqTo, origin }) => seqTo > 0 && origin),
    'a gap was never anything else',
  );
  outbox.acknowledge({ epoch: outbox.epoch, lane: 'event', upto: 5 });
  outbox.flush();
  t.ok(outbox.startEpoch('test'));
  outbox.close();
  const db = new Database(join(dir, 'outbox.db'), { readonly: true });
  const kept = db.prepare("SELECT value FROM meta WHERE key = 'origins.event'").pluck().get();
  t.match(kept, / \[\]$/, 'what is gone is forgotten');
  db.close();
});

t.test('a damaged note of origins claims nothing', async (t) => {
  const dir = t.testdir();
  let outbox = openOutbox(dir);
  await outbox.appendEvent(eventOf(1));
  const first = outbox.epoch;
  t.ok(outbox.startEpoch('test'));
  t.same(eventsIn(outbox), [['evt_1', 1, first, 1]]);
  outbox.close();
  changeFile(dir, "UPDATE meta SET value = replace(value, '[[1,1,', '[[1,9,') WHERE key = 'origins.event'");
  outbox = openOutbox(dir);
  t.same(eventsIn(outbox), [['evt_1', 1, undefined, undefined]]);
  await outbox.appendEvent(eventOf(2));
  outbox.close();
});

t.test('what is salvaged says where it was, also behind holes, and an event that is told again is known', async (t) => {
  const dir = t.testdir();
  let outbox = openOutbox(dir);
  await outbox.appendEvent(eventOf(0));
  outbox.acknowledge({ epoch: outbox.epoch, lane: 'event', upto: 1 });
  outbox.flush();
  for (let n = 1; n <= 3; n += 1) await outbox.appendEvent(eventOf(n));
  const first = outbox.epoch;
  t.ok(outbox.startEpoch('test'));
  const second = outbox.epoch;
  for (let n = 4; n <= 9; n += 1) await outbox.appendEvent(eventOf(n));
  outbox.close();
  // Three rows gone, one changed, and a table that is not what this program made: the file is set aside.
  const spoil = 'ALTER TABLE state RENAME COLUMN body TO bodies';
  changeFile(dir, 'DELETE FROM event WHERE seq BETWEEN 3 AND 5', 'UPDATE event SET samples = 2 WHERE seq = 7', spoil);
  outbox = openOutbox(dir);
  t.ok(readdirSync(dir).includes('outbox.db.damaged-1'));
  const third = outbox.epoch;
  // Row 1 was event 0, so event n is row n + 1; in the second epoch event 4 is position 4.
  t.same(eventsIn(outbox), [
    ['evt_1', 1, first, 2],
    ['evt_5', 3, second, 5],
    ['evt_7', 5, second, 7],
    ['evt_8', 6, second, 8],
    ['evt_9', 7, second, 9],
  ]);
  t.ok(readLane(outbox, 'event').every(({ body, crc }) => bodyCrc(body) === crc));
  await outbox.appendEvent(eventOf(8));
  await outbox.appendEvent(eventOf(6));
  t.equal(outbox.maxSeq('event'), 8, 'one that the damage has taken may come again, one that is there may not');
  t.same(eventsIn(outbox).at(-1), ['evt_6', 8, undefined, undefined]);
  outbox.close();
  changeFile(dir, "UPDATE meta SET value = 'ffffffffffffffff' WHERE key = 'epoch'", spoil);
  outbox = openOutbox(dir);
  t.not(outbox.epoch, third);
  t.same(
    eventsIn(outbox).map(([id, , epoch]) => [id, epoch]),
    [
      ['evt_1', first],
      ['evt_5', second],
      ['evt_7', second],
      ['evt_8', second],
      ['evt_9', second],
      ['evt_6', undefined],
    ],
    'salvaged again; of the last epoch it is not known any more which one it was',
  );
  outbox.close();
});

t.test('of a file with pages overwritten everything that is kept says where it was', async (t) => {
  const dir = t.testdir();
  let outbox = openOutbox(dir);
  for (let i = 0; i < 1500; i += 1) {
    outbox.appendSample(sampleOf(jointLayout('a', 30), i));
    if (i % 50 === 49) outbox.flush();
  }
  const first = outbox.epoch;
  const before = new Map(readLane(outbox, 'telemetry').map(({ seq, body }) => [seq, Buffer.from(body)]));
  outbox.close();
  changeFile(dir, "UPDATE meta SET value = '0' WHERE key = 'clean'");
  const file = openSync(join(dir, 'outbox.db'), 'r+');
  writeSync(file, Buffer.alloc(8192, 0xa5), 0, 8192, statSync(join(dir, 'outbox.db')).size >> 1);
  closeSync(file);
  outbox = openOutbox(dir);
  const kept = readLane(outbox, 'telemetry').filter(({ samples }) => samples > 0);
  t.ok(kept.length > 5 && kept.length < before.size, `${kept.length} of ${before.size} kept`);
  for (const { origin, body } of kept) {
    t.equal(origin?.epoch, first);
    t.same(before.get(origin?.seq ?? 0), body);
  }
  outbox.close();
});
