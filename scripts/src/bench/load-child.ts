/**
 * Load for the latency rows: `disk` commits to SQLite without a pause, `mqtt` publishes to a broker in the same process
 * without a pause. Each takes a core. Ends with its parent.
 */
import { createHash } from 'node:crypto';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { Aedes } from 'aedes';
import Database from 'better-sqlite3';
import { connectAsync } from 'mqtt';

const ROWS_PER_COMMIT = 20;
const BODY = Buffer.alloc(4096, 'outrider');

process.on('disconnect', () => process.exit(0));
const [, , kind, directory = '.'] = process.argv;
if (kind === 'disk') disk();
else await publish();

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
