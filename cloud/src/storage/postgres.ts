import { connect, type Socket } from 'node:net';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate } from 'drizzle-orm/postgres-js/migrator';
import postgres from 'postgres';
import type { Database, Queryable } from './database.ts';
import * as schema from './schema.ts';

const OID_INT8 = 20;
/** Names our migration lock among the server's advisory locks: the bytes of "outrider", cut to 63 bits. */
const MIGRATION_LOCK = '8032485094713745778';
const RAW_CONNECTIONS_MAX = 8;
const ORM_CONNECTIONS_MAX = 4;
const CONNECT_TIMEOUT_S = 10;

/** int8 as a JavaScript number: every one of ours stays below 2^53. */
const int8 = { to: OID_INT8, from: [OID_INT8], serialize: String, parse: Number };

/** What postgres.js hands to its undocumented socket factory. */
interface SocketTarget {
  readonly host: readonly string[];
  readonly port: readonly number[];
  readonly path?: string | false;
}

/** Opens pools on a PostgreSQL server. */
export async function openPostgres(url: string, migrationsFolder: string): Promise<Database> {
  const raw = createClient(url, RAW_CONNECTIONS_MAX);
  // drizzle changes the type parsers of the client it is given, so it gets its own.
  const ormClient = createClient(url, ORM_CONNECTIONS_MAX);
  try {
    await migrateUnderLock(url, migrationsFolder);
    return new PostgresDatabase(raw, ormClient);
  } catch (cause) {
    await Promise.allSettled([raw.end({ timeout: 1 }), ormClient.end({ timeout: 1 })]);
    throw new DomainError('unavailable', `the PostgreSQL server did not open: ${errorMessage(cause)}`, { cause });
  }
}

function createClient(url: string, max: number) {
  const options = {
    max,
    types: { int8 },
    connect_timeout: CONNECT_TIMEOUT_S,
    connection: { application_name: 'outrider-cloud' },
    onnotice: () => undefined,
    // postgres.js leaves Nagle's algorithm on, which costs 40 ms on larger writes.
    socket: (target: SocketTarget) => openSocket(target),
  };
  return postgres(url, options);
}

function openSocket(target: SocketTarget): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = target.path
      ? connect(target.path)
      : connect({ host: target.host[0] ?? 'localhost', port: target.port[0] ?? 5432 });
    socket.setNoDelay(true);
    const expired = setTimeout(() => socket.destroy(new Error('connect timed out')), CONNECT_TIMEOUT_S * 1000);
    socket.once('error', reject);
    socket.once('connect', () => {
      clearTimeout(expired);
      socket.off('error', reject);
      resolve(socket);
    });
    socket.once('close', () => clearTimeout(expired));
  });
}

async function migrateUnderLock(url: string, migrationsFolder: string): Promise<void> {
  const client = createClient(url, 1);
  try {
    // The only connection of its pool, so lock, migration and release share a session.
    await client.unsafe(`select pg_advisory_lock(${MIGRATION_LOCK})`);
    await migrate(drizzle(client), { migrationsFolder });
    await client.unsafe(`select pg_advisory_unlock(${MIGRATION_LOCK})`);
  } finally {
    await client.end({ timeout: 1 });
  }
}

type Client = ReturnType<typeof createClient>;
type Parameters = NonNullable<globalThis.Parameters<Client['unsafe']>[1]>;

class PostgresDatabase implements Database {
  readonly kind = 'postgres';
  readonly orm: Database['orm'];
  readonly #raw: Client;
  readonly #ormClient: Client;
  #closed: Promise<void> | undefined;

  constructor(raw: Client, ormClient: Client) {
    this.#raw = raw;
    this.#ormClient = ormClient;
    this.orm = drizzle(ormClient, { schema });
  }

  async query<T>(text: string, parameters: readonly unknown[] = []): Promise<T[]> {
    return [...((await this.#raw.unsafe(text, [...parameters] as Parameters, { prepare: true })) as Iterable<T>)];
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    const outcome = await this.#raw.begin(async (tx) => {
      const query = async <R>(text: string, parameters: readonly unknown[] = []): Promise<R[]> => [
        ...((await tx.unsafe(text, [...parameters] as Parameters, { prepare: true })) as Iterable<R>),
      ];
      return { result: await work({ query }) };
    });
    return (outcome as { result: T }).result;
  }

  async ping(): Promise<void> {
    await this.#raw.unsafe('select 1');
  }

  close(): Promise<void> {
    this.#closed ??= Promise.all([this.#raw.end({ timeout: 5 }), this.#ormClient.end({ timeout: 5 })]).then(
      () => undefined,
    );
    return this.#closed;
  }
}
