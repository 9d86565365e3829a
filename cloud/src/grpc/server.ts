import { Server, ServerCredentials, type ServiceDefinition } from '@grpc/grpc-js';
import type { Logger } from '@outrider/shared/log';
import { aborted, type Service } from '@outrider/shared/service';
import type { Registry } from 'prom-client';
import type { Core } from '../api/core.ts';
import type { ClientCertificates } from '../certificates/client-certificates.ts';
import { Calls, type Methods } from './calls.ts';
import { commandService } from './command-service.ts';
import { eventService } from './event-service.ts';
import { failsafeService } from './failsafe-service.ts';
import { GrpcMetrics } from './grpc-metrics.ts';
import { TlsListener } from './listener.ts';
import { PeerAuthenticator } from './peers.ts';
import { probeService } from './probe-service.ts';
import { reflectionService } from './reflection-service.ts';
import { robotHealthService } from './robot-health-service.ts';
import { telemetryService } from './telemetry-service.ts';

/** Largest message either way. A stream may hold sixteen of them before it is stored. */
export const MESSAGE_BYTES_MAX = 1024 * 1024;
/** Of one connection. */
const STREAMS_MAX = 100;
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_ANSWER_MS = 10_000;
/** Connections without a call. */
const IDLE_MS = 15 * 60_000;
/** What one connection may make the server hold. [MB] */
const SESSION_MEMORY_MB = 32;
/** How long open calls may take to end when the server stops. */
const DRAIN_MS = 3_000;

const PACKAGE = 'outrider.api.v1';
const FAILSAFE = `${PACKAGE}.FailsafeService`;
const HEALTH = 'grpc.health.v1.Health';
const REFLECTION = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'] as const;
export interface GrpcOptions {
  readonly host: string;
  readonly port: number;
  readonly core: Core;
  readonly clients: ClientCertificates;
  readonly metrics: Registry;
  /** Of the server, and who signs callers. */
  readonly tls: { readonly cert: string; readonly key: string; readonly caPem: string };
  readonly log: Logger;
}

/** Service-to-service calls: gRPC over mutual TLS, with the operations and the rights of the HTTP API. */
export class GrpcServer implements Service {
  readonly name = 'grpc';
  readonly #server: Server;
  readonly #listener: TlsListener;
  readonly #stop = new AbortController();

  constructor({ host, port, core, clients, metrics, tls, log }: GrpcOptions) {
    const calls = new Calls({
      peers: new PeerAuthenticator({
        certificates: core.certificates,
        clients,
        authenticator: core.authenticator,
        clock: core.clock,
      }),
      throttle: core.throttle,
      metrics: new GrpcMetrics(metrics),
      clock: core.clock,
      log,
      stopping: this.#stop.signal,
    });
    this.#server = new Server({
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_concurrent_streams': STREAMS_MAX,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_ANSWER_MS,
      'grpc.max_connection_idle_ms': IDLE_MS,
      'grpc-node.max_session_memory': SESSION_MEMORY_MB,
      'grpc.enable_channelz': 0,
    });
    const services = new Map<string, Methods>([
      [`${PACKAGE}.TelemetryService`, telemetryService(core, calls)],
      [`${PACKAGE}.RobotHealthService`, robotHealthService(core, calls)],
      [`${PACKAGE}.CommandService`, commandService(core, calls)],
      [`${PACKAGE}.EventService`, eventService(core, calls)],
      [FAILSAFE, failsafeService(core, calls)],
    ]);
    const reflection = reflectionService(calls);
    for (const name of REFLECTION) services.set(name, reflection);
    const names = new Set([...services.keys(), HEALTH]);
    services.set(HEALTH, probeService(core.readiness, { names, withoutDatabase: new Set([FAILSAFE]) }, calls));
    for (const [name, methods] of services) {
      const handlers = Object.entries(methods).map(([method, { handle }]) => [method, handle]);
      this.#server.addService(definitionOf(name, methods), Object.fromEntries(handlers));
    }
    // The listener has done the TLS; what comes here is HTTP/2 over a connection of a caller that is known.
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#listener = new TlsListener({
      host,
      port,
      ...tls,
      log,
      onConnection: (socket) => injector.injectConnection(socket),
    });
  }

  get port(): number {
    return this.#listener.port;
  }

  get connectionCount(): number {
    return this.#listener.connectionCount;
  }

  /** @throws DomainError `unavailable` that names the option to change. */
  async listen(): Promise<void> {
    await this.#listener.listen();
  }

  /** Serves until `signal` aborts; streams then end, and open calls have 3 s to. */
  async run(signal: AbortSignal): Promise<void> {
    await aborted(signal);
    this.#stop.abort();
    this.#listener.refuseMore();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#server.forceShutdown();
        resolve();
      }, DRAIN_MS);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    await this.#listener.close();
  }

  /** Frees the port without having served. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#server.forceShutdown();
    await this.#listener.close();
  }
}

/** Messages pass as bytes: the handlers decode them, so that a bad one is the caller's error and not ours. */
function definitionOf(name: string, methods: Methods): ServiceDefinition {
  const asBytes = (bytes: Buffer): Buffer => bytes;
  return Object.fromEntries(
    Object.entries(methods).map(([method, { requestStream, responseStream }]) => [
      method,
      {
        path: `/${name}/${method}`,
        requestStream,
        responseStream,
        requestSerialize: asBytes,
        requestDeserialize: asBytes,
        responseSerialize: asBytes,
        responseDeserialize: asBytes,
      },
    ]),
  );
}
