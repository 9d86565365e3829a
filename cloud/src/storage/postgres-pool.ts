import { errorMessage } from '@outrider/shared/errors';
import type postgres from 'postgres';

export type Client = ReturnType<typeof postgres>;
export type Transaction = Pick<postgres.TransactionSql, 'unsafe'>;

/** How long what is under way beside a connection that was lost may still take. */
const END_TIMEOUT_S = 1;
/** Codes of postgres.js and of sockets that say that the connection is gone, or goes. */
const LOST_CODES = new Set([
  'CONNECTION_CLOSED',
  'CONNECTION_DESTROYED',
  'CONNECT_TIMEOUT',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
]);
/** SQLSTATE of a server that ends sessions: it stops, has crashed, or was told to. */
const ENDING_STATES = /^57P\d\d$/;

/**
 * postgres.js so that it outlives its server. When a connection closes, it keeps what was half written and the timer
 * that was to write it (3.4.9): the connection that takes its place never gets its first bytes out, or gets old ones
 * out first. And a transaction on it still sends its rollback, on a socket that is null, from a timer, which ends the
 * process. So no client is used again once it has lost a connection, and nothing more is sent in a transaction whose
 * connection is gone.
 */
export class PostgresPool {
  readonly #create: (onLost: () => void) => Client;
  readonly #endings = new Set<Promise<void>>();
  #client: Client;
  #isEnding = false;

  /** @param create Makes a client that calls back whenever a connection that it had is closed. */
  constructor(create: (onLost: () => void) => Client) {
    this.#create = create;
    this.#client = this.#open();
  }

  /** The client to use now. Do not keep it. */
  get client(): Client {
    return this.#client;
  }

  /** Commits when `work` resolves, rolls back when it throws; rejects at once when the connection is lost. */
  async begin<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    let isGone = false;
    const begun = this.client.begin(async (tx) => {
      try {
        return { result: await work(whileThere(tx, () => isGone)) };
      } catch (error) {
        if (!isGone && !isLoss(error)) throw error;
        // Settling would send the rollback. What settles the transaction is that its connection closes.
        return await new Promise<never>(() => undefined);
      }
    });
    begun.catch(() => {
      isGone = true;
    });
    return ((await begun) as { result: T }).result;
  }

  async end(): Promise<void> {
    this.#isEnding = true;
    this.#end(this.#client);
    await Promise.all(this.#endings);
  }

  #open(): Client {
    const client = this.#create(() => {
      // The client has yet to see for itself. What waits in it is refused soon, not left to hang.
      if (this.#client !== client || this.#isEnding) return;
      this.#client = this.#open();
      setImmediate(() => this.#end(client));
    });
    return client;
  }

  #end(client: Client): void {
    const ending = client
      .end({ timeout: END_TIMEOUT_S })
      .catch(() => undefined)
      .then(() => {
        this.#endings.delete(ending);
      });
    this.#endings.add(ending);
  }
}

/** A client for who wants one object for good: each use goes to the pool's client of that moment. */
export function lastingClient(pool: PostgresPool): Client {
  return new Proxy(pool.client, {
    get(_target, key) {
      if (key === 'begin') return (work: (tx: Transaction) => Promise<unknown>) => pool.begin(work);
      const value: unknown = Reflect.get(pool.client, key);
      return value;
    },
  });
}

function whileThere(tx: postgres.TransactionSql, isGone: () => boolean): Transaction {
  return new Proxy(tx, {
    get(target, key) {
      if (key === 'unsafe' && isGone())
        throw Object.assign(new Error('the connection of this transaction is lost'), { code: 'CONNECTION_CLOSED' });
      const value: unknown = Reflect.get(target, key);
      return value;
    },
  });
}

function isLoss(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false;
  const code: unknown = 'code' in error ? error.code : undefined;
  if (typeof code === 'string' && (LOST_CODES.has(code) || ENDING_STATES.test(code))) return true;
  if ('cause' in error && isLoss(error.cause)) return true;
  return errorMessage(error).includes("reading 'write'");
}
