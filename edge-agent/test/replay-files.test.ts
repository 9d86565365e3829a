import { copyFileSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { createLogger } from '@outrider/shared/log';
import { type Sample, sampleFlagNames } from '@outrider/shared/telemetry';
import { systemClock } from '@outrider/shared/time';
import fc from 'fast-check';
import t from 'tap';
import { decompressLz4 } from '../src/sources/lz4.ts';
import { csvMappingSchema, replayTopicSchema } from '../src/sources/options.ts';
import { ReplaySource, replayFingerprint } from '../src/sources/replay.ts';
import type { SourceStatus } from '../src/sources/source.ts';
import { jointState, lz4Stored, mcapBytes, motion, writeDb3, writeMcap } from './replay-files.ts';
import { refusal, replayAll } from './replay-recordings.ts';

/** All of a sample but its monotonic time, which is new in each run. */
const essence = ({ receivedMonoNs: _, layout, values, ...rest }: Sample): unknown => ({
  ...rest,
  layout: { ...layout },
  values: [...values],
});
const essences = (samples: readonly Sample[]): unknown[] => samples.map(essence);

t.test('every way to write the same messages gives the same samples', async (t) => {
  const dir = t.testdir();
  const messages = motion(40);
  const variants = {
    'indexed.mcap': await mcapBytes(messages),
    'lz4.mcap': await mcapBytes(messages, {
      compressChunk: (data) => ({ compression: 'lz4', compressedData: lz4Stored(data) }),
    }),
    'no-index.mcap': await mcapBytes(messages, { useMessageIndex: false, useChunkIndex: false }),
    'no-statistics.mcap': await mcapBytes(messages, { useStatistics: false }),
    'no-channels-in-summary.mcap': await mcapBytes(messages, { repeatChannels: false, repeatSchemas: false }),
    'no-chunks.mcap': await mcapBytes(messages, { useChunks: false }),
  };
  const files = Object.entries(variants).map(([name, bytes]) => {
    writeFileSync(join(dir, name), bytes);
    return join(dir, name);
  });
  writeDb3(join(dir, 'delete.db3'), messages, 'delete').close();
  writeDb3(join(dir, 'wal.db3'), messages, 'wal').close();
  const [first, ...others] = await Promise.all(
    [...files, join(dir, 'delete.db3'), join(dir, 'wal.db3')].map((file) => replayAll({ file })),
  );
  t.equal(first?.samples.length, 40);
  t.strictSame(sampleFlagNames(first?.samples[25]?.flags ?? 0), ['stampBackwards', 'replayed']);
  t.ok(sampleFlagNames(first?.samples[10]?.flags ?? 0).includes('jump'));
  t.equal(first?.samples[0]?.layout, first?.samples[39]?.layout, 'one layout object');
  for (const [i, { samples }] of others.entries())
    t.strictSame(essences(samples), essences(first?.samples ?? []), basename(files[i + 1] ?? 'db3'));
});

t.test('an indexed file plays by log time, even when its chunks overlap', async (t) => {
  const messages = [3, 1, 2, 6, 5, 4].map((i) => ({
    topic: `/j${i % 2}`,
    logMs: i * 1000,
    payload: jointState(i, i * 1000),
  }));
  const file = await writeMcap(join(t.testdir(), 'mixed.mcap'), messages, { chunkSize: 100 });
  const { samples } = await replayAll({ file });
  t.strictSame(
    samples.map((sample) => sample.values[0]),
    [1, 2, 3, 4, 5, 6],
  );
});

t.test('the real LZ4 tool is understood, and damage to its output never runs over', async (t) => {
  const plain = Buffer.concat([
    Buffer.from('abc'.repeat(50) + 'x'.repeat(300)),
    Buffer.from(Uint8Array.from({ length: 256 }, (_, i) => i)),
    Buffer.from('the quick brown fox '.repeat(20) + 'abc'.repeat(50)),
  ]);
  const packed = Buffer.from(
    'BCJNGGBAgjIBAAA/YWJjAwCAH3gBAP8Z//8GAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNE' +
      'RUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaan' +
      'qKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v8PHy8/T19vf4+fr7/P3+/3RoZSBxdWljayBi' +
      'cm93biBmb3ggFAD/ag9PBH5QYmNhYmMAAAAA',
    'base64',
  );
  t.strictSame(decompressLz4(packed, plain.length), plain);
  t.throws(() => decompressLz4(packed, plain.length + 1), { code: 'invalid' });
  t.throws(() => decompressLz4(packed, plain.length - 1), { code: 'invalid' });
  fc.assert(
    fc.property(fc.nat(packed.length - 1), fc.nat(255), fc.nat(packed.length), (at, byte, end) => {
      const broken = Buffer.from(packed.subarray(0, end));
      if (at < broken.length) broken[at] = byte;
      try {
        if (decompressLz4(broken, plain.length).length !== plain.length) throw new Error('wrong length');
      } catch (error) {
        if (!(error instanceof DomainError)) throw error;
      }
    }),
    { numRuns: 3_000 },
  );
});

t.test('a file that breaks off gives all whole records before, wherever that is', async (t) => {
  const dir = t.testdir();
  const whole = await mcapBytes(motion(40));
  writeFileSync(join(dir, 'whole.mcap'), whole);
  const expected = essences((await replayAll({ file: join(dir, 'whole.mcap') })).samples);
  const counts = new Set<number>();
  for (let bytes = whole.length - 1; bytes > 500; bytes -= 97) {
    const file = join(dir, 'cut.mcap');
    writeFileSync(file, whole.subarray(0, bytes));
    const { samples, statuses } = await replayAll({ file });
    counts.add(samples.length);
    if (JSON.stringify(essences(samples), bigints) !== JSON.stringify(expected.slice(0, samples.length), bigints))
      t.fail(`other samples at ${bytes} bytes`);
    if (statuses.at(-1)?.code !== 'recording_truncated') t.fail(`not said at ${bytes} bytes`);
  }
  t.ok(counts.size > 3 && counts.has(40), `cuts left ${[...counts]} samples`);
  truncateSync(join(dir, 'cut.mcap'), 60);
  await refusal(t, { file: join(dir, 'cut.mcap') }, /no topic that becomes telemetry.*none at all/);
});

const bigints = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value);

t.test('damage inside is said, after the samples before it were given', async (t) => {
  const dir = t.testdir();
  const bytes = await mcapBytes(motion(40));
  const file = join(dir, 'flipped.mcap');
  const at = bytes.lastIndexOf(Buffer.from(jointState(0.39, 1_000_000 + 39 * 40).subarray(36, 44)));
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  const samples: Sample[] = [];
  await t.rejects(replayAll({ file }, { emit: (sample) => void samples.push(sample) }), {
    message: /flipped\.mcap is damaged inside.*CRC/,
  });
  t.ok(samples.length > 10 && samples.length < 40);
  const database = join(dir, 'torn.db3');
  writeDb3(database, motion(400), 'delete').close();
  truncateSync(database, readFileSync(database).length / 2);
  await refusal(t, { file: database }, /torn\.db3 .*(damaged|cannot be read)/);
});

t.test('going on behind a position gives exactly the rest, flags included', async (t) => {
  const dir = t.testdir();
  const file = await writeMcap(join(dir, 'bag.mcap'), motion(40));
  const whole = await replayAll({ file });
  for (const startAfter of [1, 10, 25, 26, 39, 40]) {
    const rest = await replayAll({ file, startAfter });
    t.strictSame(essences(rest.samples), essences(whole.samples.slice(startAfter)), `behind ${startAfter}`);
    t.strictSame(rest.positions, whole.positions.slice(startAfter));
    t.match(rest.statuses.at(-1), { state: 'finished', progress: { percent: 100, samples: 40 } });
  }
  const mapping = { file, topics: [replayTopicSchema.parse({ topic: '/joints', rate_hz: 25 })] };
  t.equal(await replayFingerprint({ file }), await replayFingerprint({ file }));
  t.not(await replayFingerprint({ file }), await replayFingerprint(mapping), 'another mapping, other positions');
  copyFileSync(file, join(dir, 'other.mcap'));
  truncateSync(join(dir, 'other.mcap'), 800);
  t.not(await replayFingerprint({ file }), await replayFingerprint({ file: join(dir, 'other.mcap') }));
});

t.test('topics are restricted, renamed and given their rates; what is not there is named', async (t) => {
  const dir = t.testdir();
  const file = await writeMcap(join(dir, 'bag.mcap'), [
    ...motion(3),
    { topic: '/other', logMs: 1_000_200, payload: jointState(1, 1) },
    { topic: '/scan', type: 'sensor_msgs/msg/LaserScan', logMs: 1_000_300, payload: new Uint8Array(8) },
  ]);
  const topic = (settings: object): ReturnType<typeof replayTopicSchema.parse> => replayTopicSchema.parse(settings);
  const { samples } = await replayAll({ file, topics: [topic({ topic: '/joints', stream: 'arm', rate_hz: 25 })] });
  t.match(samples, [{ layout: { stream: 'arm', declaredRateHz: 25 } }, {}, {}]);
  t.equal((await replayAll({ file })).samples.length, 4, 'all of the known types by default');
  await refusal(
    t,
    { file, topics: [topic({ topic: '/arm' })] },
    /has no topic \/arm; it has \/joints \(sensor_msgs\/msg\/JointState\), \/other/,
  );
  await refusal(
    t,
    { file, topics: [topic({ topic: '/scan' })] },
    /has sensor_msgs\/msg\/LaserScan in cdr on \/scan, not sensor_msgs/,
  );
  await refusal(
    t,
    { file, topics: [topic({ topic: '/joints', type: 'sensor_msgs/Imu' })] },
    /not sensor_msgs\/msg\/Imu/,
  );
  const nameless = await writeMcap(join(dir, 'nul.mcap'), [{ topic: 'a\0b', logMs: 1, payload: jointState(1, 1) }]);
  await refusal(t, { file: nameless }, /topic "a\\u0000b"; rename it/);
  t.throws(() => topic({ topic: '/x', type: 'std_msgs/msg/String' }), /not a message type that becomes telemetry/);
});

t.test('a database with a write-ahead log is read whole, and nothing is written beside it', async (t) => {
  const dir = t.testdir({ bag: {}, scratch: {} });
  const file = join(dir, 'bag', 'killed.db3');
  const recorder = writeDb3(file, motion(40), 'wal', 15);
  // What a killed recorder leaves: the log, but no shared-memory file.
  const left = join(dir, 'bag', 'left.db3');
  copyFileSync(file, left);
  copyFileSync(`${file}-wal`, `${left}-wal`);
  recorder.close();
  const before = readdirSync(join(dir, 'bag')).map((name) => [
    name,
    readFileSync(join(dir, 'bag', name)).toString('hex'),
  ]);
  const { samples } = await replayAll({ file: left, scratchDir: join(dir, 'scratch') });
  t.equal(samples.length, 40, 'those in the log too');
  t.equal((await replayAll({ file, scratchDir: join(dir, 'scratch') })).samples.length, 40);
  t.strictSame(
    readdirSync(join(dir, 'bag')).map((name) => [name, readFileSync(join(dir, 'bag', name)).toString('hex')]),
    before,
  );
  t.strictSame(readdirSync(join(dir, 'scratch')), [], 'the private copy is gone');
});

t.test('a file that is no recording is refused by what it is', async (t) => {
  const dir = t.testdir({
    'a.bag': '#ROSBAG V2.0\nx',
    'b.mcap.zstd': Buffer.from('28b52ffd0000', 'hex'),
    'c.txt': 'hello',
    'd.csv': 'a,b\n1,2\n',
    'e.db3': Buffer.concat([Buffer.from('SQLite format 3\0'), Buffer.alloc(2000, 7)]),
    'f.csv': '',
  });
  mkdirSync(join(dir, 'folder'));
  await refusal(t, { file: join(dir, 'a.bag') }, /ROS 1 bag/);
  await refusal(t, { file: join(dir, 'b.mcap.zstd') }, /zstd -d/);
  await refusal(t, { file: join(dir, 'c.txt') }, /neither MCAP/);
  await refusal(t, { file: join(dir, 'd.csv') }, /`columns`/);
  await refusal(t, { file: join(dir, 'e.db3') }, /cannot be read as a rosbag2 database/);
  await refusal(t, { file: join(dir, 'folder') }, /is a folder/);
  await refusal(t, { file: join(dir, 'gone.mcap') }, /gone\.mcap.*ENOENT/, 'recording_missing');
  const columns = csvMappingSchema.parse({
    streams: [{ stream: 's', kind: 'temperature', fields: { temperature: ['a'] } }],
  });
  await refusal(t, { file: join(dir, 'f.csv'), columns }, /is empty/);
});

t.test('the agent slows the replay down, and stopping ends it at once', async (t) => {
  const file = await writeMcap(join(t.testdir(), 'bag.mcap'), motion(40));
  const controller = new AbortController();
  let taken = 0;
  let release = (): void => undefined;
  let entered = (): void => undefined;
  const reached = new Promise<void>((resolve) => {
    entered = resolve;
  });
  const source = new ReplaySource(
    { file, speed: 0, loop: true },
    {
      log: createLogger('test', 'silent'),
      clock: systemClock,
      emit: () => {
        taken += 1;
        if (taken < 50) return undefined;
        entered();
        return new Promise<void>((resolve) => {
          release = resolve;
        });
      },
      onStatus: () => undefined,
    },
  );
  const running = source.run(controller.signal);
  await reached;
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  t.equal(taken, 50, 'nothing more while the agent is busy; looping went past the end of the file');
  t.equal(source.position, 49, 'the 50th is not taken yet');
  controller.abort();
  release();
  await running;
  t.equal(taken, 50);
});

t.test('an agent that cannot take a sample fails the replay, not the recording', async (t) => {
  const file = await writeMcap(join(t.testdir(), 'bag.mcap'), motion(3));
  const statuses: SourceStatus[] = [];
  const emit = async (): Promise<void> => {
    throw new Error('outbox is closed');
  };
  await t.rejects(replayAll({ file }, { emit, onStatus: (status) => statuses.push(status) }), { message: /closed/ });
  t.match(statuses.at(-1), { state: 'failed', code: 'replay_failed', message: 'outbox is closed' });
});

t.test('speed spaces samples by their log times', async (t) => {
  const messages = [0, 100, 100, 300].map((ms) => ({ logMs: 5_000 + ms, payload: jointState(0, 5_000 + ms) }));
  const file = await writeMcap(join(t.testdir(), 'bag.mcap'), messages);
  const { samples } = await replayAll({ file, speed: 5 });
  const [first, ...rest] = samples.map((sample) => Number(sample.receivedMonoNs) / 1e6);
  const gaps = rest.map((at) => at - (first ?? 0));
  t.ok((gaps[0] ?? 0) >= 18 && (gaps[2] ?? 0) >= 58, `never early: after ${gaps} ms instead of 20, 20, 60`);
  t.strictSame(
    samples.map((sample) => sample.receivedNs / 1_000_000n),
    [5000n, 5100n, 5100n, 5300n],
    'the recorded times are kept',
  );
});
