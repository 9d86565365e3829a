import type { LiveFeed, LiveFilter, LiveTelemetry, LiveUpdate, PlacedUpdate } from '../telemetry/ports.ts';
import { RATE_HZ_MAX, type StreamFilter } from './live-filter.ts';
import { formatPlace, LiveFrame } from './live-frame.ts';
import { describeUpdate } from './live-messages.ts';

/** Streams that may wait for the next round; more are left out of it. */
const PENDING_STREAMS_MAX = 10_000;

/** Who gets a channel's frames. */
export interface ChannelMember {
  deliver(frame: LiveFrame): void;
}

/** The name of what a filter wants: clients of one name share one channel. */
export const channelKey = ({ tenantId, robotIds, kinds, include, maxRateHz }: StreamFilter): string =>
  JSON.stringify([tenantId, robotIds ?? null, kinds ?? null, include ?? null, maxRateHz ?? null]);

const feedFilter = ({ tenantId, robotIds, kinds }: StreamFilter): LiveFilter => ({
  tenantId,
  ...(robotIds ? { robotIds } : {}),
  ...(kinds ? { kinds } : {}),
});

/** One filter's updates, framed once for all clients who want the same. */
export class StreamChannel {
  readonly members = new Set<ChannelMember>();
  readonly #filter: StreamFilter;
  readonly #feed: LiveFeed;
  readonly #onSent: (update: LiveUpdate) => void;
  readonly #intervalMs: number;
  readonly #pending = new Map<string, LiveTelemetry>();
  /** Telemetry up to here was sent. */
  #flushedTo: number;
  #position: number;
  #timer: NodeJS.Timeout | undefined;
  readonly #unsubscribe: () => void;

  /** @param onSent Hears of each update that was framed and handed out. */
  constructor(filter: StreamFilter, feed: LiveFeed, onSent: (update: LiveUpdate) => void) {
    this.#filter = filter;
    this.#feed = feed;
    this.#onSent = onSent;
    this.#intervalMs = 1000 / (filter.maxRateHz ?? RATE_HZ_MAX);
    this.#position = feed.position;
    this.#flushedTo = feed.position;
    this.#unsubscribe = feed.subscribe(feedFilter(filter), (update, position) => this.#take(update, position), true);
  }

  /** Where a client stands that has got all that was sent. */
  get place(): string {
    return this.#placeAt(this.#flushedTo);
  }

  /** What a client has missed since a place, as frames. */
  missed(position: number, telemetryPosition: number): { frames: LiveFrame[]; isComplete: boolean } {
    const { updates, isComplete } = this.#feed.replay(feedFilter(this.#filter), position, telemetryPosition);
    const wanted = updates.filter(({ update }) => this.#wants(update));
    return { frames: wanted.map((entry) => this.#frame(entry, this.place)), isComplete };
  }

  close(): void {
    this.#unsubscribe();
    clearTimeout(this.#timer);
    this.#pending.clear();
  }

  #take(update: LiveUpdate, position: number): void {
    this.#position = position;
    if (!this.#wants(update)) return;
    if (update.type !== 'telemetry') {
      this.#send({ position, update }, this.#placeAt(this.#pending.size > 0 ? this.#flushedTo : position));
      return;
    }
    const key = `${update.robotId}/${update.stream}`;
    const waiting = this.#pending.get(key);
    if (!waiting && this.#pending.size >= PENDING_STREAMS_MAX) return;
    const newest = waiting && waiting.recordedAt > update.recordedAt ? waiting : update;
    const sampleCount = (waiting?.sampleCount ?? 0) + update.sampleCount;
    this.#pending.set(key, waiting ? { ...newest, sampleCount } : update);
    this.#timer ??= setTimeout(() => this.#flush(), this.#intervalMs).unref();
  }

  #flush(): void {
    this.#timer = undefined;
    const updates = [...this.#pending.values()];
    this.#pending.clear();
    const held = this.#placeAt(this.#flushedTo);
    this.#flushedTo = this.#position;
    for (const [index, update] of updates.entries()) {
      const isLast = index === updates.length - 1;
      this.#send({ position: this.#position, update }, isLast ? this.place : held);
    }
  }

  #send(entry: PlacedUpdate, place: string): void {
    const frame = this.#frame(entry, place);
    for (const member of this.members) member.deliver(frame);
    this.#onSent(entry.update);
  }

  #frame({ update }: PlacedUpdate, place: string): LiveFrame {
    return new LiveFrame({ id: place, ...describeUpdate(update) });
  }

  #placeAt(telemetryPosition: number): string {
    return formatPlace({ runId: this.#feed.runId, position: this.#position, telemetryPosition });
  }

  #wants(update: LiveUpdate): boolean {
    return this.#filter.include?.includes(update.type) ?? true;
  }
}
