import { PGlite } from '@electric-sql/pglite';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { drizzle } from 'drizzle-orm/pglite';
import { migrate } from 'drizzle-orm/pglite/migrator';
import type { Database, Queryable } from './database.ts';
import { type DirectoryLock, lockDirectory } from './directory-lock.ts';
import * as schema from './schema.ts';

const OID_INT8 = 20;
const OID_BYTEA = 17;

/** PGlite turns bytes into text and back one at a time, which cost seven times all the rest of an insert. */
const bytesToText = (bytes: Uint8Array): string =>
  `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;
const textToBytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.slice(2), 'hex'));

/** Opens PostgreSQL inside this process. One writer at a time: transactions queue. */
export async function openPglite(directory: string, migrationsFolder: string): Promise<Database> {
  const lock: DirectoryLock | undefined = directory === 'memory://' ? undefined : await lockDirectory(directory);
  let client: PGlite | undefined;
  try {
    client = await PGlite.create({
      dataDir: directory,
      parsers: { [OID_INT8]: Number, [OID_BYTEA]: textToBytes },
      serializers: { [OID_BYTEA]: bytesToText },
    });
    const orm = drizzle(client, { schema });
    await migrate(orm, { migrationsFolder });
    return new PgliteDatabase(client, orm, lock);
  } catch (cause) {
    await client?.close().catch(() => undefined);
    await lock?.release();
    throw new DomainError('unavailable', `the database in ${directory} did not open: ${errorMessage(cause)}`, {
      cause,
    });
  }
}

class PgliteDatabase implements Database {
  readonly kind = 'pglite';
  readonly orm: Database['orm'];
  readonly #client: PGlite;
  readonly #lock: DirectoryLock | undefined;
  #closed: Promise<void> | undefined;

  constructor(client: PGlite, orm: Database['orm'], lock: DirectoryLock | undefined) {
    this.#client = client;
    this.orm = orm;
    this.#lock = lock;
  }

  async query<T>(text: string, parameters: readonly unknown[] = []): Promise<T[]> {
    return (await this.#client.query<T>(text, [...parameters])).rows;
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return await this.#client.transaction((tx) =>
      work({
        query: async <R>(text: string, parameters: readonly unknown[] = []) =>
          (await tx.query<R>(text, [...parameters])).rows,
      }),
    );
  }

  async ping(): Promise<void> {
    await this.#client.query('select 1');
  }

  close(): Promise<void> {
    this.#closed ??= this.#client.close().finally(() => this.#lock?.release());
    return this.#closed;
  }
}
