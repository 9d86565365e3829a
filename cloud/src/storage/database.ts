import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Logger } from '@outrider/shared/log';
import type { Clock } from '@outrider/shared/time';
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core';
import { openPglite } from './pglite.ts';
import { openPostgres } from './postgres.ts';
import type * as schema from './schema.ts';

/** Runs SQL with numbered parameters. Rows come as objects; int8 as number, timestamptz as Date, bytea as bytes. */
export interface Queryable {
  query<T = Record<string, unknown>>(text: string, parameters?: readonly unknown[]): Promise<T[]>;
}

/** One open transaction. */
export type Tx = Queryable;

/** drizzle over either engine. Use `orm.transaction` for transactions in drizzle's own words. */
export type Orm = PgDatabase<PgQueryResultHKT, typeof schema>;

/** The control plane's store: PGlite in this process, or a PostgreSQL server. Same schema, same SQL. */
export interface Database extends Queryable {
  readonly kind: 'pglite' | 'postgres';
  readonly orm: Orm;
  /** Commits when `work` resolves, rolls back when it throws. Never nest it. */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
  /** @throws when the database does not answer. */
  ping(): Promise<void>;
  /** Closing twice is harmless. */
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** `postgres://…`; absent: PGlite under `dataDir`. */
  readonly databaseUrl?: string;
  /** Folder of PGlite's files, or `memory://` for a database that ends with the process. */
  readonly dataDir: string;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Where drizzle-kit's migrations are, seen from the compiled file. */
export const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../../drizzle', import.meta.url));

/**
 * Opens the database and brings its schema up to date. Replicas that start together wait for each other.
 *
 * @throws DomainError `unavailable` that names what is wrong: the folder is in use, the server does not answer.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const started = options.clock.monotonicMs();
  const database = options.databaseUrl
    ? await openPostgres(options.databaseUrl, MIGRATIONS_FOLDER)
    : await openPglite(
        options.dataDir === 'memory://' ? options.dataDir : join(options.dataDir, 'pglite'),
        MIGRATIONS_FOLDER,
      );
  options.log.info({ engine: database.kind, durationMs: options.clock.monotonicMs() - started }, 'database.opened');
  return database;
}

/** SQLSTATE of a failed query on either engine; `undefined` when the failure is not the server's. */
export function sqlState(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const code: unknown = 'code' in error ? error.code : undefined;
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) return code;
  return 'cause' in error ? sqlState(error.cause) : undefined;
}

/** Whether the database refused the data itself, so that trying the same again is vain. */
export function isDataError(error: unknown): boolean {
  const state = sqlState(error) ?? '';
  return ['21', '22', '23'].includes(state.slice(0, 2)) || state.startsWith('54');
}
