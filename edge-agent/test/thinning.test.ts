import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { outrider } from '@outrider/shared/messages';
import { decodeBlock, encodeBlock, sampleAt } from '@outrider/shared/protocol/block';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import type { Clock, MonotonicMs } from '@outrider/shared/time';
import Database from 'better-sqlite3';
import t from 'tap';
import type { Outbox } from '../src/outbox/outbox.ts';
import type { StoredRecord } from '../src/outbox/records.ts';
import { keptRows, thinBlock } from '../src/outbox/thinning.ts';
import {
  brokenAt,
  eventOf,
  gapsIn,
  jointLayout,
  openOutbox,
  readLane,
  StepClock,
  sampleOf,
  samplesIn,
  seeded,
} from './outbox-rig.ts';

const { BODY_GAP } = outrider.v1.BodyKind;
const LAYOUT = jointLayout('a', 3);
const SIZE_MAX_BYTES = 512 * 1024;
const BLOCK = 100;
/** Blocks that bring such an outbox to where it begins to thin. */
const BLOCKS_TO_FILL = 110;
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const receivedMs = (index: number): number => Number(sampleOf(LAYOUT, index).receivedNs) / 1e6;
/** No time passes while it thins, so that it does as much on a busy computer as on any. */
const open = (dir: string, clock: Clock = new StepClock()): Outbox =>
  openOutbox(dir, { sizeMaxBytes: SIZE_MAX_BYTES, clock });

/** Sample number `index` of a smooth motion. Its mantissas are full, so that it does not compress away. */
const smoothSample = (index: number, more: Partial<Sample> = {}): Sample => ({
  ...sampleOf(LAYOUT, index),
  values: Float64Array.from({ length: 9 }, (_, column) => Math.sin(index / 37 + column)),
  ...more,
});

/** Appends whole blocks from a sample on, each committed by itself. @returns The sample after them. */
function appendBlocks(outbox: Outbox, from: number, blocks: number, each?: () => void): number {
  for (let index = from; index < from + blocks * BLOCK; index += 1) {
    outbox.appendSample(smoothSample(index));
    if (index % BLOCK !== BLOCK - 1) continue;
    outbox.flush();
    each?.();
  }
  return from + blocks * BLOCK;
}

const isWhole = (record: StoredRecord): boolean => record.kind !== BODY_GAP && record.thinned === undefined;
const bodiesOf = (records: readonly StoredRecord[]): Map<number, string> =>
  new Map(records.map(({ seq, body }) => [seq, Buffer.from(body).toString('hex')]));

/** How many samples the records stand for: those that are there, that were thinned out, and that are in gaps. */
function explained(records: readonly StoredRecord[]): { kept: number; thinned: number; dropped: number; all: number } {
  const blocks = records.filter(({ kind }) => kind !== BODY_GAP).map(({ body }) => decodeBlock(body));
  const kept = sum(blocks.map(({ count }) => count));
  const thinned = sum(blocks.map(({ count, thinnedFrom = count }) => thinnedFrom - count));
  const dropped = sum(gapsIn(records).map(({ samples }) => samples));
  return { kept, thinned, dropped, all: kept + thinned + dropped };
}

t.test(
  'of a block stay the ends, every tenth, extremes, odd samples, changes and protected stretches; no other',
  (t) => {
    const random = seeded(11);
    for (let round = 0; round < 50; round += 1) {
      const lasting = round % 2 === 0 ? SAMPLE_FLAGS.replayed | SAMPLE_FLAGS.clockUnsure : 0;
      const odd = new Map(
        Array.from({ length: 3 }, () => [Math.floor(random() * BLOCK), 1 << Math.floor(random() * 3)]),
      );
      const goodClockFrom = 1 + Math.floor(random() * (BLOCK - 1));
      const textFrom = 1 + Math.floor(random() * (BLOCK - 1));
      const samples = Array.from({ length: BLOCK }, (_, row) => {
        const circumstances = row < goodClockFrom ? lasting : lasting & ~SAMPLE_FLAGS.clockUnsure;
        const text = row >= textFrom ? { text: 'the motor is hot' } : {};
        const sample = smoothSample(row, { flags: circumstances | (odd.get(row) ?? 0), ...text });
        if (row % 7 === 3) sample.values[2] = Number.NaN;
        sample.values[0] = random();
        return sample;
      });
      const span = { fromMs: receivedMs(40 + round), toMs: receivedMs(44 + round) };
      const expected = new Set([0, BLOCK - 1, textFrom, ...odd.keys()]);
      for (let row = 0; row < BLOCK; row += 10) expected.add(row);
      for (let row = 40 + round; row <= Math.min(44 + round, BLOCK - 1); row += 1) expected.add(row);
      for (let row = 1; row < BLOCK; row += 1) if (samples[row]?.flags !== samples[row - 1]?.flags) expected.add(row);
      for (let column = 0; column < 9; column += 1) {
        const values = samples.map((sample) => sample.values[column] as number);
        const numbers = values.filter((value) => !Number.isNaN(value));
        expected.add(values.indexOf(Math.min(...numbers)));
        expected.add(values.indexOf(Math.max(...numbers)));
      }
      const whole = encodeBlock(samples);
      t.same(
        keptRows(decodeBlock(whole), [span]),
        [...expected].sort((a, b) => a - b),
      );
      const thin = thinBlock(whole, [span]);
      if (!thin) throw new Error('it was not thinned');
      const block = decodeBlock(thin.body);
      t.equal(block.thinnedFrom, BLOCK);
      t.equal(thin.samples + thin.thinned, BLOCK);
      t.same(
        Array.from({ length: block.count }, (_, row) => sampleAt(block, row)),
        samples.filter((_, row) => expected.has(row)),
        'to the bit',
      );
    }
    const noise = Array.from({ length: BLOCK }, (_, row) => sampleOf(jointLayout('b', 30), row));
    t.equal(thinBlock(encodeBlock(noise), []), undefined, 'where nearly all are extremes the block stays whole');
    t.equal(thinBlock(Buffer.from('no block'), []), undefined);
    t.end();
  },
);

t.test(
  'a filling outbox thins old blocks, a few at a time, before it drops any, and says how many samples went',
  async (t) => {
    const dir = t.testdir();
    let outbox = open(dir);
    const bodies = new Map<number, StoredRecord>();
    let [thinnedRecords, mostAtOnce, highestFill] = [0, 0, 0];
    const look = (): void => {
      const records = readLane(outbox, 'telemetry');
      for (const record of records) if (!bodies.has(record.seq)) bodies.set(record.seq, record);
      const now = records.filter(({ thinned }) => thinned).length;
      mostAtOnce = Math.max(mostAtOnce, now - thinnedRecords);
      thinnedRecords = now;
      highestFill = Math.max(highestFill, outbox.stats().fill);
    };
    let given = appendBlocks(outbox, 0, BLOCKS_TO_FILL, look);
    await outbox.appendEvent(eventOf(1));
    const first = readLane(outbox, 'telemetry');
    t.equal(gapsIn(first).length, 0, 'nothing is dropped yet');
    t.ok(thinnedRecords > 10, `${thinnedRecords} blocks are thinned`);
    t.ok(
      first.slice(0, thinnedRecords).every(({ thinned }) => thinned),
      'the oldest ones',
    );
    t.ok(first.slice(-Math.floor(first.length / 4)).every(isWhole), 'the newest quarter is whole');
    t.ok(mostAtOnce <= 8, `at most ${mostAtOnce} at once`);
    t.equal(explained(first).all, given);
    t.equal(outbox.stats().samplesThinned, explained(first).thinned);
    for (const record of first) {
      t.equal(record.crc, bodyCrc(record.body));
      const before = bodies.get(record.seq);
      if (!before || !record.thinned) continue;
      const was = decodeBlock(before.body);
      const kept = keptRows(was, []);
      t.same(
        samplesIn([record]),
        kept.map((row) => sampleAt(was, row)),
      );
      t.match(record, { samples: kept.length, fromMs: before.fromMs, toMs: before.toMs, bootId: before.bootId });
    }
    given = appendBlocks(outbox, given, 300, look);
    const records = readLane(outbox, 'telemetry');
    const { dropped, thinned, all } = explained(records);
    t.equal(brokenAt(records, 1), undefined);
    t.ok(dropped > 0 && thinned > 0, `${dropped} dropped, ${thinned} thinned`);
    t.equal(all, given, 'a thinned block that is dropped later is dropped with all that it held');
    t.equal(gapsIn(records).length, 1);
    const newest = records.slice(-Math.floor(records.length / 4));
    t.ok(newest.every(isWhole), 'the newest quarter is still whole');
    t.equal(outbox.stats().samplesDropped, dropped);
    t.ok(highestFill <= 0.9, `${highestFill}`);
    t.equal(readLane(outbox, 'event').length, 1);
    const { lanes } = outbox.stats();
    t.equal(lanes.telemetry.samples, explained(records).kept);
    outbox.close();
    outbox = open(dir);
    t.same(outbox.stats().lanes, lanes, 'the counters are right');
    t.same(readLane(outbox, 'telemetry'), records);
    outbox.close();
  },
);

t.test('a computer on which thinning takes long does one block at a time, and misses none', (t) => {
  const clock = new StepClock();
  clock.monotonicMs = () => {
    clock.nowMs += 6;
    return clock.nowMs as MonotonicMs;
  };
  const outbox = open(t.testdir(), clock);
  let before = 0;
  const given = appendBlocks(outbox, 0, BLOCKS_TO_FILL - 10, () => {
    const now = readLane(outbox, 'telemetry').filter(({ thinned }) => thinned).length;
    t.ok(now - before <= 1);
    before = now;
  });
  t.ok(before > 5, `${before} are thinned`);
  const records = readLane(outbox, 'telemetry');
  t.ok(
    records.slice(0, before).every(({ thinned }) => thinned),
    'one after the other',
  );
  t.equal(explained(records).all, given);
  outbox.close();
  t.end();
});

t.test('what was sent on any connection is never thinned, also after a crash or in a file that does not say', (t) => {
  const dir = t.testdir({ killed: {}, old: {} });
  const outbox = open(join(dir, 'state'));
  let given = appendBlocks(outbox, 0, 30);
  const sent = bodiesOf(readLane(outbox, 'telemetry').slice(0, 20));
  outbox.setInFlight('telemetry', 20);
  // The connection is lost, and the robot's power a moment later: nothing was committed in between.
  outbox.setInFlight('telemetry', 0);
  for (const copy of ['killed', 'old'])
    for (const name of ['outbox.db', 'outbox.db-wal']) copyFileSync(join(dir, 'state', name), join(dir, copy, name));
  const isUnchanged = (from: Outbox, blocks: ReadonlyMap<number, string>): boolean =>
    readLane(from, 'telemetry').every(
      ({ seq, kind, body }) =>
        kind === BODY_GAP || (blocks.get(seq) ?? '') === Buffer.from(body).toString('hex') || !blocks.has(seq),
    );
  given = appendBlocks(outbox, given, BLOCKS_TO_FILL - 30, () => t.ok(isUnchanged(outbox, sent)));
  const records = readLane(outbox, 'telemetry');
  t.ok(records.slice(0, 20).every(isWhole));
  t.ok(records[20]?.thinned, 'the first that was not sent is');
  t.equal(explained(records).all, given);
  outbox.close();

  let again = open(join(dir, 'state'));
  const thinnedIn = (from: Outbox): number => readLane(from, 'telemetry').filter(({ thinned }) => thinned).length;
  const atStart = thinnedIn(again);
  again.setInFlight('telemetry', 22);
  again.setInFlight('telemetry', 0);
  const thinSent = bodiesOf(readLane(again, 'telemetry').slice(0, 22));
  given = appendBlocks(again, given, 10, () => t.ok(isUnchanged(again, thinSent), 'a thinned one that was sent stays'));
  t.ok(thinnedIn(again) > atStart, 'after a clean stop only what was sent is spared');
  again.setInFlight('telemetry', again.maxSeq('telemetry'));
  again.setInFlight('telemetry', 0);
  const allSent = bodiesOf(readLane(again, 'telemetry'));
  again.close();
  again = open(join(dir, 'state'));
  given = appendBlocks(again, given, 8, () => t.ok(isUnchanged(again, allSent), 'also what was sent just before it'));
  const untilEpoch = thinnedIn(again);
  t.ok(again.startEpoch('test'));
  appendBlocks(again, given, 8);
  t.equal(thinnedIn(again), untilEpoch, 'nor under a new epoch: it may be stored, and is known again by its content');
  again.close();

  const killed = open(join(dir, 'killed'));
  appendBlocks(killed, 3000, BLOCKS_TO_FILL - 30, () => t.ok(isUnchanged(killed, sent)));
  t.equal(explained(readLane(killed, 'telemetry')).all, BLOCKS_TO_FILL * BLOCK);
  t.ok(thinnedIn(killed) > 0, 'what came after the crash may be thinned');
  killed.close();

  const db = new Database(join(dir, 'old', 'outbox.db'));
  db.exec("DELETE FROM meta WHERE key = 'may_be_sent.telemetry'");
  db.close();
  const old = open(join(dir, 'old'));
  const held = bodiesOf(readLane(old, 'telemetry'));
  t.equal(held.size, 30);
  appendBlocks(old, 3000, BLOCKS_TO_FILL - 30, () => t.ok(isUnchanged(old, held)));
  t.ok(readLane(old, 'telemetry').some(({ thinned }) => thinned));
  old.close();
  t.end();
});

t.test(
  'around a transition of the failsafe nothing is thinned, and it is dropped last, also after a restart',
  async (t) => {
    const dir = t.testdir();
    let outbox = open(dir);
    // At sample 1010: 500 samples before it and after it are protected, so the blocks of 600 to 1499 are wholly inside.
    const transition = { ...eventOf(1), type: 'failsafe.transition.v1', occurredAtMs: receivedMs(1010) } as const;
    let given = appendBlocks(outbox, 0, 20);
    const protectedBlocks = bodiesOf(readLane(outbox, 'telemetry').slice(6, 15));
    await outbox.appendEvent(transition);
    const indexes = (records: readonly StoredRecord[]): Set<number> =>
      new Set(samplesIn(records).map(({ receivedMonoNs }) => Number(receivedMonoNs / 20_000_000n)));
    const areKept = (): boolean => {
      const found = bodiesOf(readLane(outbox, 'telemetry'));
      return [...protectedBlocks].every(([seq, body]) => found.get(seq) === body);
    };
    outbox.close();
    outbox = open(dir);
    given = appendBlocks(outbox, given, BLOCKS_TO_FILL - 20);
    const records = readLane(outbox, 'telemetry');
    t.ok(records.slice(0, 5).every(({ thinned }) => thinned));
    t.ok(records[15]?.thinned, 'a block that is only partly inside');
    const kept = indexes(records);
    for (let index = 510; index <= 1510; index += 1) if (!kept.has(index)) t.fail(`sample ${index} was thinned out`);
    given = appendBlocks(outbox, given, 300);
    t.ok(areKept(), 'all around it was dropped meanwhile');
    const rest = readLane(outbox, 'telemetry');
    t.equal(rest[0]?.kind, BODY_GAP);
    t.equal(rest.find(({ kind }) => kind !== BODY_GAP)?.seq, 7, 'dropped around it');
    t.equal(explained(rest).all, given);
    t.equal(brokenAt(rest, 1), undefined);
    outbox.protect(0, Number.MAX_SAFE_INTEGER);
    given = appendBlocks(outbox, given, 150);
    t.equal(explained(readLane(outbox, 'telemetry')).all, given);
    t.notOk(areKept(), 'where all is protected the oldest goes');
    t.ok(outbox.stats().fill <= 0.9);
    outbox.close();
  },
);

t.test('killed at any moment of thinning, each position is whole or thin, and all samples are accounted for', (t) => {
  const dir = t.testdir({ copy: {} });
  const random = seeded(5);
  const outbox = open(join(dir, 'state'));
  const files = (): { db: Buffer; wal: Buffer } => ({
    db: readFileSync(join(dir, 'state', 'outbox.db')),
    wal: readFileSync(join(dir, 'state', 'outbox.db-wal')),
  });
  let given = appendBlocks(outbox, 0, BLOCKS_TO_FILL - 15);
  let [lostLast, notYetThin, thin] = [0, 0, 0];
  for (let step = 0; step < 40; step += 1) {
    const before = files();
    given = appendBlocks(outbox, given, 1);
    const after = files();
    // A checkpoint only comes when all before it is on the disk, so that nothing of the journal can be missing then.
    if (!after.db.equals(before.db)) continue;
    const changed = [...after.wal.keys()].filter((at) => after.wal[at] !== before.wal[at]);
    const thinnedNow = readLane(outbox, 'telemetry').filter(({ thinned }) => thinned).length;
    for (const share of [random(), 0.5 + random() / 2, 1]) {
      // The journal as a power cut leaves it: new up to somewhere, and as it was behind.
      const cut = (changed[Math.floor(share * (changed.length - 1))] ?? 0) + 1;
      const torn = [after.wal.subarray(0, cut), before.wal.subarray(Math.min(cut, before.wal.length))];
      writeFileSync(join(dir, 'copy', 'outbox.db'), before.db);
      writeFileSync(join(dir, 'copy', 'outbox.db-wal'), Buffer.concat(torn));
      const copy = open(join(dir, 'copy'));
      const records = readLane(copy, 'telemetry');
      const { all } = explained(records);
      t.equal(brokenAt(records, 1), undefined);
      t.ok(all === given || (all === given - BLOCK && share < 1), `${all} of ${given}`);
      t.ok(gapsIn(records).every(({ reason }) => reason === 'evicted'));
      t.ok(records.every(({ kind, samples, thinned = 0 }) => kind === BODY_GAP || samples + thinned === BLOCK));
      const thinnedThen = records.filter(({ thinned }) => thinned).length;
      lostLast += Number(all < given);
      notYetThin += Number(all === given && thinnedThen < thinnedNow);
      thin += Number(thinnedThen > 0);
      copy.close();
    }
  }
  t.ok(lostLast > 0 && notYetThin > 0 && thin > 10, `${lostLast} lost the commit, ${notYetThin} only the thinning`);
  outbox.close();
  t.end();
});

t.test('a changed bit in how much was thinned shows, and a salvaged block keeps what it says', (t) => {
  const dir = t.testdir();
  let outbox = open(dir);
  const given = appendBlocks(outbox, 0, BLOCKS_TO_FILL);
  const before = readLane(outbox, 'telemetry').filter(({ thinned }) => thinned);
  outbox.close();
  const db = new Database(join(dir, 'outbox.db'));
  db.exec('UPDATE telemetry SET thinned = 0 WHERE seq = 2');
  db.exec("UPDATE meta SET value = '0123456789abcdeg' WHERE key = 'epoch'");
  db.close();
  outbox = open(dir);
  const records = readLane(outbox, 'telemetry');
  t.match(gapsIn(records), [{ seq: 2, reason: 'corruption', records: 1 }]);
  const after = records.filter(({ thinned }) => thinned);
  t.same(
    after.map(({ body, samples, thinned }) => ({ body, samples, thinned })),
    before.filter(({ seq }) => seq !== 2).map(({ body, samples, thinned }) => ({ body, samples, thinned })),
  );
  t.equal(explained(records).all, given - BLOCK);
  outbox.close();
  t.end();
});
