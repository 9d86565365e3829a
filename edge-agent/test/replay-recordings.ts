import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from '@foxglove/rosmsg';
import { MessageReader } from '@foxglove/rosmsg2-serialization';
import { McapStreamReader } from '@mcap/core';
import { createLogger } from '@outrider/shared/log';
import type { Sample } from '@outrider/shared/telemetry';
import { systemClock } from '@outrider/shared/time';
import Database from 'better-sqlite3';
import { decompress } from 'fzstd';
import type { Test } from 'tap';
import { type ReplayOptions, ReplaySource } from '../src/sources/replay.ts';
import type { SourcePorts, SourceStatus } from '../src/sources/source.ts';

/** Recordings of real robots that are not part of this repository. */
export const recordings = fileURLToPath(new URL('../../../../shared/data/rosbag', import.meta.url));
export const skipWithoutRecordings = existsSync(recordings) ? false : `no recordings at ${recordings}`;
export const recording = (name: string): string => join(recordings, name);

/** What a message of the five types looks like to the second reader. */
export interface SecondReading {
  readonly topic: string;
  readonly type: string;
  readonly logTimeNs: bigint;
  readonly message: SecondMessage;
}

export interface SecondMessage {
  readonly header: { readonly stamp: { readonly sec: number; readonly nanosec: number }; readonly frame_id: string };
  readonly [field: string]: unknown;
}

/** Runs a replay to its end and gives back all that it said. */
export async function replayAll(
  options: ReplayOptions,
  ports: Partial<SourcePorts> = {},
): Promise<{ samples: Sample[]; positions: (number | undefined)[]; statuses: SourceStatus[] }> {
  const samples: Sample[] = [];
  const positions: (number | undefined)[] = [];
  const statuses: SourceStatus[] = [];
  const source = new ReplaySource(
    { speed: 0, ...options },
    {
      log: createLogger('test', 'silent'),
      clock: systemClock,
      emit: (sample, position) => {
        samples.push(sample);
        positions.push(position);
      },
      onStatus: (status) => statuses.push(status),
      ...ports,
    },
  );
  await source.run(new AbortController().signal);
  return { samples, positions, statuses };
}

/** The published reader of ROS 2 messages, which shares no line with ours. */
export class SecondReader {
  readonly #readers = new Map<string, MessageReader>();

  constructor() {
    for (const file of ['allmsgs_test_bag.mcap', 'mcap_sample.mcap'])
      for (const record of mcapRecords(recording(file)))
        if (record.type === 'Schema' && record.encoding === 'ros2msg')
          this.#readers.set(record.name, this.#reader(record.name, Buffer.from(record.data).toString()));
  }

  read(type: string, payload: Uint8Array): SecondMessage {
    const reader = this.#readers.get(type.includes('/msg/') ? type : type.replace('/', '/msg/'));
    if (!reader) throw new Error(`no definition of ${type}`);
    return reader.readMessage(payload);
  }

  /** Every message of the given types, by log time. */
  readAll(file: string, types: readonly string[]): SecondReading[] {
    const raw = file.endsWith('.mcap') ? mcapMessages(file) : db3Messages(file);
    return raw
      .filter(({ type }) => types.includes(type))
      .map(({ payload, ...rest }) => ({ ...rest, message: this.read(rest.type, payload) }));
  }

  #reader(name: string, text: string): MessageReader {
    const definitions = parse(text, { ros2: true });
    return new MessageReader(definitions.map((one, i) => (i === 0 ? { ...one, name } : one)));
  }
}

function* mcapRecords(file: string) {
  const reader = new McapStreamReader({ decompressHandlers: { zstd: (data) => decompress(data) } });
  reader.append(readFileSync(file));
  for (let record = reader.nextRecord(); record; record = reader.nextRecord()) yield record;
}

interface RawMessage {
  readonly topic: string;
  readonly type: string;
  readonly logTimeNs: bigint;
  readonly payload: Uint8Array;
}

function mcapMessages(file: string): RawMessage[] {
  const types = new Map<number, string>();
  const channels = new Map<number, { topic: string; type: string }>();
  const messages: RawMessage[] = [];
  for (const record of mcapRecords(file)) {
    if (record.type === 'Schema') types.set(record.id, record.name);
    if (record.type === 'Channel')
      channels.set(record.id, { topic: record.topic, type: types.get(record.schemaId) ?? '' });
    const channel = record.type === 'Message' ? channels.get(record.channelId) : undefined;
    if (record.type === 'Message' && channel)
      messages.push({ ...channel, logTimeNs: record.logTime, payload: Uint8Array.from(record.data) });
  }
  return messages.sort((a, b) => (a.logTimeNs < b.logTimeNs ? -1 : a.logTimeNs > b.logTimeNs ? 1 : 0));
}

/** Runs plain SQL on a copy of the file, so that SQLite leaves nothing beside the recording. */
export function querySqlite<Row>(file: string, sql: string): Row[] {
  const folder = mkdtempSync(join(tmpdir(), 'replay-sql-'));
  try {
    const copy = join(folder, basename(file));
    copyFileSync(file, copy);
    const database = new Database(copy).defaultSafeIntegers(true);
    try {
      return database.prepare<[], Row>(sql).all();
    } finally {
      database.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function db3Messages(file: string): RawMessage[] {
  return querySqlite<RawMessage>(
    file,
    `SELECT topics.name AS topic, topics.type AS type, timestamp AS logTimeNs, data AS payload
     FROM messages JOIN topics ON topics.id = messages.topic_id ORDER BY timestamp, messages.id`,
  );
}

/** Asserts that a replay is refused with this message, and that it is reported so too. */
export async function refusal(
  t: Test,
  options: Parameters<typeof replayAll>[0],
  message: RegExp,
  code = 'recording_unusable',
): Promise<void> {
  const statuses: SourceStatus[] = [];
  await t.rejects(
    replayAll(options, { onStatus: (status) => statuses.push(status) }),
    { name: 'DomainError', message },
    String(message),
  );
  t.match(statuses.at(-1), { state: 'failed', code, message }, 'reported too');
}
