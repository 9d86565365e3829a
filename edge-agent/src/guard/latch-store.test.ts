import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Journal, TRANSITIONS_MAX } from './journal.ts';
import { commissionLatchStore, EMPTY_RECORD, type LatchRecord, LatchStore } from './latch-store.ts';

/** A folder of its own; short, unlike the paths of `t.testdir`. */
function folder(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'outrider-latch-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

const RECORD: LatchRecord = {
  latchId: 12,
  motionEpoch: 4,
  latched: [{ cause: 'thermal_shutdown', detail: 'knee 96.0 C, “hot”' }],
  phase: 'LATCHED',
  transitionIdMax: 9,
  transitions: [{ id: 9, bytes: Uint8Array.of(8, 9) }],
};

t.test('latch store', async (t) => {
  t.test('what was written is read back, and commissioning never overwrites', async (t) => {
    const dir = join(folder(t), 'latches');
    t.equal(await commissionLatchStore(dir), true);
    t.match((await LatchStore.open(dir)).content, { record: EMPTY_RECORD, damage: undefined });
    const { store } = await LatchStore.open(dir);
    await store.write({ ...RECORD, latchId: 11 });
    await store.write(RECORD);
    t.equal(await commissionLatchStore(dir), false);
    const { content } = await LatchStore.open(dir);
    t.match(content, { damage: undefined, record: { latchId: 12, motionEpoch: 4, phase: 'LATCHED' } });
    t.same(content.record.latched, RECORD.latched);
    t.same([...(content.record.transitions[0]?.bytes ?? [])], [8, 9]);
  });

  t.test('no single flipped bit and no cut in a slot goes unnoticed', async (t) => {
    const dir = folder(t);
    await commissionLatchStore(dir);
    const { store } = await LatchStore.open(dir);
    await store.write(RECORD);
    const path = join(dir, 'latch-a');
    const good = readFileSync(path);
    let unnoticed = 0;
    for (let bit = 0; bit < good.length * 8; bit += 3) {
      const bytes = Buffer.from(good);
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      writeFileSync(path, bytes);
      if ((await LatchStore.open(dir)).content.damage === undefined) unnoticed += 1;
    }
    for (let length = 0; length < good.length; length += 7) {
      writeFileSync(path, good.subarray(0, length));
      if ((await LatchStore.open(dir)).content.damage === undefined) unnoticed += 1;
    }
    t.equal(unnoticed, 0);
    writeFileSync(path, good);
    t.equal((await LatchStore.open(dir)).content.damage, undefined);
  });

  t.test('a write that is cut off anywhere leaves what was there before', async (t) => {
    const dir = folder(t);
    await commissionLatchStore(dir);
    const { store } = await LatchStore.open(dir);
    await store.write(RECORD);
    // A power loss in the middle of a write leaves the new file beside the slots.
    writeFileSync(join(dir, 'latch-b.new'), 'OUTRIDER-LATCH-1 0123');
    t.match((await LatchStore.open(dir)).content, { damage: undefined, record: { latchId: 12 } });
  });

  t.test('without any slot nothing is trusted, and the motion epoch leaves the old ones behind', async (t) => {
    const { content } = await LatchStore.open(join(folder(t), 'none'));
    t.match(content.damage, /latch-a is missing; latch-b is missing/);
    t.ok(content.record.motionEpoch > 0);
  });
});

t.test('journal', async (t) => {
  const events = (): { stored: number[]; failed: string[]; reported: number } => ({
    stored: [],
    failed: [],
    reported: 0,
  });
  const journalIn = async (dir: string, seen: ReturnType<typeof events>): Promise<Journal> => {
    const { store, content } = await LatchStore.open(dir);
    return new Journal(store, content.record, {
      onStored: (durable) => seen.stored.push(durable.latchId),
      onFailed: (detail) => seen.failed.push(detail),
      onReportable: () => {
        seen.reported += 1;
      },
    });
  };

  t.test('a transition is told once it is on disk, until it is acknowledged, also after a restart', async (t) => {
    const dir = folder(t);
    await commissionLatchStore(dir);
    const seen = events();
    const journal = await journalIn(dir, seen);
    journal.save({ ...EMPTY_RECORD, latchId: 1 }, 'LATCHED', { reason: 'one' });
    t.same(journal.reportable(0), [], 'not before it is on disk');
    await journal.flush();
    t.same(seen, { stored: [1], failed: [], reported: 1 });
    journal.save({ ...EMPTY_RECORD, latchId: 2 }, 'LATCHED', { reason: 'two' });
    await journal.flush();
    journal.acknowledge(1);
    await journal.flush();
    const again = await journalIn(dir, events());
    t.match(again.reportable(0), [{ transitionId: 2, reason: 'two' }]);
    again.reconcile(2);
    t.same(again.reportable(0), []);
    await again.flush();
  });

  t.test('ids of a lost store go on after those that the agent knows', async (t) => {
    const dir = folder(t);
    await commissionLatchStore(dir);
    const journal = await journalIn(dir, events());
    journal.save(EMPTY_RECORD, 'BOOT', { reason: 'first of a new store' });
    await journal.flush();
    journal.reconcile(57);
    t.match(journal.reportable(57), [{ transitionId: 58, reason: 'first of a new store' }]);
    journal.reconcile(58);
    t.same(journal.reportable(0), [], 'a later hello only acknowledges');
    await journal.flush();
  });

  t.test('a store that fails is said, tells the transition all the same, and is tried again', async (t) => {
    const dir = join(folder(t), 'latches');
    writeFileSync(dir, 'a file where the folder should be');
    const seen = events();
    const journal = await journalIn(dir, seen);
    journal.save({ ...EMPTY_RECORD, latchId: 1 }, 'LATCHED', { reason: 'one' });
    await journal.flush();
    t.equal(seen.failed.length, 1);
    t.equal(journal.reportable(0).length, 1);
    rmSync(dir);
    await new Promise<void>((resolve) => {
      const look = setInterval(() => {
        if (seen.stored.length === 0) return;
        clearInterval(look);
        resolve();
      }, 5);
    });
    t.same(readdirSync(dir), ['latch-a']);
    journal.close();
  });

  t.test('the ring is bounded and counts what gave way', async (t) => {
    const dir = folder(t);
    await commissionLatchStore(dir);
    const journal = await journalIn(dir, events());
    for (let i = 0; i < TRANSITIONS_MAX + 10; i++) journal.save(EMPTY_RECORD, 'BOOT', { reason: String(i) });
    await journal.flush();
    t.equal(journal.reportable(0).length, TRANSITIONS_MAX);
    t.equal(journal.dropped, 10);
    t.equal(journal.reportable(0).at(-1)?.reason, String(TRANSITIONS_MAX + 9));
  });
});
