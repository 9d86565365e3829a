import { spawnSync } from 'node:child_process';
import { copyFileSync, openSync, readdirSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { outrider } from '@outrider/shared/messages';
import Database from 'better-sqlite3';
import t from 'tap';
import { LANES } from '../src/outbox/records.ts';
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

const WORKER = fileURLToPath(new URL('./outbox-worker.js', import.meta.url));
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

t.test('what goes in comes out with the bits it had, in blocks, under positions without a hole', async (t) => {
  const outbox = openOutbox(t.testdir());
  const [a, b] = [jointLayout('a'), jointLayout('b', 30)];
  const given = Array.from({ length: 250 }, (_, i) => [sampleOf(a, i), sampleOf(b, i)]).flat();
  for (const sample of given) outbox.appendSample(sample);
  outbox.appendState('agent', { version: 1 });
  outbox.appendState('agent', { version: 2 });
  await outbox.appendEvent(eventOf(1));
  await Promise.all([outbox.appendEvent(eventOf(2)), outbox.appendEvent(eventOf(2))]);
  outbox.flush();
  const telemetry = readLane(outbox, 'telemetry');
  t.equal(brokenAt(telemetry, 1), undefined);
  t.same(
    telemetry.map(({ samples }) => samples),
    [100, 100, 100, 100, 50, 50],
  );
  for (const stream of ['a', 'b'])
    t.same(
      samplesIn(telemetry).filter((sample) => sample.layout.stream === stream),
      given.filter((sample) => sample.layout.stream === stream),
    );
  t.equal(readLane(outbox, 'event').length, 2, 'an event reported twice is one event');
  const states = readLane(outbox, 'state').map(({ body }) => outrider.v1.StateRecord.decode(body).valueJson);
  t.same(states, ['{"version":2}'], 'only the newest value of a key is written');
  t.same(outbox.stats().samplesCommitted, 500);
  outbox.close();
  outbox.close();
});

t.test('a change of the layout ends the block; a sample of the wrong shape is counted, not stored', (t) => {
  const outbox = openOutbox(t.testdir());
  const names = [jointLayout('a'), { ...jointLayout('a'), names: ['q1', 'q2', 'q3'] }, jointLayout('a', 2)];
  names.forEach((layout, i) => {
    outbox.appendSample(sampleOf(layout, i));
  });
  outbox.appendSample({ ...sampleOf(jointLayout('a'), 9), values: new Float64Array(4) });
  outbox.flush();
  t.equal(readLane(outbox, 'telemetry').length, 3);
  t.equal(outbox.stats().samplesRefused, 1);
  outbox.close();
  t.end();
});

t.test('long texts end a block before it is too large for one message', (t) => {
  const outbox = openOutbox(t.testdir());
  const random = seeded(7);
  const text = (): string => Array.from({ length: 60_000 }, () => String.fromCharCode(32 + random() * 90)).join('');
  for (let i = 0; i < 20; i += 1) outbox.appendSample({ ...sampleOf(jointLayout('/diagnostics'), i), text: text() });
  outbox.flush();
  const records = readLane(outbox, 'telemetry');
  t.equal(sum(records.map(({ samples }) => samples)), 20);
  t.ok(records.every(({ body }) => body.length < 700_000));
  outbox.close();
  t.end();
});

t.test('a live block closes after the flush interval, later while the link is down', async (t) => {
  const clock = new StepClock();
  const outbox = openOutbox(t.testdir(), {
    clock,
    flushIntervalMs: 250,
    flushIntervalOfflineMs: 1000,
    commitIntervalMs: 1,
  });
  const stop = new AbortController();
  const running = outbox.run(stop.signal);
  const committed = (): Promise<void> => new Promise((resolve) => outbox.onCommit(resolve));
  outbox.setLive(true);
  outbox.appendSample(sampleOf(jointLayout('a'), 0));
  outbox.appendSample(sampleOf(jointLayout('b'), 0));
  clock.nowMs += 249;
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.equal(outbox.stats().samplesCommitted, 0);
  const first = committed();
  clock.nowMs += 1;
  await first;
  t.equal(outbox.stats().samplesCommitted, 2, 'all streams together');
  outbox.setLive(false);
  outbox.appendSample(sampleOf(jointLayout('a'), 1));
  clock.nowMs += 999;
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.equal(outbox.stats().samplesCommitted, 2);
  const second = committed();
  clock.nowMs += 1;
  await second;
  t.equal(outbox.stats().samplesCommitted, 3);
  stop.abort();
  await running;
});

t.test(
  'only an acknowledgement of this epoch and of positions that exist deletes; positions never return',
  async (t) => {
    const dir = t.testdir();
    let outbox = openOutbox(dir);
    for (let n = 1; n <= 5; n += 1) await outbox.appendEvent(eventOf(n));
    const { epoch } = outbox;
    t.notOk(outbox.acknowledge({ epoch: '0123456789abcdef', lane: 'event', upto: 5 }));
    t.notOk(outbox.acknowledge({ epoch, lane: 'event', upto: 6 }));
    t.notOk(outbox.acknowledge({ epoch, lane: 'telemetry', upto: 1 }));
    t.ok(outbox.acknowledge({ epoch, lane: 'event', upto: 3 }));
    t.ok(outbox.acknowledge({ epoch, lane: 'event', upto: 2 }), 'an old one changes nothing');
    outbox.flush();
    t.same(
      readLane(outbox, 'event', 3).map(({ seq }) => seq),
      [4, 5],
    );
    t.equal(outbox.oldestSeq('event'), 4);
    outbox.acknowledge({ epoch, lane: 'event', upto: 5 });
    outbox.flush();
    t.ok(outbox.isDrained());
    t.equal(outbox.oldestSeq('event'), 6);
    outbox.close();
    outbox = openOutbox(dir);
    t.equal(outbox.epoch, epoch, 'the epoch outlives a restart');
    await outbox.appendEvent(eventOf(6));
    t.same(
      readLane(outbox, 'event', 5).map(({ seq }) => seq),
      [6],
    );
    await outbox.appendEvent(eventOf(6));
    t.equal(outbox.maxSeq('event'), 6, 'an event that was delivered is not stored again');
    outbox.close();
  },
);

t.test('what a batch had no room for is not read twice, and never comes as it was before it changed', (t) => {
  const outbox = openOutbox(t.testdir());
  for (let i = 0; i < 400; i += 1) outbox.appendSample(sampleOf(jointLayout('a'), i));
  outbox.flush();
  const one = (after: number): { seq: number; isGap: boolean } | undefined => {
    const [record] = outbox.next('telemetry', after, 1);
    return record && { seq: record.seq, isGap: record.kind === outrider.v1.BodyKind.BODY_GAP };
  };
  t.same(
    [one(0), one(1)],
    [1, 2].map((seq) => ({ seq, isGap: false })),
  );
  outbox.refuseRecord('telemetry', 3);
  t.same(one(2), { seq: 3, isGap: true }, 'refused meanwhile');
  t.same(
    [one(0), one(0)],
    [1, 1].map((seq) => ({ seq, isGap: false })),
    'back to the beginning',
  );
  t.equal(outbox.acknowledge({ epoch: outbox.epoch, lane: 'telemetry', upto: 2 }), true);
  outbox.flush();
  t.same(one(2), { seq: 3, isGap: true });
  t.ok(outbox.startEpoch('test'));
  t.same([one(0), one(1), one(2)], [{ seq: 1, isGap: true }, { seq: 2, isGap: false }, undefined]);
  outbox.close();
  t.end();
});

t.test('a new epoch starts at position 1 with the oldest record, gaps included, and is kept', async (t) => {
  const dir = t.testdir();
  let outbox = openOutbox(dir);
  for (let n = 1; n <= 6; n += 1) await outbox.appendEvent(eventOf(n));
  outbox.acknowledge({ epoch: outbox.epoch, lane: 'event', upto: 4 });
  outbox.flush();
  outbox.refuseRecord('event', 5);
  const before = outbox.epoch;
  t.ok(outbox.startEpoch('rolled_back'));
  t.not(outbox.epoch, before);
  outbox.close();
  outbox = openOutbox(dir);
  await outbox.appendEvent(eventOf(7));
  const records = readLane(outbox, 'event');
  t.same(
    records.map(({ seq, seqTo }) => [seq, seqTo]),
    [
      [1, 1],
      [2, 0],
      [3, 0],
    ],
  );
  t.match(gapsIn(records), [{ reason: 'refused', records: 1 }]);
  t.equal(outbox.maxSeq('event'), 3);
  t.equal(outbox.maxSeq('telemetry'), 0);
  outbox.close();
});

t.test('a second agent on the same state directory is refused', (t) => {
  const dir = t.testdir();
  const outbox = openOutbox(dir);
  t.throws(() => openOutbox(dir), { code: 'already_exists', message: /in use by another agent/ });
  outbox.close();
  openOutbox(dir).close();
  t.end();
});

const straceMissing =
  spawnSync('strace', ['-c', 'true']).status === 0 ? false : 'strace is not installed or may not trace here';

t.test('a commit is on the disk: fsync per event, once per group of samples', { skip: straceMissing }, (t) => {
  const dir = t.testdir();
  const log = join(dir, 'trace');
  const args = [
    '-f',
    '-o',
    log,
    '-e',
    'trace=fsync,fdatasync,write',
    process.execPath,
    WORKER,
    join(dir, 'state'),
    '20',
    '300',
  ];
  spawnSync('strace', args);
  const trace = readFileSync(log, 'utf8');
  const part = (from: string, to: string): number =>
    trace.slice(trace.indexOf(`"${from}\\n"`), trace.indexOf(`"${to}\\n"`)).match(/\b(fsync|fdatasync)\(/g)?.length ??
    0;
  t.ok(part('opened', 'events') >= 20, `${part('opened', 'events')} fsyncs for 20 events`);
  t.ok(part('events', 'samples') >= 1 && part('events', 'samples') <= 6, `${part('events', 'samples')} for a group`);
  const outbox = openOutbox(join(dir, 'state'));
  t.equal(readLane(outbox, 'event').length, 20, 'all of it survives SIGKILL');
  t.equal(samplesIn(readLane(outbox, 'telemetry')).length, 300);
  outbox.close();
  t.end();
});

t.test('a full outbox drops the oldest telemetry, says so in gaps, and keeps every event', async (t) => {
  const dir = t.testdir();
  const sizeMaxBytes = 1024 * 1024;
  const outbox = openOutbox(dir, { sizeMaxBytes });
  const layout = jointLayout('a', 30);
  for (let i = 0; i < 6000; i += 1) {
    outbox.appendSample(sampleOf(layout, i));
    if (i % 100 === 99) outbox.flush();
    if (i % 300 === 0) await outbox.appendEvent(eventOf(i));
  }
  outbox.flush();
  const records = readLane(outbox, 'telemetry');
  const gaps = gapsIn(records);
  t.equal(brokenAt(records, 1), undefined, 'the lane has no hole');
  t.equal(gaps.length, 1, 'neighbouring gaps are one');
  t.equal(gaps[0]?.reason, 'evicted');
  t.ok((gaps[0]?.samples ?? 0) > 1000);
  t.equal(samplesIn(records).length + (gaps[0]?.samples ?? 0), 6000, 'what is lost is counted');
  t.equal(outbox.stats().samplesDropped, gaps[0]?.samples);
  t.equal(readLane(outbox, 'event').length, 20);
  t.ok(outbox.stats().fill <= 0.9, `${outbox.stats().fill}`);
  t.ok(statSync(join(dir, 'outbox.db')).size <= sizeMaxBytes);
  outbox.close();
});

t.test('what may have been sent is dropped one by one, what is in flight not at all', (t) => {
  const outbox = openOutbox(t.testdir(), { sizeMaxBytes: 1024 * 1024 });
  const layout = jointLayout('a', 30);
  let index = 0;
  const fillBlocks = (count: number): void => {
    for (let i = 0; i < count * 10; i += 1) {
      outbox.appendSample(sampleOf(layout, index));
      index += 1;
      if (index % 10 === 0) outbox.flush();
    }
  };
  fillBlocks(8);
  outbox.setInFlight('telemetry', 6);
  fillBlocks(200);
  const inFlight = readLane(outbox, 'telemetry').slice(0, 6);
  t.equal(gapsIn(inFlight).length, 0);
  outbox.setInFlight('telemetry', 0);
  fillBlocks(60);
  const gaps = gapsIn(readLane(outbox, 'telemetry'));
  t.same(
    gaps.slice(0, 6).map(({ seq, seqTo }) => [seq, seqTo]),
    [1, 2, 3, 4, 5, 6].map((seq) => [seq, seq]),
  );
  t.ok((gaps[6]?.seqTo ?? 0) > 7, 'beyond that, gaps merge');
  // The cloud turns out to have more than was known: a gap keeps only what lies beyond.
  const upto = 10;
  const last = gaps[6];
  outbox.acknowledge({ epoch: outbox.epoch, lane: 'telemetry', upto });
  outbox.flush();
  const rest = readLane(outbox, 'telemetry', upto);
  t.equal(brokenAt(rest, upto + 1), undefined);
  t.match(gapsIn(rest)[0], { seq: upto + 1, seqTo: last?.seqTo, records: (last?.seqTo ?? 0) - upto });
  outbox.close();
  t.end();
});

t.test('when not even an event fits, events wait in memory and telemetry is counted until there is room', async (t) => {
  const outbox = openOutbox(t.testdir(), { sizeMaxBytes: 256 * 1024 });
  const payload = { note: 'x'.repeat(8000) };
  const stored: Promise<void>[] = [];
  let kept = 0;
  for (let n = 0; n < 60; n += 1) {
    const done = outbox.appendEvent({ ...eventOf(n), payload }).then(() => {
      kept += 1;
    });
    stored.push(done);
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  }
  t.ok(outbox.stats().isFull);
  t.ok(outbox.stats().eventsInMemory > 10);
  const onDisk = outbox.maxSeq('event');
  t.equal(kept, onDisk, 'only what is on disk is reported as such');
  t.equal(onDisk + outbox.stats().eventsInMemory, 60);
  for (let i = 0; i < 200; i += 1) outbox.appendSample(sampleOf(jointLayout('a', 30), i));
  outbox.flush();
  t.equal(outbox.stats().samplesCommitted, 0);
  for (let round = 0; round < 50 && !outbox.isDrained(); round += 1) {
    outbox.acknowledge({ epoch: outbox.epoch, lane: 'event', upto: outbox.maxSeq('event') });
    outbox.acknowledge({ epoch: outbox.epoch, lane: 'telemetry', upto: outbox.maxSeq('telemetry') });
    outbox.flush();
  }
  t.ok(outbox.isDrained());
  t.equal(outbox.maxSeq('event'), 60);
  const { samplesCommitted, samplesDropped } = outbox.stats();
  outbox.close();
  await Promise.all(stored);
  t.equal(samplesCommitted + samplesDropped, 200);
});

t.test('a bit that flipped on the disk becomes a gap, and the record goes into quarantine', async (t) => {
  const dir = t.testdir();
  let outbox = openOutbox(dir);
  for (let n = 1; n <= 4; n += 1) await outbox.appendEvent(eventOf(n));
  outbox.close();
  const db = new Database(join(dir, 'outbox.db'));
  const { body } = db.prepare<[], { body: Buffer }>('SELECT body FROM event WHERE seq = 2').get() ?? {
    body: Buffer.alloc(0),
  };
  body[3] = (body[3] ?? 0) ^ 4;
  db.prepare('UPDATE event SET body = ? WHERE seq = 2').run(body);
  db.prepare('DELETE FROM event WHERE seq = 4').run();
  db.prepare("UPDATE sqlite_sequence SET seq = 4 WHERE name = 'event'").run();
  db.close();
  outbox = openOutbox(dir);
  await outbox.appendEvent(eventOf(5));
  const records = readLane(outbox, 'event');
  t.equal(brokenAt(records, 1), undefined);
  t.match(gapsIn(records), [
    { seq: 2, seqTo: 2, reason: 'checksum', records: 1 },
    { seq: 4, seqTo: 4, reason: 'missing', records: 1 },
  ]);
  outbox.close();
  const after = new Database(join(dir, 'outbox.db'), { readonly: true });
  t.same(after.prepare('SELECT lane, seq, reason FROM quarantine').all(), [
    { lane: 'event', seq: 2, reason: 'checksum' },
  ]);
  after.close();
});

t.test('a damaged file is set aside, what can be read is kept in a new epoch, what cannot is a gap', async (t) => {
  const dir = t.testdir();
  const fill = async (): Promise<string> => {
    const outbox = openOutbox(dir);
    for (let i = 0; i < 3000; i += 1) {
      outbox.appendSample(sampleOf(jointLayout('a', 30), i), { source: 'bag', value: i + 1 });
      if (i % 100 === 99) outbox.flush();
    }
    await outbox.appendEvent(eventOf(Math.floor(Math.random() * 1e9)));
    outbox.close();
    // As after a kill: the next start checks the file.
    const db = new Database(join(dir, 'outbox.db'));
    db.prepare("UPDATE meta SET value = '0' WHERE key = 'clean'").run();
    db.close();
    return outbox.epoch;
  };
  const overwrite = (offset: number, bytes: number): void => {
    writeSync(openSync(join(dir, 'outbox.db'), 'r+'), Buffer.alloc(bytes, 0xa5), 0, bytes, offset);
  };
  const first = await fill();
  overwrite(statSync(join(dir, 'outbox.db')).size >> 1, 16_384);
  let outbox = openOutbox(dir);
  t.not(outbox.epoch, first);
  const records = readLane(outbox, 'telemetry');
  t.equal(brokenAt(records, 1), undefined);
  const kept = samplesIn(records).length;
  t.ok(kept > 500 && kept < 3000, `${kept} of 3000 samples kept`);
  t.ok(gapsIn(records).some(({ reason }) => reason === 'corruption' || reason === 'checksum'));
  t.equal(readLane(outbox, 'event').length, 1);
  t.equal(outbox.replayPosition('bag'), 3000);
  t.ok(readdirSync(dir).includes('outbox.db.damaged-1'));
  outbox.close();
  for (const round of [1, 2, 3]) {
    overwrite(0, 4096);
    outbox = openOutbox(dir);
    t.match(
      gapsIn(readLane(outbox, 'telemetry')),
      [{ reason: 'corruption', records: 0 }],
      `header ${round}: nothing can be read`,
    );
    outbox.close();
  }
  t.same(
    readdirSync(dir)
      .filter((name) => /damaged-\d$/.test(name))
      .sort(),
    ['outbox.db.damaged-1', 'outbox.db.damaged-2'],
  );
});

t.test('whenever a recording is interrupted, its position and its samples on disk agree', (t) => {
  const dir = t.testdir({ copy: {} });
  const random = seeded(42);
  const clock = new StepClock();
  const outbox = openOutbox(join(dir, 'state'), { clock });
  const layouts = ['a', 'b', 'c'].map((name) => jointLayout(name));
  let position = 0;
  for (let round = 0; round < 30; round += 1) {
    const steps = Math.floor(random() * 300);
    for (let i = 0; i < steps; i += 1) {
      const layout = layouts[random() < 0.8 ? 0 : random() < 0.5 ? 1 : 2] ?? jointLayout('a');
      position += 1;
      outbox.appendSample(sampleOf(layout, position), { source: 'bag', value: position });
    }
    if (random() < 0.4) outbox.flush();
    // A copy of the files is what a kill would leave.
    for (const name of ['outbox.db', 'outbox.db-wal']) copyFileSync(join(dir, 'state', name), join(dir, 'copy', name));
    const copy = openOutbox(join(dir, 'copy'));
    const samples = samplesIn(readLane(copy, 'telemetry'));
    const indexes = samples.map(({ receivedMonoNs }) => Number(receivedMonoNs / 20_000_000n)).sort((x, y) => x - y);
    const expected = copy.replayPosition('bag') ?? 0;
    if (indexes.length !== expected || indexes.at(-1) !== (expected || undefined))
      t.fail(`position ${expected}, ${indexes.length} samples up to ${indexes.at(-1)}`);
    copy.close();
  }
  t.ok(position > 1000);
  outbox.close();
  t.end();
});

t.test('over random appends, acknowledgements, evictions and restarts every sample is accounted for', async (t) => {
  for (const seed of [1, 2, 3]) {
    const dir = t.testdir();
    const random = seeded(seed);
    let outbox = openOutbox(dir, { sizeMaxBytes: 768 * 1024 });
    const layout = jointLayout('a', 30);
    let given = 0;
    let acked = 0;
    let dropped = 0;
    let cursor = 0;
    for (let step = 0; step < 250; step += 1) {
      const dice = random();
      if (dice < 0.7) {
        const count = 1 + Math.floor(random() * 60);
        for (let i = 0; i < count; i += 1) outbox.appendSample(sampleOf(layout, given + i));
        given += count;
        outbox.flush();
      } else if (dice < 0.8) {
        const records = outbox.next('telemetry', cursor, 40_000);
        const last = records.at(-1);
        if (!last) continue;
        outbox.setInFlight('telemetry', Math.max(last.seq, last.seqTo));
        if (random() < 0.5) {
          acked += samplesIn(records).length;
          dropped += sum(gapsIn(records).map(({ samples }) => samples));
          cursor = Math.max(last.seq, last.seqTo);
          outbox.acknowledge({ epoch: outbox.epoch, lane: 'telemetry', upto: cursor });
        }
        outbox.setInFlight('telemetry', 0);
      } else if (dice < 0.83) {
        outbox.close();
        outbox = openOutbox(dir, { sizeMaxBytes: 768 * 1024 });
      } else await outbox.appendEvent(eventOf(step));
    }
    outbox.flush();
    const rest = readLane(outbox, 'telemetry', cursor);
    const waiting = samplesIn(rest).length;
    const gone = dropped + sum(gapsIn(rest).map(({ samples }) => samples));
    t.equal(brokenAt(rest, cursor + 1), undefined, `seed ${seed}: no hole`);
    t.equal(acked + waiting + gone, given, `seed ${seed}: ${acked} stored + ${waiting} waiting + ${gone} dropped`);
    t.ok(gone > 0 && acked > 0);
    const stats = outbox.stats();
    outbox.close();
    outbox = openOutbox(dir);
    for (const lane of LANES)
      t.same(stats.lanes[lane], outbox.stats().lanes[lane], `seed ${seed}: the counters are right`);
    outbox.close();
  }
});

t.test('a gap that was made over records which the cloud has is cut there, and nothing gets stuck', (t) => {
  const dir = t.testdir();
  const layout = jointLayout('a', 30);
  let outbox = openOutbox(dir, { sizeMaxBytes: 320 * 1024 });
  for (let n = 0; n < 40; n += 1) {
    outbox.appendSample(sampleOf(layout, n));
    outbox.flush();
  }
  // The cloud has 20 of them; the robot is killed before it notes that it sent them, and evicts while it is offline.
  outbox.close();
  outbox = openOutbox(dir, { sizeMaxBytes: 320 * 1024 });
  for (let n = 40; n < 900; n += 1) {
    outbox.appendSample(sampleOf(layout, n));
    outbox.flush();
  }
  const [gap] = outbox.next('telemetry', 0, 0);
  t.ok((gap?.seqTo ?? 0) > 20, `evicted up to ${gap?.seqTo}`);
  t.ok(outbox.acknowledge({ epoch: outbox.epoch, lane: 'telemetry', upto: 20 }));
  const rest = readLane(outbox, 'telemetry', 20);
  t.match(gapsIn(rest)[0], { seq: 21, seqTo: gap?.seqTo, reason: 'evicted' });
  t.equal(brokenAt(rest, 21), undefined);
  outbox.flush();
  t.same(readLane(outbox, 'telemetry', 20), rest);
  t.equal(outbox.oldestSeq('telemetry'), 21);
  outbox.close();
  t.end();
});

t.test('a changed bit in any field of a row, in the epoch, or in a table definition shows and stops nobody', (t) => {
  const written = (outbox: ReturnType<typeof openOutbox>): string[] =>
    LANES.flatMap((lane) =>
      readLane(outbox, lane).map(({ body, bootId }) => `${bootId} ${Buffer.from(body).toString('hex')}`),
    );
  for (const [what, change, mayLose] of [
    ['boot id', "UPDATE telemetry SET boot_id = 'b107' WHERE seq = 3", 1],
    ['time', 'UPDATE telemetry SET from_ms = from_ms + 1 WHERE seq = 3', 1],
    ['position', 'UPDATE telemetry SET seq = 17 WHERE seq = 3', 1],
    ['offset', "INSERT INTO meta VALUES ('offset.telemetry', '2')", 0],
    ['epoch', "UPDATE meta SET value = '0123456789abcdeg' WHERE key = 'epoch'", 0],
    ['definition', 'ALTER TABLE telemetry RENAME COLUMN kind TO kine', 15],
  ] as const) {
    const dir = t.testdir();
    const outbox = openOutbox(dir);
    for (let n = 0; n < 15; n += 1) {
      outbox.appendSample(sampleOf(jointLayout('a'), n));
      outbox.flush();
    }
    const before = written(outbox);
    const { epoch } = outbox;
    outbox.close();
    const db = new Database(join(dir, 'outbox.db'));
    db.exec(change);
    db.close();
    const again = openOutbox(dir);
    t.match(again.epoch, /^[0-9a-f]{16}$/, what);
    const after = readLane(again, 'telemetry').filter(({ seqTo }) => seqTo === 0);
    t.ok(after.length >= before.length - mayLose, `${what}: ${after.length} of ${before.length}`);
    const bodies = written(again).filter((text) => before.includes(text));
    t.equal(bodies.length, after.length, `${what}: nothing that was not written`);
    if (mayLose > 0) t.ok(gapsIn(readLane(again, 'telemetry')).length > 0, `${what}: the loss shows`);
    else t.not(again.epoch, epoch, `${what}: positions start anew`);
    again.appendSample(sampleOf(jointLayout('a'), 99));
    again.flush();
    t.equal(readLane(again, 'telemetry').at(-1)?.samples, 1, `${what}: writing goes on`);
    again.close();
  }
  t.end();
});
