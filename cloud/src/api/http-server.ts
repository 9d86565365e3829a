import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createSecureServer, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createAdaptorServer, type ServerType, type WebSocketServerLike } from '@hono/node-server';
import { DomainError } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { aborted, type Service } from '@outrider/shared/service';
import { WebSocketServer } from 'ws';

/** A client that has not sent its headers by then is not going to. */
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 15_000;
/** Node looks for late requests every 30 s by default, which makes 10 s mean up to 40. */
const CHECK_MS = 1_000;
/** Longer than the load balancers of AWS and nginx keep an idle connection, which is 60 s. [s] */
const KEEP_ALIVE_S = 75;
/** An idle connection is kept so much longer than its client is told: a question sent in the last moment arrives. */
const KEEP_ALIVE_MARGIN_MS = 5_000;
const CONNECTIONS_MAX = 10_000;
const HEADER_BYTES_MAX = 16 * 1024;
/** Consoles send pings and nothing else. */
const WEBSOCKET_MESSAGE_BYTES_MAX = 64 * 1024;
/** How long open requests may take to end when the server stops. */
const DRAIN_MS = 3_000;

export interface ListenOptions {
  readonly name: 'http' | 'https';
  readonly fetch: (request: Request, env: unknown) => Promise<Response> | Response;
  readonly host: string;
  readonly port: number;
  /** Absent: plain HTTP/1.1. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** How long an idle connection is kept, as clients are told. [s] */
  readonly keepAliveS?: number;
  readonly log: Logger;
}

/** One listener: HTTP/1.1, or TLS with HTTP/2 and HTTP/1.1. */
export class HttpServer implements Service {
  readonly name: string;
  readonly #options: ListenOptions;
  readonly #server: ServerType;
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();

  constructor(options: ListenOptions) {
    this.name = options.name;
    this.#options = options;
    this.#server = build(options);
    this.#server.on('session', (session: ServerHttp2Session) => {
      this.#sessions.add(session);
      session.once('close', () => this.#sessions.delete(session));
    });
    const event = options.tls ? 'secureConnection' : 'connection';
    this.#server.on(event, (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      socket.on('error', (error) => options.log.debug({ err: error }, 'socket.failed'));
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
    const { host, port, name } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => reject(explainListen(error, name, host, port)));
      this.#server.listen(port, host, () => resolve());
    });
    this.#server.on('error', (error) => this.#options.log.error({ err: error, listener: name }, 'listener.failed'));
  }

  /** Serves until `signal` aborts; open requests then have 3 s to end. */
  async run(signal: AbortSignal): Promise<void> {
    await aborted(signal);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    if ('closeIdleConnections' in this.#server) this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#destroySockets(), DRAIN_MS);
    for (const session of this.#sessions) session.close();
    await closed;
    clearTimeout(timer);
  }

  /** Frees the port without having served. */
  async close(): Promise<void> {
    this.#destroySockets();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #destroySockets(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

function build({ fetch, host, tls, log, keepAliveS = KEEP_ALIVE_S }: ListenOptions): ServerType {
  const webSockets = new WebSocketServer({
    noServer: true,
    maxPayload: WEBSOCKET_MESSAGE_BYTES_MAX,
    perMessageDeflate: false,
  });
  const common = {
    fetch,
    hostname: host,
    websocket: { server: webSockets as unknown as WebSocketServerLike },
  };
  const limits = { maxHeaderSize: HEADER_BYTES_MAX, connectionsCheckingInterval: CHECK_MS };
  const server = tls
    ? createAdaptorServer({
        ...common,
        createServer: createSecureServer,
        serverOptions: {
          ...limits,
          ...tls,
          allowHTTP1: true,
          minVersion: 'TLSv1.2',
          handshakeTimeout: HEADERS_TIMEOUT_MS,
          settings: { maxConcurrentStreams: 256 },
        },
      })
    : createAdaptorServer({ ...common, createServer, serverOptions: limits });
  const idleMs = keepAliveS * 1000 + KEEP_ALIVE_MARGIN_MS;
  // Covers HTTP/2 sessions, which the timeouts of HTTP/1.1 below do not know; live streams have heartbeats well within it.
  if (tls) server.setTimeout(idleMs);
  if ('connectionsCheckingInterval' in server) server.connectionsCheckingInterval = CHECK_MS;
  server.maxConnections = CONNECTIONS_MAX;
  if ('headersTimeout' in server) server.headersTimeout = HEADERS_TIMEOUT_MS;
  if ('requestTimeout' in server) server.requestTimeout = REQUEST_TIMEOUT_MS;
  if ('keepAliveTimeout' in server) server.keepAliveTimeout = idleMs;
  // Node would tell clients the very time after which it hangs up, so that one that asks just then finds it doing so.
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    if (request.httpVersionMajor === 1) response.setHeader('Keep-Alive', `timeout=${keepAliveS}`);
  });
  server.on('sessionError', (error: Error) => log.debug({ err: error }, 'session.failed'));
  onlyWebSocketUpgrades(server);
  return server;
}

/**
 * A server with an upgrade listener gets every upgrade, and the adapter ignores those that are not WebSocket: their
 * sockets (curl's `Upgrade: h2c`) would stay open unanswered for ever.
 */
function onlyWebSocketUpgrades(server: ServerType): void {
  const listeners = server.listeners('upgrade') as ((request: IncomingMessage, socket: Duplex, head: Buffer) => void)[];
  server.removeAllListeners('upgrade');
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (request.headers.upgrade?.toLowerCase() === 'websocket') {
      for (const listener of listeners) listener(request, socket, head);
      return;
    }
    socket.on('error', () => socket.destroy());
    socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  });
}

function explainListen(error: NodeJS.ErrnoException, name: string, host: string, port: number): DomainError {
  const option = `--${name}-port`;
  const reasons: Record<string, string> = {
    EADDRINUSE: `port ${port} on ${host} is taken: stop what listens there, or choose another with ${option} (0 takes any free one)`,
    EACCES: `port ${port} may not be opened by this user: choose one above 1023 with ${option}`,
    EADDRNOTAVAIL: `${host} is not an address of this machine: change --host`,
    ENOTFOUND: `the host name ${host} is not known: change --host`,
  };
  return new DomainError(
    'unavailable',
    reasons[error.code ?? ''] ?? `${name} could not listen on ${host}:${port}: ${error.message}`,
    { cause: error },
  );
}
