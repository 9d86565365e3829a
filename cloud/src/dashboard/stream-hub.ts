import { DomainError } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { aborted, type Service } from '@outrider/shared/service';
import { type Clock, toIso } from '@outrider/shared/time';
import type { Principal } from '../identity/principal.ts';
import type { LiveFeed, LiveFilter } from '../telemetry/ports.ts';
import { describeUpdate } from './live-messages.ts';
import type { StreamGrant } from './tickets.ts';

/** Bytes that may wait for one client. Past it the client is dropped: it would only ever see old data. */
export const WAITING_BYTES_MAX = 1024 * 1024;
const HEARTBEAT_MS = 15_000;
const RECHECK_MS = 60_000;
const STREAMS_MAX = 2_000;
const STREAMS_PER_ACCOUNT_MAX = 500;

/** Why the server ends a stream. */
export const STREAM_ENDS = ['slow', 'unauthenticated', 'shutdown', 'unresponsive'] as const;
export type StreamEnd = (typeof STREAM_ENDS)[number];

/** One client's transport. */
export interface LiveSink {
  /** Sends one JSON text. */
  send(type: string, json: string): void;
  heartbeat(): void;
  /** What was sent and has not left yet. [bytes] */
  waitingBytes(): number;
  /** Whether the client is known to be there. */
  isResponsive(): boolean;
  end(reason: StreamEnd): void;
}

interface Client {
  readonly sink: LiveSink;
  readonly grant: StreamGrant;
  readonly account: string;
  unsubscribe: () => void;
  checkedMs: number;
}

/** Live updates to many clients, each with a bounded queue. */
export class StreamHub implements Service {
  readonly name = 'live-streams';
  readonly #feed: LiveFeed;
  readonly #recheck: (secret: string) => Promise<Principal>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #clients = new Set<Client>();
  readonly #dropped: (reason: StreamEnd) => void;

  constructor(deps: {
    feed: LiveFeed;
    recheck: (secret: string) => Promise<Principal>;
    clock: Clock;
    log: Logger;
    onDropped?: (reason: StreamEnd) => void;
  }) {
    this.#feed = deps.feed;
    this.#recheck = deps.recheck;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#dropped = deps.onDropped ?? (() => undefined);
  }

  get clientCount(): number {
    return this.#clients.size;
  }

  /** @throws DomainError `too_many` when the account, or the server, has too many streams open. */
  checkRoom(principal: Principal): void {
    const account = accountOf(principal);
    const own = [...this.#clients].filter((client) => client.account === account).length;
    if (own >= STREAMS_PER_ACCOUNT_MAX || this.#clients.size >= STREAMS_MAX)
      throw new DomainError('too_many', 'too many streams are open', { retryAfterS: 10 });
  }

  /** Starts the stream. @returns Ends it from the client's side. */
  open(grant: StreamGrant, filter: LiveFilter, sink: LiveSink): () => void {
    const client: Client = {
      sink,
      grant,
      account: accountOf(grant.principal),
      unsubscribe: () => undefined,
      checkedMs: this.#clock.monotonicMs(),
    };
    this.#clients.add(client);
    this.#deliver(client, 'welcome', {
      type: 'welcome',
      timestamp: toIso(this.#clock.epochMs()),
      data: { tenant_id: filter.tenantId, robot_ids: filter.robotIds ?? null, heartbeat_s: HEARTBEAT_MS / 1000 },
    });
    client.unsubscribe = this.#feed.subscribe(filter, (update) => {
      const message = describeUpdate(update);
      this.#deliver(client, message.type, message);
    });
    return () => this.#forget(client);
  }

  /** Heartbeats, and tokens checked again, until `signal` aborts; then every stream ends. */
  async run(signal: AbortSignal): Promise<void> {
    const timer = setInterval(() => this.#tend(), HEARTBEAT_MS);
    await aborted(signal);
    clearInterval(timer);
    for (const client of this.#clients) this.#end(client, 'shutdown');
  }

  #deliver(client: Client, type: string, message: unknown): void {
    if (!this.#clients.has(client)) return;
    if (client.sink.waitingBytes() > WAITING_BYTES_MAX) this.#end(client, 'slow');
    else client.sink.send(type, JSON.stringify(message));
  }

  #tend(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const client of this.#clients) {
      if (!client.sink.isResponsive()) {
        this.#end(client, 'unresponsive');
        continue;
      }
      client.sink.heartbeat();
      if (nowMs - client.checkedMs < RECHECK_MS || client.grant.secret === undefined) continue;
      client.checkedMs = nowMs;
      this.#recheck(client.grant.secret).catch((error: unknown) => {
        const isRefused =
          error instanceof DomainError && (error.code === 'unauthenticated' || error.code === 'token_expired');
        if (isRefused) this.#end(client, 'unauthenticated');
        else this.#log.warn({ err: error }, 'stream.recheck_failed');
      });
    }
  }

  #end(client: Client, reason: StreamEnd): void {
    if (!this.#forget(client)) return;
    this.#dropped(reason);
    this.#log.info({ account: client.account, reason }, 'stream.ended');
    client.sink.end(reason);
  }

  #forget(client: Client): boolean {
    client.unsubscribe();
    return this.#clients.delete(client);
  }
}

const accountOf = (principal: Principal): string => `${principal.tenantId}/${principal.sub}`;
