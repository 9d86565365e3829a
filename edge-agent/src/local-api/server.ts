import { chmodSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import type { Logger } from '@outrider/shared/log';
import { aborted, type Service } from '@outrider/shared/service';
import type { Hono } from 'hono';

const LOOPBACK = '127.0.0.1';

/** Where a local server listens: a Unix socket that only its owner may open, or a loopback port (0: any free one). */
export type LocalAddress = { readonly socket: string } | { readonly port: number };

/** Serves the local API until told to stop. */
export class LocalServer implements Service {
  readonly name = 'local-api';
  readonly #app: Hono;
  readonly #address: LocalAddress;
  readonly #log: Logger;
  readonly #listening: Promise<number>;
  #onListening: (port: number) => void = () => {};

  constructor(app: Hono, address: LocalAddress, log: Logger) {
    this.#app = app;
    this.#address = address;
    this.#log = log;
    this.#listening = new Promise((resolve) => {
      this.#onListening = resolve;
    });
  }

  /** Resolves with the port (0 for a socket) once it listens. */
  listening(): Promise<number> {
    return this.#listening;
  }

  async run(signal: AbortSignal): Promise<void> {
    const server = createAdaptorServer({ fetch: this.#app.fetch });
    const address = this.#address;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      if ('socket' in address) {
        // The state directory is locked by now, so a socket file that is there belongs to a dead agent.
        rmSync(address.socket, { force: true });
        server.listen(address.socket, () => resolve());
      } else server.listen(address.port, LOOPBACK, () => resolve());
    });
    if ('socket' in address) chmodSync(address.socket, 0o600);
    const bound = server.address();
    const port = bound !== null && typeof bound === 'object' ? (bound as AddressInfo).port : 0;
    this.#log.info('socket' in address ? { socket: address.socket } : { port }, 'local_api.listening');
    this.#onListening(port);
    await aborted(signal);
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      if ('closeAllConnections' in server) server.closeAllConnections();
    });
    if ('socket' in address) rmSync(address.socket, { force: true });
  }
}
