import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { DomainError } from './errors.ts';

/**
 * Below the ports from which outgoing connections are made (32768 and up on Linux): one of those could take the port of
 * a server while it restarts, and keep it for as long as it lasts.
 */
const [FIRST, LAST] = [15_000, 32_000];
const TRIES_MAX = 100;

/** A port of 127.0.0.1 on which nobody listens now, for a server that may be restarted on it. @throws DomainError `unavailable` */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    const port = randomInt(FIRST, LAST);
    if (await canListen(port)) return port;
  }
  throw new DomainError('unavailable', `no free port among ${TRIES_MAX} between ${FIRST} and ${LAST}`);
}

function canListen(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
