import { DomainError } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { aborted, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { Principal } from '../identity/principal.ts';
import type { LiveFeed, LiveUpdate } from '../telemetry/ports.ts';
import type { StreamFilter } from './live-filter.ts';
import { parsePlace, type StreamPlace } from './live-frame.ts';
import { channelKey, StreamChannel } from './stream-channel.ts';
import { type LiveSink, StreamClient, type StreamEnd } from './stream-client.ts';
import type { StreamGrant } from './tickets.ts';

const HEARTBEAT_MS = 15_000;
const RECHECK_MS = 60_000;
const STREAMS_MAX = 2_000;
const STREAMS_PER_ACCOUNT_MAX = 500;

/** An open stream, from its transport's side. */
export interface OpenStream {
  /** Brings something else from now on. */
  change(filter: StreamFilter): void;
  /** Tells the client something that is no update. */
  tell(type: string, data: Readonly<Record<string, unknown>>): void;
  /** The client has gone. */
  close(): void;
}

/** What operators count about the streams. */
export interface StreamCounters {
  onDropped(reason: StreamEnd): void;
  onSkipped(): void;
  /** @param seconds From the commit to the sending. */
  onSent(seconds: number): void;
}

/** Live updates to many clients, each with a bounded queue. */
export class StreamHub implements Service {
  readonly name = 'live-streams';
  readonly #feed: LiveFeed;
  readonly #recheck: (secret: string) => Promise<Principal>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #counters: StreamCounters;
  readonly #clients = new Map<StreamClient, StreamChannel>();
  readonly #channels = new Map<string, StreamChannel>();

  constructor(deps: {
    feed: LiveFeed;
    recheck: (secret: string) => Promise<Principal>;
    clock: Clock;
    log: Logger;
    counters: StreamCounters;
  }) {
    this.#feed = deps.feed;
    this.#recheck = deps.recheck;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#counters = deps.counters;
  }

  get clientCount(): number {
    return this.#clients.size;
  }

  /** @throws DomainError `too_many` when the account, or the server, has too many streams open. */
  checkRoom(principal: Principal): void {
    const account = accountOf(principal);
    const own = [...this.#clients.keys()].filter((client) => client.account === account).length;
    if (own >= STREAMS_PER_ACCOUNT_MAX || this.#clients.size >= STREAMS_MAX)
      throw new DomainError('too_many', 'too many streams are open', { retryAfterS: 10 });
  }

  /** Starts the stream. @param lastPlace The id of the last message that the client has got. */
  open(grant: StreamGrant, filter: StreamFilter, sink: LiveSink, lastPlace?: string): OpenStream {
    const client = new StreamClient({
      sink,
      grant,
      account: accountOf(grant.principal),
      now: () => ({ epochMs: this.#clock.epochMs(), monotonicMs: this.#clock.monotonicMs() }),
      onSlow: (slow) => this.#end(slow, 'slow'),
      onSkipped: () => this.#counters.onSkipped(),
    });
    const channel = this.#channelOf(filter);
    this.#clients.set(client, channel);
    const welcome = {
      tenant_id: filter.tenantId,
      robot_ids: filter.robotIds ?? null,
      heartbeat_s: HEARTBEAT_MS / 1000,
    };
    const place = lastPlace === undefined ? undefined : parsePlace(lastPlace);
    client.tell('welcome', welcome, place ? lastPlace : channel.place);
    if (lastPlace !== undefined) this.#resume(client, channel, place);
    channel.members.add(client);
    return {
      change: (next) => this.#move(client, next),
      tell: (type, data) => client.tell(type, data),
      close: () => this.#forget(client),
    };
  }

  /** Heartbeats, and tokens checked again, until `signal` aborts; then every stream ends. */
  async run(signal: AbortSignal): Promise<void> {
    const timer = setInterval(() => this.#tend(), HEARTBEAT_MS);
    await aborted(signal);
    clearInterval(timer);
    for (const client of this.#clients.keys()) this.#end(client, 'shutdown');
  }

  /** Nothing else runs between this and the joining, so nothing is missed in between. */
  #resume(client: StreamClient, channel: StreamChannel, place: StreamPlace | undefined): void {
    if (!place || place.runId !== this.#feed.runId || place.position > this.#feed.position) {
      client.tell('gap', { reason: 'unknown_position' }, channel.place);
      return;
    }
    const { frames, isComplete } = channel.missed(place.position, place.telemetryPosition);
    if (!isComplete) client.tell('gap', { reason: 'expired' });
    for (const frame of frames) client.deliver(frame);
  }

  #channelOf(filter: StreamFilter): StreamChannel {
    const key = channelKey(filter);
    let channel = this.#channels.get(key);
    if (!channel) {
      channel = new StreamChannel(filter, this.#feed, (update) => this.#onSent(update));
      this.#channels.set(key, channel);
    }
    return channel;
  }

  #onSent(update: LiveUpdate): void {
    this.#counters.onSent(Math.max(0, this.#clock.epochMs() - update.ingestedAt) / 1000);
  }

  #move(client: StreamClient, filter: StreamFilter): void {
    const before = this.#clients.get(client);
    if (!before) return;
    const next = this.#channelOf(filter);
    this.#clients.set(client, next);
    next.members.add(client);
    if (next !== before) this.#leave(client, before);
  }

  #leave(client: StreamClient, channel: StreamChannel): void {
    channel.members.delete(client);
    if (channel.members.size > 0) return;
    channel.close();
    for (const [key, each] of this.#channels) if (each === channel) this.#channels.delete(key);
  }

  #tend(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const client of this.#clients.keys()) {
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

  #end(client: StreamClient, reason: StreamEnd): void {
    if (!this.#forget(client)) return;
    this.#counters.onDropped(reason);
    this.#log.info({ account: client.account, reason }, 'stream.ended');
    client.sink.end(reason);
  }

  #forget(client: StreamClient): boolean {
    const channel = this.#clients.get(client);
    if (!channel) return false;
    this.#clients.delete(client);
    this.#leave(client, channel);
    return true;
  }
}

const accountOf = (principal: Principal): string => `${principal.tenantId}/${principal.sub}`;
