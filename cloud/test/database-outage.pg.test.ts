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
    const late = new Promise<false>((resolve) => setTimeout(() => resolve(false), 12_000).unref());
    t.equal(await Promise.race([closed, late]), true, 'it closes');
  },
);
