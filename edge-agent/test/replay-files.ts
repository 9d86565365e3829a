import { writeFileSync } from 'node:fs';
import { McapWriter } from '@mcap/core';
import Database from 'better-sqlite3';

/** A JointState of one joint, little-endian: what the files below hold. */
export function jointState(position: number, stampMs: number, name = 'a'): Uint8Array {
  const bytes = Buffer.alloc(60);
  bytes.writeUInt16BE(1);
  bytes.writeInt32LE(Math.floor(stampMs / 1000), 4);
  bytes.writeUInt32LE((stampMs % 1000) * 1e6, 8);
  bytes.writeUInt32LE(1, 12); // frame_id: ''
  bytes.writeUInt32LE(1, 20); // one name
  bytes.writeUInt32LE(2, 24);
  bytes.write(name, 28, 1);
  bytes.writeUInt32LE(1, 32); // one position, aligned to 8 behind the encapsulation
  bytes.writeDoubleLE(position, 36);
  return bytes.subarray(0, 52); // no velocity, no effort
}

export interface FileMessage {
  readonly topic?: string;
  readonly type?: string;
  readonly logMs: number;
  readonly payload: Uint8Array;
}

/** Messages at 25 Hz whose joint moves a little, then jumps, and whose stamp goes back once. */
export const motion = (count: number): FileMessage[] =>
  Array.from({ length: count }, (_, i) => ({
    logMs: 1_000_000 + i * 40,
    payload: jointState(i % 10 === 0 ? 50 : i / 100, i === 25 ? 1_000 : 1_000_000 + i * 40),
  }));

type WriterOptions = Omit<ConstructorParameters<typeof McapWriter>[0], 'writable'>;

/** A file as the published writer makes it. */
export async function mcapBytes(messages: readonly FileMessage[], options: WriterOptions = {}): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  const writable = {
    write: async (buffer: Uint8Array) => {
      parts.push(Buffer.from(buffer));
      size += buffer.length;
    },
    position: () => BigInt(size),
  };
  const writer = new McapWriter({ writable, chunkSize: 400, ...options });
  await writer.start({ profile: 'ros2', library: 'test' });
  const channels = new Map<string, number>();
  for (const [
    sequence,
    { topic = '/joints', type = 'sensor_msgs/msg/JointState', logMs, payload },
  ] of messages.entries()) {
    let channelId = channels.get(topic);
    if (channelId === undefined) {
      const schemaId = await writer.registerSchema({ name: type, encoding: 'ros2msg', data: new Uint8Array(0) });
      channelId = await writer.registerChannel({ topic, schemaId, messageEncoding: 'cdr', metadata: new Map() });
      channels.set(topic, channelId);
    }
    const logTime = BigInt(logMs) * 1_000_000n;
    await writer.addMessage({ channelId, sequence, logTime, publishTime: logTime, data: payload });
  }
  await writer.end();
  return Buffer.concat(parts);
}

export async function writeMcap(
  file: string,
  messages: readonly FileMessage[],
  options: WriterOptions = {},
): Promise<string> {
  writeFileSync(file, await mcapBytes(messages, options));
  return file;
}

/**
 * Writes a rosbag2 database and leaves it open, as a recorder that was killed leaves it.
 *
 * @param checkpointed How many messages are in the file itself; the others only in its write-ahead log.
 */
export function writeDb3(
  file: string,
  messages: readonly FileMessage[],
  mode: 'wal' | 'delete',
  checkpointed = messages.length,
): Database.Database {
  const database = new Database(file);
  database.pragma(`journal_mode = ${mode}`);
  database.exec(`CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT);
    CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
    CREATE INDEX timestamp_idx ON messages (timestamp ASC);`);
  const topics = [...new Set(messages.map(({ topic = '/joints' }) => topic))];
  topics.forEach((topic, i) => {
    const type =
      messages.find((message) => (message.topic ?? '/joints') === topic)?.type ?? 'sensor_msgs/msg/JointState';
    database.prepare('INSERT INTO topics VALUES (?, ?, ?, ?)').run(i + 1, topic, type, 'cdr');
  });
  const insert = database.prepare('INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)');
  messages.forEach(({ topic = '/joints', logMs, payload }, i) => {
    if (mode === 'wal' && i === checkpointed) database.pragma('wal_checkpoint(TRUNCATE)');
    insert.run(topics.indexOf(topic) + 1, BigInt(logMs) * 1_000_000n, payload);
  });
  if (mode === 'wal' && checkpointed >= messages.length) database.pragma('wal_checkpoint(TRUNCATE)');
  return database;
}

/** An LZ4 frame whose blocks are stored as they are, which every reader must take. */
export function lz4Stored(data: Uint8Array): Uint8Array {
  const head = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x40, 0x70, 0xdf]);
  const length = Buffer.alloc(4);
  length.writeUInt32LE((data.length | 0x8000_0000) >>> 0);
  return Buffer.concat([head, length, data, Buffer.alloc(4)]);
}
