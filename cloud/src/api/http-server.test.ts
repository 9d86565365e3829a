import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { createLogger } from '@outrider/shared/log';
import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import { createAuthority, validFor } from '../certificates/x509.ts';
import { HttpServer } from './http-server.ts';

const log = createLogger('test', 'silent');
const never = new AbortController().signal;
const { certificatePem: cert, privateKeyPem: key } = await createAuthority(
  'localhost',
  validFor(systemClock.epochMs(), 3_600_000),
);

async function serve(name: 'http' | 'https', keepAliveS?: number): Promise<HttpServer> {
  const server = new HttpServer({
    ...{ name, host: '127.0.0.1', port: 0, log, fetch: () => new Response('here') },
    ...(keepAliveS === undefined ? {} : { keepAliveS }),
    ...(name === 'https' ? { tls: { cert, key } } : {}),
  });
  await server.listen();
  t.teardown(() => server.close());
  return server;
}

const open = ({ name, port }: HttpServer): Socket =>
  name === 'https' ? connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false }) : connect(port, '127.0.0.1');

/** The next answer on a connection, or `closed`. */
const ask = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    socket.once('data', (bytes: Buffer) => resolve(bytes.toString('latin1')));
    socket.once('close', () => resolve('closed'));
    socket.once('error', () => resolve('closed'));
    socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n');
  });

const toldS = (answer: string): number => Number(/^keep-alive: timeout=(\d+)\r$/im.exec(answer)?.[1]);

for (const name of ['http', 'https'] as const) {
  t.test(`${name}: an idle connection is kept longer than a load balancer keeps it`, async (t) => {
    const socket = open(await serve(name));
    // 60 s is the default of AWS and nginx.
    t.ok(toldS(await ask(socket)) > 60);
    socket.destroy();
  });

  t.test(
    `${name}: a connection used again when its told time is over does not find the server hanging up`,
    async (t) => {
      const socket = open(await serve(name, 1));
      t.equal(toldS(await ask(socket)), 1);
      await pause(1_200, never);
      t.match(await ask(socket), /^HTTP\/1.1 200/);
      socket.destroy();
    },
  );
}
