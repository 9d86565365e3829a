import type { EventEmitter } from 'node:events';
import {
  Metadata,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import { DomainError } from '@outrider/shared/errors';
import { requestIdOr } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { Clock } from '@outrider/shared/time';
import { asDomainError } from '../api/errors.ts';
import type { Throttle } from '../api/throttle.ts';
import { type Principal, requireScope, type Scope } from '../identity/principal.ts';
import type { GrpcMetrics } from './grpc-metrics.ts';
import type { PeerAuthenticator } from './peers.ts';
import { serviceError } from './status.ts';

/** A generated message class. */
export interface MessageType<Message, Properties> {
  decode(bytes: Uint8Array): Message;
  encode(message: Properties): { finish(): Uint8Array };
}

/** One method: its messages, and who may call it. */
export interface RpcSpec<Request, RequestProperties, Reply, ReplyProperties> {
  readonly request: MessageType<Request, RequestProperties>;
  readonly reply: MessageType<Reply, ReplyProperties>;
  /** Any of these scopes lets the caller in. `certificate`: a good certificate is enough. */
  readonly access: readonly Scope[] | 'certificate';
  /** `tier`: the caller's requests per minute. `never`: must not be slowed. */
  readonly throttle: 'tier' | 'never';
}

/** What a call carries through the server. */
export interface CallContext {
  /** Of the caller; asks again, so that a stream feels a revocation. @throws DomainError */
  principal(): Promise<Principal>;
  /** The caller's `x-request-id` or a new one: the trace id of all that the call causes. */
  readonly requestId: string;
  /** Aborts when the caller cancelled, its deadline has passed, its connection is lost, or the server stops. */
  readonly signal: AbortSignal;
}

/** Gives a message to the caller; resolves when there is room for the next. @throws when the call has ended. */
export type Send<Properties> = (message: Properties) => Promise<void>;

export interface CallDeps {
  readonly peers: PeerAuthenticator;
  readonly throttle: Throttle;
  readonly metrics: GrpcMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  /** Aborts when the server stops: streams end. */
  readonly stopping: AbortSignal;
}

/** A method with its handler, as the server takes it. */
export interface Method {
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly handle: UntypedHandleCall;
}
export type Methods = Readonly<Record<string, Method>>;

type AnyCall =
  | ServerUnaryCall<Buffer, Uint8Array>
  | ServerWritableStream<Buffer, Uint8Array>
  | ServerDuplexStream<Buffer, Uint8Array>;

/** Wraps the handlers of methods with what every call needs. Messages arrive as bytes and are decoded here. */
export class Calls {
  readonly #deps: CallDeps;

  constructor(deps: CallDeps) {
    this.#deps = deps;
  }

  unary<Request, RequestProperties, Reply, ReplyProperties>(
    spec: RpcSpec<Request, RequestProperties, Reply, ReplyProperties>,
    handle: (request: Request, context: CallContext) => Promise<ReplyProperties>,
  ): Method {
    const handleCall = (call: ServerUnaryCall<Buffer, Uint8Array>, done: sendUnaryData<Uint8Array>): void => {
      void this.#run(call, spec, 'call', async (context) => {
        const reply = await handle(decode(spec.request, call.request), context);
        return Buffer.from(spec.reply.encode(reply).finish());
      }).then(
        (bytes) => done(null, bytes),
        (error: unknown) => done(error as never),
      );
    };
    return { requestStream: false, responseStream: false, handle: handleCall };
  }

  serverStream<Request, RequestProperties, Reply, ReplyProperties>(
    spec: RpcSpec<Request, RequestProperties, Reply, ReplyProperties>,
    handle: (request: Request, context: CallContext, send: Send<ReplyProperties>) => Promise<void>,
  ): Method {
    const handleCall = (call: ServerWritableStream<Buffer, Uint8Array>): void => {
      void this.#run(call, spec, 'stream', async (context) => {
        await handle(decode(spec.request, call.request), context, sender(call, spec.reply, context));
      }).then(
        () => call.end(),
        (error: unknown) => call.emit('error', error),
      );
    };
    return { requestStream: false, responseStream: true, handle: handleCall };
  }

  /** Frames are handed out one by one: the next is read when the handler asks for it. */
  duplex<Request, RequestProperties, Reply, ReplyProperties>(
    spec: RpcSpec<Request, RequestProperties, Reply, ReplyProperties>,
    handle: (requests: AsyncIterable<Request>, context: CallContext, send: Send<ReplyProperties>) => Promise<void>,
  ): Method {
    const handleCall = (call: ServerDuplexStream<Buffer, Uint8Array>): void => {
      void this.#run(call, spec, 'stream', async (context) => {
        await handle(messagesOf(call, spec.request, context), context, sender(call, spec.reply, context));
      }).then(
        () => call.end(),
        (error: unknown) => call.emit('error', error),
      );
    };
    return { requestStream: true, responseStream: true, handle: handleCall };
  }

  async #run<Result>(
    call: AnyCall,
    spec: Pick<RpcSpec<unknown, unknown, unknown, unknown>, 'access' | 'throttle'>,
    kind: 'call' | 'stream',
    work: (context: CallContext) => Promise<Result>,
  ): Promise<Result> {
    const { clock, log, metrics, stopping } = this.#deps;
    const startedMs = clock.monotonicMs();
    const method = call.getPath();
    const requestId = requestIdOr(call.metadata.get('x-request-id')[0]?.toString());
    const ended = new AbortController();
    const end = (): void => ended.abort();
    (call as EventEmitter).once('cancelled', end);
    // A call that has an end by itself may finish while the server stops.
    if (kind === 'stream') stopping.addEventListener('abort', end, { once: true });
    if (call.cancelled) end();
    const initial = new Metadata();
    initial.set('x-request-id', requestId);
    call.sendMetadata(initial);
    const close = kind === 'stream' ? metrics.openStream(method) : () => undefined;
    let code = status.OK;
    let principal: Principal | undefined;
    let failure: DomainError | undefined;
    const identify = async (): Promise<Principal> => {
      const asked = await this.#principalOf(call);
      if (spec.access !== 'certificate') requireScope(asked, spec.access);
      principal = asked;
      return asked;
    };
    try {
      if (spec.access !== 'certificate') {
        const asked = await identify();
        if (spec.throttle === 'tier') await this.#deps.throttle.takeRequest(asked);
      }
      return await work({ requestId, signal: ended.signal, principal: identify });
    } catch (error) {
      failure = stopping.aborted && ended.signal.aborted && !call.cancelled ? shuttingDown() : asDomainError(error);
      const wire = serviceError(failure, requestId);
      code = call.cancelled ? endOf(call, clock.epochMs()) : wire.code;
      throw wire;
    } finally {
      close();
      stopping.removeEventListener('abort', end);
      const durationMs = clock.monotonicMs() - startedMs;
      if (kind === 'call') metrics.observe(method, code, durationMs / 1000);
      else metrics.count(method, code);
      const entry = {
        requestId,
        method,
        code: status[code],
        durationMs: Math.round(durationMs * 1000) / 1000,
        tenantId: principal?.tenantId,
        subject: principal?.sub,
      };
      if (failure?.cause !== undefined && (code === status.INTERNAL || code === status.UNAVAILABLE))
        log.error({ ...entry, err: failure.cause }, 'grpc.failed');
      else log.info(entry, 'grpc.answered');
    }
  }

  async #principalOf(call: AnyCall): Promise<Principal> {
    const authorization = textOf(call.metadata, 'authorization');
    const tenantId = textOf(call.metadata, 'x-tenant-id');
    return this.#deps.peers.authenticate(call.getAuthContext().sslPeerCertificate, {
      ...(authorization === undefined ? {} : { authorization }),
      ...(tenantId === undefined ? {} : { tenantId }),
    });
  }
}

/** Why a call ended that the server did not end. */
function endOf(call: AnyCall, nowMs: number): status {
  const deadline = call.getDeadline();
  return Number(deadline) <= nowMs ? status.DEADLINE_EXCEEDED : status.CANCELLED;
}

/** A metadata value. @throws DomainError `invalid` when it is there twice, since nobody could say which counts. */
function textOf(metadata: Metadata, key: string): string | undefined {
  const values = metadata.get(key);
  if (values.length > 1) throw new DomainError('invalid', `the metadata ${key} is there twice`);
  return values[0]?.toString();
}

function decode<Message>(type: { decode(bytes: Uint8Array): Message }, bytes: Uint8Array): Message {
  try {
    return type.decode(bytes);
  } catch (cause) {
    throw new DomainError('invalid', 'the message is not a valid protobuf message of this method', { cause });
  }
}

function sender<Properties>(
  call: ServerWritableStream<Buffer, Uint8Array> | ServerDuplexStream<Buffer, Uint8Array>,
  type: { encode(message: Properties): { finish(): Uint8Array } },
  { signal }: CallContext,
): Send<Properties> {
  return async (message) => {
    if (signal.aborted) throw callEnded();
    if (call.write(Buffer.from(type.encode(message).finish()))) return;
    await new Promise<void>((resolve, reject) => {
      const done = (): void => {
        call.off('drain', done);
        signal.removeEventListener('abort', done);
        if (signal.aborted) reject(callEnded());
        else resolve();
      };
      call.once('drain', done);
      signal.addEventListener('abort', done, { once: true });
    });
  };
}

/**
 * The messages of a stream as they are asked for. The stream is left open at the end, since the answers go over it, too:
 * a plain `for await` over it would destroy it.
 */
async function* messagesOf<Message>(
  call: ServerDuplexStream<Buffer, Uint8Array>,
  type: { decode(bytes: Uint8Array): Message },
  { signal }: CallContext,
): AsyncGenerator<Message> {
  const source = call.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  let giveUp: () => void = () => undefined;
  const stop = (): void => giveUp();
  signal.addEventListener('abort', stop, { once: true });
  try {
    for (;;) {
      if (signal.aborted) throw callEnded();
      // Not a race with one lasting promise, which would remember every message of a long stream.
      const next = await new Promise<IteratorResult<Buffer>>((resolve, reject) => {
        giveUp = () => reject(callEnded());
        source.next().then(resolve, reject);
      });
      if (next.done === true) return;
      yield decode(type, next.value);
    }
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

const callEnded = (): DomainError => new DomainError('timeout', 'the call has ended');
const shuttingDown = (): DomainError => new DomainError('unavailable', 'the server is going down', { retryAfterS: 1 });
