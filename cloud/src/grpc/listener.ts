import type { AddressInfo } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';

/** A peer that has not finished the handshake by then is not going to. */
const HANDSHAKE_MS = 10_000;
const CONNECTIONS_MAX = 2_000;

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  /** Of the server. */
  readonly cert: string;
  readonly key: string;
  /** Who signs callers. */
  readonly caPem: string;
  readonly log: Logger;
  readonly onConnection: (socket: TLSSocket) => void;
}

/**
 * Accepts connections of callers whose certificate the installation's authority has signed; nobody else gets past the
 * handshake. grpc-js could listen itself, but has no bound on connections and waits two minutes for a handshake.
 */
export class TlsListener {
  readonly #options: ListenerOptions;
  readonly #server: Server;
  readonly #sockets = new Set<TLSSocket>();

  constructor(options: ListenerOptions) {
    this.#options = options;
    const { cert, key, caPem, log } = options;
    this.#server = createServer({
      cert,
      key,
      ca: caPem,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['h2'],
      handshakeTimeout: HANDSHAKE_MS,
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.on('tlsClientError', (error) => log.debug({ err: error }, 'grpc.handshake_failed'));
    this.#server.on('secureConnection', (socket) => {
      socket.on('error', (error) => log.debug({ err: error }, 'grpc.socket_failed'));
      // A caller that names no protocol in its handshake speaks none that we know.
      if (socket.alpnProtocol !== 'h2') {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      options.onConnection(socket);
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connectionCount(): number {
    return this.#sockets.size;
  }

  /** @throws DomainError `unavailable` that names the option to change. */
  async listen(): Promise<void> {
    const { host, port, log } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => {
        const advice =
          error.code === 'EADDRINUSE'
            ? 'stop what listens there, or choose another with --grpc-port (0 takes any free one)'
            : errorMessage(error);
        reject(
          new DomainError('unavailable', `port ${port} on ${host} cannot be used for gRPC: ${advice}`, {
            cause: error,
          }),
        );
      });
      this.#server.listen(port, host, () => resolve());
    });
    this.#server.on('error', (error) => log.error({ err: error }, 'grpc.listener_failed'));
  }

  /** Takes no more connections; those that are open stay. */
  refuseMore(): void {
    this.#server.close();
  }

  /** Ends every connection and frees the port. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
