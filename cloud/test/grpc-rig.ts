import 'reflect-metadata';
import {
  type CallOptions,
  Client,
  type ClientDuplexStream,
  type ClientOptions,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { google } from '@outrider/shared/protocol/api-messages';
import * as x509 from '@peculiar/x509';
import { exportKey, generateKeyPair } from '../src/certificates/x509.ts';
import type { MessageType } from '../src/grpc/calls.ts';
import { GrpcServer } from '../src/grpc/server.ts';
import { SCOPES, type Scope } from '../src/identity/principal.ts';
import { type Harness, startHarness } from './api-harness.ts';

/** A certificate with its key. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

/** A method as a client needs it. */
export interface RemoteMethod<Request, Reply> {
  readonly path: string;
  readonly request: { encode(message: Request): { finish(): Uint8Array } };
  readonly reply: { decode(bytes: Uint8Array): Reply };
}

/** A method of a service. */
export const methodOf = <RequestProperties, Reply>(
  service: string,
  method: string,
  request: MessageType<unknown, RequestProperties>,
  reply: MessageType<Reply, never>,
): RemoteMethod<RequestProperties, Reply> => ({ path: `/${service}/${method}`, request, reply });

export interface Outcome<Reply> {
  readonly reply: Reply | undefined;
  readonly error: ServiceError | undefined;
  readonly requestId: unknown;
}

/** A client of our server on a real connection. */
export class Caller {
  readonly client: Client;

  constructor(port: number, caPem: string, pair: Pair | undefined, options: ClientOptions = {}) {
    const channel = credentials.createSsl(
      Buffer.from(caPem),
      pair ? Buffer.from(pair.key) : null,
      pair ? Buffer.from(pair.cert) : null,
    );
    this.client = new Client(`localhost:${port}`, channel, {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.enable_retries': 0,
      ...options,
    });
  }

  call<Request, Reply>(
    method: RemoteMethod<Request, Reply>,
    request: Request,
    options: { metadata?: Readonly<Record<string, string>>; deadlineMs?: number } = {},
  ): Promise<Outcome<Reply>> {
    return new Promise((resolve) => {
      const result: { reply?: Reply; error?: ServiceError; requestId?: unknown } = {};
      const call = this.client.makeUnaryRequest(
        method.path,
        (message: Request) => Buffer.from(method.request.encode(message).finish()),
        (bytes: Buffer) => method.reply.decode(bytes),
        request,
        metadataOf(options.metadata),
        deadlineOf(options.deadlineMs),
        (error, reply) => {
          if (error) result.error = error;
          if (reply) result.reply = reply;
        },
      );
      call.on('metadata', (metadata: Metadata) => {
        result.requestId = metadata.get('x-request-id')[0];
      });
      call.on('status', () =>
        setImmediate(() => resolve({ reply: result.reply, error: result.error, requestId: result.requestId })),
      );
    });
  }

  watch<Request, Reply>(
    method: RemoteMethod<Request, Reply>,
    request: Request,
    deadlineMs?: number,
  ): ClientReadableStream<Reply> {
    return this.client.makeServerStreamRequest(
      method.path,
      (message: Request) => Buffer.from(method.request.encode(message).finish()),
      (bytes: Buffer) => method.reply.decode(bytes),
      request,
      new Metadata(),
      deadlineOf(deadlineMs),
    );
  }

  stream<Request, Reply>(
    method: RemoteMethod<Request, Reply>,
    metadata?: Readonly<Record<string, string>>,
  ): ClientDuplexStream<Request, Reply> {
    return this.client.makeBidiStreamRequest(
      method.path,
      (message: Request) => Buffer.from(method.request.encode(message).finish()),
      (bytes: Buffer) => method.reply.decode(bytes),
      metadataOf(metadata),
    );
  }

  close(): void {
    this.client.close();
  }
}

function metadataOf(values: Readonly<Record<string, string>> = {}): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(values)) metadata.set(key, value);
  return metadata;
}

const deadlineOf = (ms: number | undefined): CallOptions => (ms === undefined ? {} : { deadline: Date.now() + ms });

/** What the trailers say beside the code. */
export function detailsOf(error: ServiceError | undefined): {
  reason: string;
  requestId: string;
  fields: (string | null | undefined)[];
} {
  const bytes = error?.metadata.get('grpc-status-details-bin')[0] as Buffer | undefined;
  const found = { reason: '', requestId: '', fields: [] as (string | null | undefined)[] };
  if (!bytes) return found;
  const { BadRequest, ErrorInfo, RequestInfo, Status } = google.rpc;
  for (const { type_url, value } of Status.decode(bytes).details) {
    if (!value) continue;
    if (type_url?.endsWith('ErrorInfo')) found.reason = ErrorInfo.decode(value).reason;
    if (type_url?.endsWith('RequestInfo')) found.requestId = RequestInfo.decode(value).request_id;
    if (type_url?.endsWith('BadRequest'))
      found.fields = BadRequest.decode(value).field_violations.map(({ field }) => field);
  }
  return found;
}

/** What a stream gives until it ends, and how. */
export function drain<Reply>(
  stream: ClientReadableStream<Reply> | ClientDuplexStream<never, Reply>,
): Promise<{ replies: Reply[]; error: ServiceError | undefined }> {
  return new Promise((resolve) => {
    const replies: Reply[] = [];
    stream.on('data', (reply: Reply) => replies.push(reply));
    stream.on('error', (error: ServiceError) => resolve({ replies, error }));
    stream.on('end', () => setImmediate(() => resolve({ replies, error: undefined })));
  });
}

export interface GrpcRig extends Harness {
  readonly grpc: GrpcServer;
  caller(pair: Pair | undefined, options?: ClientOptions): Caller;
  /** A service's certificate. */
  service(tenantId: string, scopes: readonly Scope[], robotIds?: readonly string[]): Promise<Pair>;
  /** The certificate of a robot that is registered. */
  robot(tenantId: string, robotId: string): Promise<Pair>;
  /** A certificate of any name, signed by the installation. It is on record only for a robot that is registered. */
  certified(commonName: string): Promise<Pair>;
  /** Stops gRPC alone, as at the end of the process. */
  stopGrpc(): Promise<void>;
}

/** The HTTP harness, and gRPC beside it on a real port. */
export async function startGrpcRig(options: Parameters<typeof startHarness>[0] = {}): Promise<GrpcRig> {
  const harness = await startHarness(options);
  const { authority, clientCertificates, api } = harness;
  const { certificatePem: cert, privateKeyPem: key } = await authority.serverCertificate([]);
  const grpc = new GrpcServer({
    host: '127.0.0.1',
    port: 0,
    core: api.core,
    clients: clientCertificates,
    metrics: harness.metrics,
    tls: { cert, key, caPem: authority.caPem },
    log: api.core.log,
  });
  await grpc.listen();
  const stop = new AbortController();
  const running = grpc.run(stop.signal);
  const callers: Caller[] = [];
  let services = 0;
  const stopGrpc = async (): Promise<void> => {
    stop.abort();
    await running;
  };
  return {
    ...harness,
    grpc,
    stopGrpc,
    caller(pair, clientOptions) {
      const caller = new Caller(grpc.port, authority.caPem, pair, clientOptions);
      callers.push(caller);
      return caller;
    },
    async service(tenantId, scopes, robotIds) {
      services += 1;
      const issued = await clientCertificates.issue({
        kind: 'service',
        tenantId,
        name: `service-${services}`,
        scopes,
        ...(robotIds ? { robotIds } : {}),
      });
      return { cert: issued.certificatePem, key: issued.privateKeyPem };
    },
    async robot(tenantId, robotId) {
      const keys = await generateKeyPair();
      const request = await x509.Pkcs10CertificateRequestGenerator.create({
        name: 'CN=any',
        keys,
        signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      });
      const principal = { kind: 'client', sub: 'test', tenantId, scopes: SCOPES } as const;
      const robot = await api.core.robots.find(principal, robotId);
      const issued = await api.core.certificates.issueRobotCertificate(robot, request.toString('pem'));
      return { cert: issued.certificatePem, key: await exportKey(keys.privateKey) };
    },
    async certified(commonName) {
      const keys = await generateKeyPair();
      const certificate = await authority.signClient(commonName, keys.publicKey, 1);
      return { cert: certificate.toString('pem'), key: await exportKey(keys.privateKey) };
    },
    async close() {
      for (const caller of callers) caller.close();
      await stopGrpc();
      await harness.close();
    },
  };
}
