import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { sql } from 'drizzle-orm';
import t from 'tap';
import { type Database, openDatabase } from '../src/storage/database.ts';
import { noPostgres, startPostgres, until } from '../src/testing/engines.ts';

const WORKERS = 24;
const OUTAGES = 3;
const log = createLogger('test', 'silent');
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** What a busy server does with its database: transactions that do something else in between, queries, drizzle. */
async function work(database: Database, round: number): Promise<void> {
  if (round % 3 === 0) {
    await database.transaction(async (tx) => {
      await tx.query('select pg_sleep(0.002)');
      await turn();
      await tx.query('insert into counted (n) values ($1)', [round]);
      await turn();
      await tx.query('select $1::text', ['x'.repeat(2000)]);
    });
  } else if (round % 3 === 1) await database.query('select pg_sleep(0.001), $1::int4', [round]);
  else
    await database.orm.transaction(async (tx) => {
      await tx.execute(sql`select pg_sleep(0.001)`);
      await turn();
      await tx.execute(sql`select 1`);
    });
}

t.test(
  'a database that goes away under load takes no process with it and is used again',
  { skip: noPostgres },
  async (t) => {
    const postgres = await startPostgres();
    t.teardown(() => postgres.stop());
    const database = await openDatabase({ databaseUrl: postgres.url, dataDir: '', log, clock: systemClock });
    await database.query('create table counted (n int4)');
    let isOver = false;
    let done = 0;
    let failed = 0;
    let committed = 0;
    const workers = Array.from({ length: WORKERS }, async (_, worker) => {
      for (let round = worker; !isOver; round += 1) {
        try {
          await work(database, round);
          done += 1;
          if (round % 3 === 0) committed += 1;
        } catch {
          failed += 1;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    });
    for (let outage = 0; outage < OUTAGES; outage += 1) {
      const before = done;
      await until(() => done > before + 200, 'work to be done');
      const failures = failed;
      await postgres.pause();
      await until(() => failed > failures + WORKERS, 'work to fail');
      await postgres.resume();
    }
    const before = done;
    await until(() => done > before + 500, 'work to be done again');
    isOver = true;
    await Promise.all(workers);
    const failures = failed;
    await Promise.all(Array.from({ length: 100 }, (_, round) => work(database, round)));
    t.equal(failed, failures, 'no connection is left that does not work');
    const [row] = await database.query<{ n: number }>('select count(*)::int8 as n from counted');
    t.ok((row?.n ?? 0) >= committed, `${committed} transactions were committed, and ${row?.n} are there`);
    const closed = database.close().then(() => true);
    const late = new Promise<false>((resolve) => setTimeout(() => resolve(false), 60_000).unref());
    t.equal(await Promise.race([closed, late]), true, 'it closes');
  },
);

/** Lets a connection through up to what the client says once it is logged in; cuts it there while `isCutting`. */
async function startCuttingProxy(
  port: number,
): Promise<{ port: number; cuts: () => number; cut: (on: boolean) => void }> {
  let isCutting = false;
  let cuts = 0;
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1');
    let isLoggedIn = false;
    upstream.on('data', (bytes) => {
      // ReadyForQuery: type, length 5, state.
      isLoggedIn ||= bytes.subarray(-6, -1).equals(Buffer.from([90, 0, 0, 0, 5]));
      client.write(bytes);
    });
    client.on('data', (bytes) => {
      if (!isLoggedIn || !isCutting) upstream.write(bytes);
      else {
        cuts += 1;
        client.destroy();
        upstream.destroy();
      }
    });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        client.destroy();
        upstream.destroy();
      });
    }
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    port: (server.address() as AddressInfo).port,
    cuts: () => cuts,
    cut: (on) => {
      isCutting = on;
      if (on) for (const socket of sockets) socket.destroy();
    },
  };
}

t.test('a connection that closes right after its log-in ends no process', { skip: noPostgres }, async (t) => {
  const postgres = await startPostgres();
  t.teardown(() => postgres.stop());
  const target = new URL(postgres.url);
  const proxy = await startCuttingProxy(Number(target.port));
  target.port = String(proxy.port);
  const database = await openDatabase({ databaseUrl: target.href, dataDir: '', log, clock: systemClock });
  t.teardown(() => database.close());
  t.same(
    await database.query('select $1::text[] as words, $2::int8[] as numbers', [
      ['a', 'b,"c'],
      [1, 2],
    ]),
    [{ words: ['a', 'b,"c'], numbers: [1, 2] }],
  );
  proxy.cut(true);
  let refused = 0;
  await until(async () => {
    const answers = await Promise.allSettled([
      ...Array.from({ length: 6 }, () => database.query('select 1')),
      database.transaction((tx) => tx.query('select 1')),
      database.orm.execute(sql`select 1`),
    ]);
    refused += answers.filter(({ status }) => status === 'rejected').length;
    return proxy.cuts() > 20;
  }, 'twenty connections to be cut');
  t.ok(refused > 0, `${refused} questions were refused`);
  proxy.cut(false);
  const words = [['x', 'y']];
  await until(
    () =>
      database.query<{ words: string[] }>('select $1::text[] as words', words).then(
        ([row]) => row?.words.length === 2,
        () => false,
      ),
    'an answer again',
  );
  t.same(
    await database.query('select $1::text[] as words', words),
    [{ words: ['x', 'y'] }],
    'arrays are read as before',
  );
});
