import { existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import type Sqlite from 'better-sqlite3';
import { Database } from '../outbox/database.ts';

const { CommandReply } = outrider.v1;
export type Reply = outrider.v1.CommandReply.$Properties;

/** Commands remembered. An older one is still refused by its number. */
const COMMANDS_MAX = 4096;
const FILE = 'commands.db';
const PAGES_MAX = 4096;

/** A command that was begun, with its answer when it ended. */
export interface LoggedCommand {
  readonly commandId: string;
  readonly verb: string;
  readonly counter: number;
  readonly beganAtMs: number;
  readonly reply: Reply | undefined;
}

interface Row {
  readonly command_id: string;
  readonly verb: string;
  readonly counter: number;
  readonly began_at_ms: number;
  readonly reply: Buffer | null;
}

/**
 * Which commands were begun and what was answered, on disk before anything but a stop is done. A file of its own: it
 * must be writable when the outbox is full, and each entry is fsynced at once.
 */
export class CommandLog {
  readonly #db: Sqlite.Database;
  readonly #isVolatile: boolean;
  readonly #find: Sqlite.Statement<[string], Row>;
  readonly #begin: Sqlite.Statement<[string, string, number, number]>;
  readonly #finish: Sqlite.Statement<[Buffer, string]>;
  readonly #trim: Sqlite.Statement<[number]>;
  readonly #see: Sqlite.Statement<[number]>;
  readonly #reported: Sqlite.Statement<[string]>;
  readonly #unreported: Sqlite.Statement<[], Row>;
  #counterSeen: number;

  private constructor(db: Sqlite.Database, isVolatile: boolean) {
    this.#db = db;
    this.#isVolatile = isVolatile;
    const columns = 'command_id, verb, counter, began_at_ms, reply';
    this.#find = db.prepare(`SELECT ${columns} FROM command WHERE command_id = ?`);
    this.#begin = db.prepare(
      'INSERT INTO command (command_id, verb, counter, began_at_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
    );
    this.#finish = db.prepare('UPDATE command SET reply = ? WHERE command_id = ?');
    this.#trim = db.prepare('DELETE FROM command WHERE id <= ?');
    this.#see = db.prepare('UPDATE seen SET counter = max(counter, ?)');
    this.#reported = db.prepare('UPDATE command SET reported = 1 WHERE command_id = ?');
    this.#unreported = db.prepare(`SELECT ${columns} FROM command WHERE reported = 0 ORDER BY id`);
    this.#counterSeen = db.prepare<[], { counter: number }>('SELECT counter FROM seen').get()?.counter ?? 0;
  }

  /**
   * Opens the log of a state directory. A damaged file is set aside: then the latch and the motion epoch must do. On a
   * full disk there is a log in memory, good enough to stop and not to recover.
   */
  static open(stateDir: string, log: Logger): CommandLog {
    const path = join(stateDir, FILE);
    try {
      return new CommandLog(openFile(path), false);
    } catch (error) {
      if (!(error instanceof Database.SqliteError)) throw error;
      if (!/^SQLITE_(CORRUPT|NOTADB)/.test(error.code)) {
        log.error({ path, reason: errorMessage(error) }, 'command_log.not_opened');
        return new CommandLog(openFile(':memory:'), true);
      }
      log.error({ path, reason: errorMessage(error) }, 'command_log.damaged');
      for (const suffix of ['', '-wal', '-shm'])
        if (existsSync(path + suffix)) renameSync(path + suffix, `${path}.damaged${suffix}`);
      return new CommandLog(openFile(path), false);
    }
  }

  /** Highest number taken. */
  get counterSeen(): number {
    return this.#counterSeen;
  }

  find(commandId: string): LoggedCommand | undefined {
    const row = this.#find.get(commandId);
    return row && read(row);
  }

  /** Notes that a command begins. On disk when it returns. @throws when it cannot be written. */
  begin(command: Omit<LoggedCommand, 'reply'>): void {
    const { commandId, verb, counter, beganAtMs } = command;
    this.#db.transaction(() => {
      const { lastInsertRowid } = this.#begin.run(commandId, verb, counter, beganAtMs);
      this.#trim.run(Number(lastInsertRowid) - COMMANDS_MAX);
      this.#see.run(counter);
    })();
    this.#counterSeen = Math.max(this.#counterSeen, counter);
    if (this.#isVolatile && verb !== 'trigger') throw new Error('the log of commands could not be opened on the disk');
  }

  /** Keeps the answer of a command. On disk when it returns. @throws SqliteError when it cannot be written. */
  finish(commandId: string, reply: Reply): void {
    this.#finish.run(Buffer.from(CommandReply.encode(reply).finish()), commandId);
  }

  /** The result of a command is in the event lane. */
  markReported(commandId: string): void {
    this.#reported.run(commandId);
  }

  /** Commands whose result may not be in the event lane yet, oldest first. */
  unreported(): LoggedCommand[] {
    return this.#unreported.all().map(read);
  }

  /** Closing twice is harmless. */
  close(): void {
    this.#db.close();
  }
}

function openFile(path: string): Sqlite.Database {
  const db = new Database(path);
  try {
    db.pragma('journal_mode = WAL');
    // Without FULL a commit in WAL mode is not fsynced at all.
    db.pragma('synchronous = FULL');
    db.pragma('busy_timeout = 2000');
    db.pragma(`max_page_count = ${PAGES_MAX}`);
    db.exec(`
      CREATE TABLE IF NOT EXISTS command (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        command_id TEXT NOT NULL UNIQUE,
        verb TEXT NOT NULL,
        counter INTEGER NOT NULL,
        began_at_ms REAL NOT NULL,
        reply BLOB,
        reported INTEGER NOT NULL DEFAULT 0
      );
      CREATE TABLE IF NOT EXISTS seen (counter INTEGER NOT NULL);
      INSERT INTO seen (counter) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM seen);
    `);
    return db;
  } catch (error) {
    db.close();
    if (error instanceof Database.SqliteError && error.code === 'SQLITE_NOTADB') rmSync(`${path}-shm`, { force: true });
    throw error;
  }
}

function read(row: Row): LoggedCommand {
  return {
    commandId: row.command_id,
    verb: row.verb,
    counter: row.counter,
    beganAtMs: row.began_at_ms,
    reply: row.reply === null ? undefined : CommandReply.decode(row.reply),
  };
}
