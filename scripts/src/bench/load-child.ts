/**
 * Load for the latency rows and the campaigns: `disk` commits to SQLite without a pause, `mqtt` publishes to a broker in
 * the same process without a pause, `cpu` spins. Each takes a core. Ends with its parent.
 */
import { createHash } from 'node:crypto';
import { type AddressInfo, createServer } from 'node:net';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { setImmediate as yieldOnce } from 'node:timers/promises';
import { systemClock } from '@outrider/shared/time';
import { Aedes } from 'aedes';
import Database from 'better-sqlite3';
import { connectAsync } from 'mqtt';

const ROWS_PER_COMMIT = 20;
const BODY = Buffer.alloc(4096, 'outrider');

process.on('disconnect', () => process.exit(0));
const [, , kind, directory = '.', nice = '0'] = process.argv;
setPriority(Number(nice));
if (kind === 'disk') disk();
else if (kind === 'cpu') await spin();
else await publish();

async function spin(): Promise<void> {
  for (;;) {
    const untilMs = systemClock.monotonicMs() + 50;
    while (systemClock.monotonicMs() < untilMs);
    await yieldOnce();
  }
}

function disk(): void {
  const db = new Database(join(directory, `load-${process.pid}.db`));
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec('create table load (id integer primary key, digest text, body blob)');
  const insert = db.prepare('insert into load (digest, body) values (?, ?)');
  const trim = db.prepare('delete from load where id < ?');
  const round = (): void => {
    db.transaction(() => {
      for (let row = 0; row < ROWS_PER_COMMIT; row += 1) {
        const { lastInsertRowid } = insert.run(createHash('sha256').update(BODY).digest('hex'), BODY);
        trim.run(Number(lastInsertRowid) - 2000);
      }
    })();
    setImmediate(round);
  };
  round();
}

async function publish(): Promise<void> {
  const broker = await Aedes.createBroker();
  const server = createServer((socket) => broker.handle(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = await connectAsync(`mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`);
  await client.subscribeAsync('load', { qos: 1 });
  for (;;) await Promise.all(Array.from({ length: 8 }, () => client.publishAsync('load', BODY, { qos: 1 })));
}
