import { closeSync, fdatasyncSync, mkdtempSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Outbox } from '@outrider/edge-agent/outbox/outbox';
import { eventRecord, type OutboxEvent } from '@outrider/edge-agent/outbox/records';
import { createLogger } from '@outrider/shared/log';
import { encodeBlock } from '@outrider/shared/protocol/block';
import { systemClock } from '@outrider/shared/time';
import Database from 'better-sqlite3';
import { alternate, type BenchContext, format, type Row, type RowPlan, spreadOf, wallMs } from './measure.ts';
import { jointSamples, sampleAsJson } from './samples.ts';

const SAMPLES = 100;

/** What the outbox costs against the plain thing it is made of. */
export const OUTBOX_PLANS: readonly RowPlan[] = [
  ...(
    [
      [1, 2],
      [10, 1.5],
      [100, 1.5],
    ] as const
  ).map(
    ([batch, goal]): RowPlan => ({
      name: `durable commit of ${batch} event${batch === 1 ? '' : 's'}`,
      measure: async (context) => [await durableCommit(context, batch, goal)],
    }),
  ),
  { name: 'outbox insert', measure: async (context) => [await insertRate(context)] },
  {
    name: 'bytes per 30-joint sample, stored and sent',
    measure: async (context) => [bytesPerSample(context)],
  },
  { name: 'write amplification of the outbox', measure: async (context) => [await writeAmplification(context)] },
  {
    name: 'backlog drain: read, check, acknowledge, delete',
    measure: async (context) => [await backlogDrain(context)],
  },
];

const openOutbox = (directory: string): Outbox =>
  new Outbox({
    stateDir: mkdtempSync(join(directory, 'outbox-')),
    sizeMaxBytes: 512 * 2 ** 20,
    commitIntervalMs: 50,
    flushIntervalMs: 250,
    flushIntervalOfflineMs: 1000,
    bootId: 'bench',
    log: createLogger('bench', 'silent'),
    clock: systemClock,
  });

let eventNumber = 0;
const event = (payload: unknown): OutboxEvent => ({
  eventId: `evt_bench_${eventNumber++}`,
  type: 'failsafe.transition.v1',
  occurredAtMs: systemClock.epochMs(),
  traceId: 'bench',
  payload,
});

/** Events, as they are committed at once: from the call to the promise that says "on disk". */
async function durableCommit({ directory, pairs }: BenchContext, batch: number, goal: number): Promise<Row> {
  const outbox = openOutbox(directory);
  const payload = { detail: 'x'.repeat(200) };
  const bytes = eventRecord(event(payload)).body;
  const file = openSync(join(directory, `raw-${batch}`), 'a');
  // Enough that each run has its share of checkpoints, as in operation.
  const commits = 300;
  const { ours, theirs, ratio } = await alternate(
    pairs,
    () =>
      wallMs(async () => {
        for (let i = 0; i < commits; i += 1)
          await Promise.all(Array.from({ length: batch }, () => outbox.appendEvent(event(payload))));
      }),
    () =>
      wallMs(() => {
        for (let i = 0; i < commits; i += 1) {
          for (let record = 0; record < batch; record += 1) writeSync(file, bytes);
          fdatasyncSync(file);
        }
      }),
  );
  closeSync(file);
  outbox.close();
  const perCommit = (values: number[]): string => `${format(spreadOf(values).median / commits)} ms`;
  return {
    name: `durable commit of ${batch} event${batch === 1 ? '' : 's'}`,
    peer: 'raw write + fdatasync of the same bytes',
    goal: `≤ ${goal}×`,
    ours: perCommit(ours),
    theirs: perCommit(theirs),
    ratio,
    met: ratio.median <= goal,
  };
}

/** The same records in transactions of 200: the outbox's table, CRC and bookkeeping against a bare insert loop. */
async function insertRate({ directory, pairs }: BenchContext): Promise<Row> {
  const outbox = openOutbox(directory);
  const payload = { detail: 'x'.repeat(1000) };
  const bare = new Database(join(directory, 'bare.db'));
  bare.pragma('journal_mode = WAL');
  bare.pragma('synchronous = FULL');
  bare.exec(`create table record (seq integer primary key autoincrement, seq_to int, crc int, boot text, kind int,
    samples int, from_ms real, to_ms real, written_ms real default (unixepoch('subsec') * 1000), thinned int, body blob)`);
  const insert = bare.prepare(
    'insert into record (seq_to, crc, boot, kind, samples, from_ms, to_ms, thinned, body) values (?, ?, ?, ?, ?, ?, ?, ?, ?)',
  );
  const { crc, kind, body, fromMs, toMs } = eventRecord(event(payload));
  const transactions = 40;
  const rows = 200;
  const rate = (ms: number): number => (transactions * rows * 1000) / ms;
  const { ours, theirs, ratio } = await alternate(
    pairs,
    async () =>
      rate(
        await wallMs(async () => {
          for (let i = 0; i < transactions; i += 1)
            await Promise.all(Array.from({ length: rows }, () => outbox.appendEvent(event(payload))));
        }),
      ),
    async () =>
      rate(
        await wallMs(() => {
          for (let i = 0; i < transactions; i += 1)
            bare.transaction(() => {
              for (let row = 0; row < rows; row += 1) insert.run(0, crc, 'bench', kind, 1, fromMs, toMs, 0, body);
            })();
        }),
      ),
  );
  bare.close();
  outbox.close();
  return {
    name: 'outbox insert',
    peer: 'bare better-sqlite3 loop, same rows, same durability',
    goal: '≥ 0.6',
    ours: `${format(spreadOf(ours).median)} rows/s`,
    theirs: `${format(spreadOf(theirs).median)} rows/s`,
    ratio,
    met: ratio.median >= 0.6,
  };
}

function bytesPerSample({ pairs }: BenchContext): Row {
  const runs = Array.from({ length: pairs }, (_, seed) => {
    const samples = jointSamples(SAMPLES, seed + 1);
    const packed = encodeBlock(samples).length / SAMPLES;
    const json = samples.reduce((sum, sample) => sum + sampleAsJson(sample).length, 0) / SAMPLES;
    return { packed, json };
  });
  const ratio = spreadOf(runs.map(({ packed, json }) => packed / json));
  return {
    name: 'bytes per 30-joint sample, stored and sent',
    peer: 'JSON',
    goal: '≤ 0.15, lossless',
    ours: `${format(spreadOf(runs.map((run) => run.packed)).median)} B`,
    theirs: `${format(spreadOf(runs.map((run) => run.json)).median)} B`,
    ratio,
    met: ratio.median <= 0.15,
  };
}

/** Bytes that reach the disk for each byte of blocks, by the kernel's own count for this process. */
async function writeAmplification({ directory, pairs }: BenchContext): Promise<Row> {
  const written = (): number => Number(/^write_bytes: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);
  const runs: { disk: number; payload: number }[] = [];
  for (let run = 0; run < pairs; run += 1) {
    const outbox = openOutbox(directory);
    const from = written();
    let payload = 0;
    // 20 s of a robot at 50 Hz with a link that is down: the default flush gives blocks of 50 samples, each commit one.
    for (let second = 0; second < 20; second += 1) {
      const samples = jointSamples(50, 100 * run + second + 1);
      payload += encodeBlock(samples).length;
      for (const sample of samples) outbox.appendSample(sample);
      outbox.flush();
    }
    outbox.close();
    runs.push({ disk: written() - from, payload });
  }
  const ratio = spreadOf(runs.map(({ disk, payload }) => disk / payload));
  return {
    name: 'write amplification of the outbox',
    peer: 'bytes of payload',
    goal: '≤ 4×',
    ours: `${format(spreadOf(runs.map((run) => run.disk)).median / 1024)} KiB`,
    theirs: `${format(spreadOf(runs.map((run) => run.payload)).median / 1024)} KiB`,
    ratio,
    met: ratio.median <= 4,
  };
}

/** Reads and acknowledges a backlog, against a bare read of the same rows and a bare delete behind a cursor. */
async function backlogDrain({ directory, pairs }: BenchContext): Promise<Row> {
  const blocks = 1500;
  const body = encodeBlock(jointSamples(SAMPLES));
  const bytesMax = 256 * 1024;
  const samples = jointSamples(SAMPLES);
  const ours = (): Promise<number> => {
    const outbox = openOutbox(directory);
    for (let i = 0; i < blocks; i += 1) for (const sample of samples) outbox.appendSample(sample);
    outbox.flush();
    return wallMs(() => {
      for (let after = 0; ; ) {
        const records = outbox.next('telemetry', after, bytesMax);
        const last = records.at(-1);
        if (!last) break;
        after = last.seqTo || last.seq;
        outbox.acknowledge({ epoch: outbox.epoch, lane: 'telemetry', upto: after });
        if (after >= outbox.maxSeq('telemetry')) break;
      }
      outbox.flush();
    }).finally(() => outbox.close());
  };
  const theirs = (): Promise<number> => {
    const bare = new Database(join(mkdtempSync(join(directory, 'bare-')), 'bare.db'));
    bare.pragma('journal_mode = WAL');
    bare.pragma('synchronous = FULL');
    bare.exec('create table record (seq integer primary key autoincrement, body blob)');
    const insert = bare.prepare('insert into record (body) values (?)');
    bare.transaction(() => {
      for (let i = 0; i < blocks; i += 1) insert.run(body);
    })();
    const rowsPerBatch = Math.ceil(bytesMax / body.length);
    const read = bare.prepare<[number, number], { seq: number }>(
      'select * from record where seq > ? order by seq limit ?',
    );
    return wallMs(() => {
      let after = 0;
      for (;;) {
        const last = read.all(after, rowsPerBatch).at(-1);
        if (!last) break;
        after = last.seq;
      }
      for (let upto = 200; upto < after + 200; upto += 200) bare.prepare('delete from record where seq <= ?').run(upto);
    }).finally(() => bare.close());
  };
  const { ours: a, theirs: b, ratio } = await alternate(pairs, ours, theirs);
  const speed = spreadOf(a.map((value, i) => (b[i] as number) / value));
  const rate = (values: number[]): string => `${format((blocks * SAMPLES * 1000) / spreadOf(values).median)} samples/s`;
  return {
    name: 'backlog drain: read, check, acknowledge, delete',
    peer: 'bare read + cursor of the same rows',
    goal: '≥ 0.5',
    ours: rate(a),
    theirs: rate(b),
    ratio: { ...speed, runs: ratio.runs },
    met: speed.median >= 0.5,
  };
}
