import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { SAMPLE_FLAGS, valueCount } from '@outrider/shared/telemetry';
import fc from 'fast-check';
import t from 'tap';
import { csvMappingSchema } from '../src/sources/options.ts';
import type { ReplayOptions } from '../src/sources/replay.ts';
import { lz4Stored, mcapBytes, motion, writeDb3 } from './replay-files.ts';
import { replayAll } from './replay-recordings.ts';

const SAMPLES_MAX = 10_000;

/** Replays what may be anything: the only ways out are samples and a DomainError. */
async function survives(options: ReplayOptions): Promise<boolean> {
  let given = 0;
  try {
    await replayAll(options, {
      emit: (sample) => {
        given += 1;
        if (given > SAMPLES_MAX) throw new Error('more samples than a file of this size can hold');
        if (sample.values.length !== valueCount(sample.layout)) throw new Error('values do not fit the layout');
        for (const ns of [sample.stampNs, sample.receivedNs, sample.receivedMonoNs])
          if (BigInt.asIntN(64, ns) !== ns) throw new Error(`${ns} ns do not fit a record`);
        if (sample.text !== undefined && Buffer.from(sample.text).toString() !== sample.text)
          throw new Error('half a character');
        if (sample.text?.includes('\0')) throw new Error('a text that no database takes');
        if ((sample.flags & SAMPLE_FLAGS.replayed) === 0) throw new Error('not flagged as replayed');
      },
    });
    return true;
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    return false;
  }
}

/** Bytes changed, some cut from the end. */
const damage = fc.record({
  edits: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }),
  cut: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(3000)),
});

function damaged(whole: Buffer, { edits, cut }: { edits: [number, number][]; cut: number }): Buffer {
  const bytes = Buffer.from(whole.subarray(0, Math.max(20, whole.length - cut)));
  for (const [at, value] of edits) bytes[16 + (at % (bytes.length - 16))] = value; // The first 16 say what file it is.
  return bytes;
}

t.test('damaged MCAP files end in samples or a clear error', async (t) => {
  const file = join(t.testdir(), 'bag.mcap');
  const wholes = await Promise.all([
    mcapBytes(motion(20)),
    mcapBytes(motion(20), { compressChunk: (data) => ({ compression: 'lz4', compressedData: lz4Stored(data) }) }),
    mcapBytes(motion(20), { useChunks: false }),
    mcapBytes(motion(20), { useMessageIndex: false, useChunkIndex: false }),
  ]);
  const outcomes = { whole: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...wholes), damage, async (whole, change) => {
      writeFileSync(file, damaged(whole, change));
      outcomes[(await survives({ file })) ? 'whole' : 'refused'] += 1;
    }),
    { numRuns: 400 },
  );
  t.ok(outcomes.whole > 10 && outcomes.refused > 10, `both happened: ${JSON.stringify(outcomes)}`);
});

t.test('damaged databases end in samples or a clear error', async (t) => {
  const dir = t.testdir();
  const file = join(dir, 'bag.db3');
  const wholes = (['delete', 'wal'] as const).map((mode) => {
    const path = join(dir, `${mode}.db3`);
    writeDb3(path, motion(60), mode).close();
    return readFileSync(path);
  });
  const outcomes = { whole: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...wholes), damage, async (whole, change) => {
      writeFileSync(file, damaged(whole, change));
      outcomes[(await survives({ file })) ? 'whole' : 'refused'] += 1;
    }),
    { numRuns: 150 },
  );
  t.ok(outcomes.whole > 5 && outcomes.refused > 5, `both happened: ${JSON.stringify(outcomes)}`);
});

t.test('a database whose columns hold other types than they say ends in samples or a clear error', async (t) => {
  const dir = t.testdir();
  const values = ['NULL', "'soon'", '1.5', "x'00'", '12'];
  for (const [column, value] of ['timestamp', 'data', 'topic_id'].flatMap((name) =>
    values.map((v) => [name, v] as const),
  )) {
    const file = join(dir, 'types.db3');
    rmSync(file, { force: true });
    const database = writeDb3(file, motion(30), 'delete');
    database.exec(`UPDATE messages SET ${column} = ${value} WHERE id = 20`);
    database.close();
    const isWhole = await survives({ file });
    t.equal(isWhole, column !== 'timestamp' || value === '12', `${column} = ${value}`);
  }
});

t.test('any text is a CSV that ends in samples or a clear error', async (t) => {
  const file = join(t.testdir(), 'any.csv');
  const columns = csvMappingSchema.parse({
    time: { column: 1, unit: 's' },
    header: false,
    streams: [
      { stream: 'a', kind: 'joint_state', fields: { position: [1, { column: 2, unit: 'deg' }] } },
      { stream: 'b', kind: 'temperature', fields: { temperature: [2] } },
    ],
  });
  const cell = fc.oneof(
    fc.double().map(String),
    fc.constantFrom(
      '9999999999999999999',
      '-1e300',
      '1700000000.123456',
      '',
      'NaN',
      '-inf',
      '1e999',
      '9'.repeat(400),
      '"a,b"',
      '"',
      '\0',
      '٣',
      '0x10',
      '1,5',
    ),
    fc.string({ unit: 'binary', maxLength: 12 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(cell, { maxLength: 4 }), { maxLength: 12 }), async (rows) => {
      writeFileSync(file, rows.map((row) => row.join(',')).join('\n'));
      await survives({ file, columns });
    }),
    { numRuns: 400 },
  );
  t.pass('400 files');
});
