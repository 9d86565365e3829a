import { connect, type Socket } from 'node:net';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate } from 'drizzle-orm/postgres-js/migrator';
import postgres from 'postgres';
import type { Database, Queryable } from './database.ts';
import { type Client, lastingClient, PostgresPool } from './postgres-pool.ts';
import * as schema from './schema.ts';

const OID_INT8 = 20;
/** Names our migration lock among the server's advisory locks: the bytes of "outrider", cut to 63 bits. */
const MIGRATION_LOCK = '8032485094713745778';
const RAW_CONNECTIONS_MAX = 8;
const ORM_CONNECTIONS_MAX = 4;
const CONNECT_TIMEOUT_S = 10;
const RECONNECT_DELAY_S = 0.1;

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
  try {
    return new PostgresDatabase(url, await migrateUnderLock(url, migrationsFolder));
  } catch (cause) {
    throw new DomainError('unavailable', `the PostgreSQL server did not open: ${errorMessage(cause)}`, { cause });
  }
}

/** How a client of postgres.js reads and writes arrays, by the array types of the server. */
interface ArrayTypes {
  readonly parsers: Client['options']['parsers'];
  readonly serializers: Client['options']['serializers'];
  readonly shared: { readonly typeArrayMap: Record<number, number> };
}

/** @param arrays Absent: the client asks the server on each new connection. */
function createClient(
  url: string,
  max: number,
  onLost: () => void = () => undefined,
  arrays: ArrayTypes | undefined = undefined,
): Client {
  const options = {
    max,
    // Nobody awaits that question in postgres.js, so a connection that closes over it would end the process.
    fetch_types: arrays === undefined,
    types: { int8 },
    connect_timeout: CONNECT_TIMEOUT_S,
    // A connection that is closed costs the whole client; see postgres-pool.ts.
    max_lifetime: null,
    // Who asks waits longer each time; by itself postgres.js would let the first question after an outage wait 20 s.
    backoff: () => RECONNECT_DELAY_S,
    connection: { application_name: 'outrider-cloud' },
    onnotice: () => undefined,
    // postgres.js leaves Nagle's algorithm on, which costs 40 ms on larger writes.
    socket: (target: SocketTarget) => openSocket(target, onLost),
  };
  const client = postgres(url, options);
  if (arrays) {
    const own = arrayTypesOf(client);
    for (const part of ['parsers', 'serializers'] as const) Object.assign(own[part], arrays[part]);
    Object.assign(own.shared.typeArrayMap, arrays.shared.typeArrayMap);
  }
  return client;
}

const arrayTypesOf = (client: Client): ArrayTypes => client.options as Client['options'] & ArrayTypes;

/** What a client learnt from the server, to be given to others. */
function copyArrayTypes(client: Client): ArrayTypes {
  const { parsers, serializers, shared } = arrayTypesOf(client);
  const types = Object.values(shared.typeArrayMap);
  const pick = <T>(all: Record<number, T>): Record<number, T> =>
    Object.fromEntries(types.flatMap((type) => (all[type] === undefined ? [] : [[type, all[type]]])));
  return {
    parsers: pick(parsers),
    serializers: pick(serializers),
    shared: { typeArrayMap: { ...shared.typeArrayMap } },
  };
}

/**
 * Gives the socket before it is connected: a promise that is rejected instead would cost postgres.js one of its
 * connections for good.
 */
function openSocket(target: SocketTarget, onLost: () => void): Socket {
  const socket = target.path
    ? connect(target.path)
    : connect({ host: target.host[0] ?? 'localhost', port: target.port[0] ?? 5432 });
  socket.setNoDelay(true);
  // postgres.js adds its own listener a moment later.
  socket.on('error', () => undefined);
  socket.once('connect', () => socket.once('close', onLost));
  return socket;
}

/** @returns The server's array types. */
async function migrateUnderLock(url: string, migrationsFolder: string): Promise<ArrayTypes> {
  const client = createClient(url, 1);
  try {
    // The only connection of its pool, so lock, migration and release share a session.
    await client.unsafe(`select pg_advisory_lock(${MIGRATION_LOCK})`);
    // Before drizzle changes what it does not want parsed.
    const arrays = copyArrayTypes(client);
    await migrate(drizzle(client), { migrationsFolder });
    await client.unsafe(`select pg_advisory_unlock(${MIGRATION_LOCK})`);
    return arrays;
  } finally {
    await client.end({ timeout: 1 });
  }
}

type Parameters = NonNullable<globalThis.Parameters<Client['unsafe']>[1]>;

class PostgresDatabase implements Database {
  readonly kind = 'postgres';
  readonly orm: Database['orm'];
  readonly #raw: PostgresPool;
  readonly #ormPool: PostgresPool;
  #closed: Promise<void> | undefined;

  constructor(url: string, arrays: ArrayTypes) {
    this.#raw = new PostgresPool((onLost) => createClient(url, RAW_CONNECTIONS_MAX, onLost, arrays));
    // drizzle changes the type parsers of the client it is given, so it gets its own, and each new one is shown to it.
    this.#ormPool = new PostgresPool((onLost) => {
      const client = createClient(url, ORM_CONNECTIONS_MAX, onLost, arrays);
      drizzle(client);
      return client;
    });
    this.orm = drizzle(lastingClient(this.#ormPool), { schema });
  }

  async query<T>(text: string, parameters: readonly unknown[] = []): Promise<T[]> {
    const rows = await this.#raw.client.unsafe(text, [...parameters] as Parameters, { prepare: true });
    return [...(rows as Iterable<T>)];
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return await this.#raw.begin(async (tx) => {
      const query = async <R>(text: string, parameters: readonly unknown[] = []): Promise<R[]> => [
        ...((await tx.unsafe(text, [...parameters] as Parameters, { prepare: true })) as Iterable<R>),
      ];
      return await work({ query });
    });
  }

  async ping(): Promise<void> {
    await this.#raw.client.unsafe('select 1');
  }

  close(): Promise<void> {
    this.#closed ??= Promise.all([this.#raw.end(), this.#ormPool.end()]).then(() => undefined);
    return this.#closed;
  }
}
