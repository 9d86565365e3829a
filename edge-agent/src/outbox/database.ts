import { closeSync, existsSync, openSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { DomainError } from '@outrider/shared/errors';
import { newEpoch } from '@outrider/shared/ids';
import type Sqlite from 'better-sqlite3';
import { LANES } from './records.ts';

export const Database = createRequire(import.meta.url)('better-sqlite3') as typeof Sqlite;
export type Db = Sqlite.Database;

/** First SQLite without the WAL-reset bug, which could lose committed rows. */
const SQLITE_VERSION_MIN = [3, 51, 3] as const;
const PAGE_BYTES = 4096;
/** The WAL is cut back to this after a checkpoint, so that one burst does not hold disk space for ever. */
const JOURNAL_BYTES_MAX = 16 * 1024 * 1024;
/** Damaged databases kept beside the new one, for whoever wants to look. */
const SET_ASIDE_MAX = 2;
/** Events whose ids are kept at least; at most twice as many and one commit more. */
const RECENT_EVENTS_MIN = 1000;
const ID_SEPARATOR = '\n';
const DATABASE_FILE = 'outbox.db';
const IDENTITY_SEAL = 'identity_crc';

/** What was found when the database was opened. */
export interface OpenedDatabase {
  readonly db: Db;
  /** The file did not exist before. */
  readonly isNew: boolean;
  /** The program that used it last did not close it: a crash, a power cut, a kill. */
  readonly stoppedUncleanly: boolean;
}

/**
 * Whether an error means that the file itself is damaged, as opposed to full, busy or unreadable. A position that is
 * taken although nobody finds its row is damage too: the order of the rows is broken.
 */
export function isCorruption(error: unknown): boolean {
  return error instanceof Database.SqliteError && /^SQLITE_(CORRUPT|NOTADB|CONSTRAINT)/.test(error.code);
}

/**
 * Whether an error while opening means that the file is not what this program wrote: also a changed table definition
 * ("no such column") and a changed file format version ("readonly").
 */
export function isUnusable(error: unknown): boolean {
  return isCorruption(error) || (error instanceof Database.SqliteError && /^SQLITE_(ERROR|READONLY)/.test(error.code));
}

/** Whether an error means that nothing can be written now: the bound, a full disk, a failing or read-only device. */
export function isUnwritable(error: unknown): boolean {
  return error instanceof Database.SqliteError && /^SQLITE_(FULL|IOERR|READONLY|CANTOPEN|BUSY)/.test(error.code);
}

export const databasePath = (stateDir: string): string => join(stateDir, DATABASE_FILE);

/**
 * Opens the outbox of a state directory with every setting that durability and the size bound rest on.
 *
 * @throws SqliteError with a corruption code when the file is damaged; see `isCorruption`.
 */
export function openDatabase(stateDir: string, sizeMaxBytes: number): OpenedDatabase {
  const path = databasePath(stateDir);
  const isNew = !existsSync(path);
  const db = new Database(path);
  try {
    assertSqliteVersion(db);
    db.pragma(`page_size = ${PAGE_BYTES}`);
    db.pragma('busy_timeout = 2000');
    // EXCLUSIVE keeps the WAL index on the heap: no shared memory file, and a second opener is refused.
    db.pragma('locking_mode = EXCLUSIVE');
    db.pragma('journal_mode = WAL');
    // Without FULL a commit in WAL mode is not fsynced at all.
    db.pragma('synchronous = FULL');
    db.pragma(`journal_size_limit = ${JOURNAL_BYTES_MAX}`);
    db.pragma('cache_size = -4096');
    const pagesMax = Math.max(64, Math.floor(sizeMaxBytes / PAGE_BYTES));
    db.pragma(`max_page_count = ${pagesMax}`);
    // The journal of a small outbox must not be several times its size.
    db.pragma(`wal_autocheckpoint = ${Math.min(1000, Math.max(64, pagesMax >> 3))}`);
    createSchema(db);
    const meta = new Meta(db);
    const stoppedUncleanly = meta.get('clean') === '0';
    if (stoppedUncleanly) quickCheck(db);
    if (meta.get('epoch') === undefined) {
      meta.set('epoch', newEpoch());
      sealIdentity(meta);
    } else if (!isIdentitySound(meta))
      throw new Database.SqliteError('the epoch or an offset is not what was written', 'SQLITE_CORRUPT');
    meta.set('clean', '0');
    return { db, isNew, stoppedUncleanly };
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Notes what the epoch and the offsets are, in the transaction that changed them: a changed bit in them must show. */
export function sealIdentity(meta: Meta): void {
  meta.set(IDENTITY_SEAL, identityCrc(meta));
}

/** Whether the epoch and the offsets are what was written. */
export const isIdentitySound = (meta: Meta): boolean => meta.get(IDENTITY_SEAL) === identityCrc(meta);

function identityCrc(meta: Meta): string {
  const facts = ['epoch', ...LANES.map((lane) => `offset.${lane}`)].map((key) => meta.get(key) ?? '');
  return crc32(facts.join(' ')).toString(16);
}

/** Renames a damaged database and its journal out of the way. Returns where it went. */
export function setAside(stateDir: string): string {
  const path = databasePath(stateDir);
  const asideAt = (n: number): string => `${path}.damaged-${n}`;
  for (const suffix of ['', '-wal']) {
    for (let n = SET_ASIDE_MAX; n >= 1; n -= 1) {
      const from = n === 1 ? `${path}${suffix}` : `${asideAt(n - 1)}${suffix}`;
      const to = `${asideAt(n)}${suffix}`;
      rmSync(to, { force: true });
      if (existsSync(from)) renameSync(from, to);
    }
  }
  rmSync(`${path}-shm`, { force: true });
  return asideAt(1);
}

/**
 * Ids of the events written last, by which an event that comes again is known. Looked up in memory; on disk one row
 * per commit, so that they cost a commit one page and not an index entry each.
 */
export class RecentEvents {
  readonly #all: Sqlite.Statement<[], RecentRow>;
  readonly #add: Sqlite.Statement<[string]>;
  readonly #trim: Sqlite.Statement<[number]>;
  /** Two generations: the older one is forgotten as a whole, because each deletion dirties a page. */
  #older = new Set<string>();
  #newer = new Set<string>();
  #newerFirstId = 0;

  constructor(db: Db) {
    this.#all = db.prepare('SELECT id, event_ids FROM recent_events ORDER BY id');
    this.#add = db.prepare('INSERT INTO recent_events (event_ids) VALUES (?)');
    this.#trim = db.prepare('DELETE FROM recent_events WHERE id < ?');
    this.reload();
  }

  has(eventId: string): boolean {
    return this.#newer.has(eventId) || this.#older.has(eventId);
  }

  /** Remembers ids in the caller's transaction. After a rollback call `reload`. */
  add(eventIds: readonly string[]): void {
    if (this.#newer.size >= RECENT_EVENTS_MIN) this.#trim.run(this.#newerFirstId);
    const { lastInsertRowid } = this.#add.run(eventIds.join(ID_SEPARATOR));
    this.#note(Number(lastInsertRowid), eventIds);
  }

  /** Reads the ids from the file again. */
  reload(): void {
    this.#older = new Set();
    this.#newer = new Set();
    for (const { id, event_ids } of this.#all.iterate()) this.#note(id, event_ids.split(ID_SEPARATOR));
  }

  #note(id: number, eventIds: readonly string[]): void {
    if (this.#newer.size >= RECENT_EVENTS_MIN) {
      this.#older = this.#newer;
      this.#newer = new Set();
    }
    if (this.#newer.size === 0) this.#newerFirstId = id;
    for (const eventId of eventIds) this.#newer.add(eventId);
  }
}

interface RecentRow {
  readonly id: number;
  readonly event_ids: string;
}

/** Small facts beside the lanes: epoch, boundaries, replay positions. */
export class Meta {
  readonly #get: Sqlite.Statement<[string], { value: string }>;
  readonly #set: Sqlite.Statement<[string, string]>;

  constructor(db: Db) {
    this.#get = db.prepare('SELECT value FROM meta WHERE key = ?');
    this.#set = db.prepare(
      'INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value',
    );
  }

  get(key: string): string | undefined {
    return this.#get.get(key)?.value;
  }

  getNumber(key: string): number {
    const value = Number(this.get(key) ?? '0');
    return Number.isSafeInteger(value) ? value : 0;
  }

  set(key: string, value: string | number): void {
    this.#set.run(key, String(value));
  }
}

/**
 * Holds a state directory for one agent. The lock is the kernel's (fcntl, through SQLite), so that a killed
 * process frees it, and it is a file of its own, so that damage to the outbox cannot weaken it.
 */
export class StateLock {
  readonly #db: Db;

  /** @throws DomainError `already_exists` when another process holds it. */
  constructor(stateDir: string) {
    const path = join(stateDir, 'agent.lock');
    closeSync(openSync(path, 'a', 0o600));
    this.#db = new Database(path, { timeout: 200 });
    try {
      // In memory: a journal file would need space, and the lock is what must hold on a full disk.
      this.#db.pragma('journal_mode = MEMORY');
      this.#db.exec('BEGIN EXCLUSIVE');
    } catch (cause) {
      this.#db.close();
      if (!(cause instanceof Database.SqliteError) || !cause.code.startsWith('SQLITE_BUSY')) throw cause;
      throw new DomainError(
        'already_exists',
        `${stateDir} is in use by another agent; give each robot its own state_dir`,
        {
          cause,
          subject: 'state_dir',
        },
      );
    }
  }

  /** Closing twice is harmless. */
  release(): void {
    if (this.#db.open) this.#db.close();
  }
}

function assertSqliteVersion(db: Db): void {
  const { version } = db.prepare<[], { version: string }>('SELECT sqlite_version() AS version').get() ?? {
    version: '0',
  };
  const parts = version.split('.').map(Number);
  for (const [i, least] of SQLITE_VERSION_MIN.entries()) {
    const part = parts[i] ?? 0;
    if (part > least) return;
    if (part < least)
      throw new DomainError(
        'unsupported',
        `SQLite ${version} can lose committed rows; better-sqlite3 must bring ${SQLITE_VERSION_MIN.join('.')} or newer`,
      );
  }
}

function createSchema(db: Db): void {
  db.exec('CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID');
  for (const lane of LANES) {
    // AUTOINCREMENT: a plain rowid starts again at 1 when the lane is drained, and a position must never return.
    db.exec(`CREATE TABLE IF NOT EXISTS ${lane} (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      seq_to INTEGER NOT NULL,
      crc INTEGER NOT NULL,
      boot_id TEXT NOT NULL,
      kind INTEGER NOT NULL,
      samples INTEGER NOT NULL,
      from_ms REAL NOT NULL,
      to_ms REAL NOT NULL,
      written_ms REAL NOT NULL DEFAULT (unixepoch('subsec') * 1000),
      thinned INTEGER NOT NULL DEFAULT 0,
      body BLOB NOT NULL
    )`);
    // For people only: how long a record has waited, also one of a recording from years ago. Not in the row's CRC.
    addColumn(db, lane, 'written_ms REAL NOT NULL DEFAULT 0');
    // Samples that were left out of a block for want of room.
    addColumn(db, lane, 'thinned INTEGER NOT NULL DEFAULT 0');
  }
  // Ids of the last events, so that one which is reported again after a crash is not stored again.
  db.exec('CREATE TABLE IF NOT EXISTS recent_events (id INTEGER PRIMARY KEY, event_ids TEXT NOT NULL)');
  db.exec(`CREATE TABLE IF NOT EXISTS quarantine (
    id INTEGER PRIMARY KEY, lane TEXT NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL
  )`);
}

function addColumn(db: Db, lane: string, definition: string): void {
  const columns = db.pragma(`table_info(${lane})`) as { readonly name: string }[];
  if (!columns.some(({ name }) => definition.startsWith(`${name} `)))
    db.exec(`ALTER TABLE ${lane} ADD COLUMN ${definition}`);
}

function quickCheck(db: Db): void {
  const result = db.pragma('quick_check(1)', { simple: true });
  if (result !== 'ok') throw new Database.SqliteError(String(result), 'SQLITE_CORRUPT');
}
