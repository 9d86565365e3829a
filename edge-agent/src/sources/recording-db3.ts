import { constants } from 'node:fs';
import { copyFile, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import Database from 'better-sqlite3';
import { damaged, type RecordedMessage, type RecordedTopic, type Recording, type Remark, refuse } from './recording.ts';

/** Where an SQLite file says that it wants a write-ahead log, and the value that says so. */
const READ_VERSION_OFFSET = 19;
const READ_VERSION_WAL = 2;
interface TopicRow {
  readonly id: bigint;
  readonly name: string;
  readonly type: string;
  readonly serialization_format: string;
}

/** What SQLite gives back: a column holds whatever was stored in it, whatever its declared type says. */
interface MessageRow {
  readonly topic_id: unknown;
  readonly timestamp: unknown;
  readonly data: unknown;
}

/**
 * Opens a rosbag2 SQLite file without leaving a trace beside it.
 *
 * SQLite writes `-wal` and `-shm` files beside a write-ahead-log database even for a reader, and better-sqlite3 is
 * built without the URI names that could say `immutable`. So such a file, or one that was not closed cleanly, is read
 * from a private copy that vanishes with this process; all others are opened in place, read-only.
 */
export async function openDb3(file: string, scratchDir: string = tmpdir()): Promise<Recording> {
  try {
    const database = (await needsCopy(file))
      ? await openCopy(file, scratchDir)
      : new Database(file, { readonly: true });
    try {
      return new Db3Recording(file, database.defaultSafeIntegers(true));
    } catch (error) {
      database.close();
      throw error;
    }
  } catch (error) {
    throw refuse(
      file,
      `cannot be read as a rosbag2 database: ${error instanceof Error ? error.message : error}`,
      error,
    );
  }
}

async function needsCopy(file: string): Promise<boolean> {
  const handle = await open(file, 'r');
  try {
    const header = Buffer.alloc(READ_VERSION_OFFSET + 1);
    await handle.read(header, 0, header.length, 0);
    return header[READ_VERSION_OFFSET] === READ_VERSION_WAL || (await sizeOf(`${file}-journal`)) > 0;
  } finally {
    await handle.close();
  }
}

async function openCopy(file: string, scratchDir: string): Promise<Database.Database> {
  const folder = await mkdtemp(join(scratchDir, 'outrider-replay-'));
  try {
    const copy = join(folder, basename(file));
    await copyFile(file, copy, constants.COPYFILE_FICLONE);
    for (const suffix of ['-wal', '-journal'])
      if ((await sizeOf(`${file}${suffix}`)) > 0) await copyFile(`${file}${suffix}`, `${copy}${suffix}`);
    const database = new Database(copy);
    database.prepare('SELECT count(*) FROM sqlite_schema').get(); // Opens, and recovers, the log.
    return database;
  } finally {
    // The open handles keep the files until this process ends, however it ends.
    await rm(folder, { recursive: true, force: true });
  }
}

const sizeOf = async (file: string): Promise<number> => (await stat(file).catch(() => undefined))?.size ?? 0;

class Db3Recording implements Recording {
  readonly topics: readonly RecordedTopic[];
  readonly #file: string;
  readonly #database: Database.Database;
  readonly #topicsById: ReadonlyMap<bigint, RecordedTopic>;
  readonly #startNs: bigint;
  readonly #endNs: bigint;

  constructor(file: string, database: Database.Database) {
    this.#file = file;
    this.#database = database;
    const rows = database.prepare<[], TopicRow>('SELECT id, name, type, serialization_format FROM topics').all();
    this.#topicsById = new Map(
      rows.map((row) => [row.id, { topic: row.name, type: row.type, encoding: row.serialization_format }]),
    );
    this.topics = [...this.#topicsById.values()];
    this.#startNs = this.#edge('min');
    this.#endNs = this.#edge('max');
  }

  async *messages(wants: (topic: RecordedTopic) => boolean): AsyncGenerator<RecordedMessage, void, void> {
    const wanted = [...this.#topicsById].filter(([, topic]) => wants(topic)).map(([id]) => id);
    const marks = wanted.map(() => '?').join(', ');
    // rosbag2 indexes the timestamp; the id settles ties, so that the order is the same each time.
    const query = `SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN (${marks}) ORDER BY timestamp, id`;
    const rows = this.#damagedIfThrown(() => this.#database.prepare<bigint[], MessageRow>(query).iterate(...wanted));
    try {
      for (;;) {
        const { done, value: row } = this.#damagedIfThrown(() => rows.next());
        if (done) return;
        const topic = typeof row.topic_id === 'bigint' ? this.#topicsById.get(row.topic_id) : undefined;
        if (!topic) continue;
        if (typeof row.timestamp !== 'bigint')
          throw damaged(this.#file, 'inside', new TypeError('a message has no whole number as its timestamp'));
        yield {
          topic,
          logTimeNs: row.timestamp,
          payload: row.data instanceof Uint8Array ? row.data : new Uint8Array(0),
        };
      }
    } finally {
      rows.return?.();
    }
  }

  fractionRead(logTimeNs: bigint): number {
    return this.#endNs > this.#startNs ? Number(logTimeNs - this.#startNs) / Number(this.#endNs - this.#startNs) : 1;
  }

  remark(): Remark | undefined {
    return undefined;
  }

  async close(): Promise<void> {
    this.#database.close();
  }

  #edge(which: 'min' | 'max'): bigint {
    const row = this.#database
      .prepare<[], { at: unknown }>(
        `SELECT ${which}(timestamp) AS at FROM messages WHERE typeof(timestamp) = 'integer'`,
      )
      .get();
    return typeof row?.at === 'bigint' ? row.at : 0n;
  }

  /** SQLite reads no more than it must, so damage can show at any step. */
  #damagedIfThrown<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      throw damaged(this.#file, 'inside', error);
    }
  }
}
