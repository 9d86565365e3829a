import { randomBytes } from 'node:crypto';
import type { Logger } from '@outrider/shared/log';
import { valueCount } from '@outrider/shared/telemetry';
import { LiveReplay } from './live-replay.ts';
import type { LiveFeed, LiveFilter, LiveTelemetry, LiveUpdate, PlacedUpdate } from './ports.ts';

/** Telemetry of a stream reaches a subscriber at most this often. */
const MERGE_MS = 100;
/** Streams that may wait for one subscriber's next round; more are left out of it, oldest first. */
const PENDING_STREAMS_MAX = 10_000;
/** For so long after its last subscriber a tenant's past is kept: the time to come back after a break. */
const REPLAY_KEPT_MS = 120_000;

interface Subscriber {
  readonly filter: LiveFilter;
  readonly callback: (update: LiveUpdate, position: number) => void;
  readonly isRaw: boolean;
  readonly pending: Map<string, PlacedUpdate<LiveTelemetry>>;
}

interface Past {
  readonly replay: LiveReplay;
  timer: NodeJS.Timeout | undefined;
}

/** Hands updates to the subscribers in this process. */
export class LiveHub implements LiveFeed {
  readonly runId = randomBytes(4).toString('hex');
  readonly #log: Logger;
  readonly #byTenant = new Map<string, Set<Subscriber>>();
  readonly #pasts = new Map<string, Past>();
  #position = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  get position(): number {
    return this.#position;
  }

  replay(
    filter: LiveFilter,
    after: number,
    telemetryAfter: number,
  ): { updates: readonly PlacedUpdate[]; isComplete: boolean } {
    const past = this.#pasts.get(filter.tenantId);
    if (!past) return { updates: [], isComplete: after >= this.#position };
    const { updates, isComplete } = past.replay.after(after, telemetryAfter);
    return { updates: updates.filter(({ update }) => wants(filter, update)), isComplete };
  }

  subscribe(filter: LiveFilter, callback: (update: LiveUpdate, position: number) => void, isRaw = false): () => void {
    const subscriber: Subscriber = { filter, callback, isRaw, pending: new Map() };
    const group = this.#byTenant.get(filter.tenantId) ?? new Set();
    group.add(subscriber);
    this.#byTenant.set(filter.tenantId, group);
    this.#keepPast(filter.tenantId);
    return () => {
      subscriber.pending.clear();
      group.delete(subscriber);
      if (group.size > 0 || this.#byTenant.get(filter.tenantId) !== group) return;
      this.#byTenant.delete(filter.tenantId);
      this.#forgetPastLater(filter.tenantId);
    };
  }

  #keepPast(tenantId: string): void {
    const past = this.#pasts.get(tenantId);
    clearTimeout(past?.timer);
    if (past) past.timer = undefined;
    else this.#pasts.set(tenantId, { replay: new LiveReplay(this.#position), timer: undefined });
  }

  #forgetPastLater(tenantId: string): void {
    const past = this.#pasts.get(tenantId);
    if (past) past.timer = setTimeout(() => this.#pasts.delete(tenantId), REPLAY_KEPT_MS).unref();
  }

  /** Whether anybody listens to the tenant, or may come back to where it was. */
  isHeard(tenantId: string): boolean {
    return this.#pasts.has(tenantId);
  }

  /** Counts what nobody heard, so that a listener of long ago is told that it missed something. */
  passOver(): void {
    this.#position += 1;
  }

  /** Passes updates on. Events, states and presence go at once, telemetry with the next round. */
  publish(updates: readonly LiveUpdate[]): void {
    for (const update of updates) {
      this.#position += 1;
      this.#pasts.get(update.tenantId)?.replay.record(this.#position, update);
      for (const subscriber of this.#byTenant.get(update.tenantId) ?? []) {
        if (!wants(subscriber.filter, update)) continue;
        if (update.type === 'telemetry' && !subscriber.isRaw) this.#merge(subscriber, update);
        else this.#deliver(subscriber, { position: this.#position, update });
      }
    }
  }

  #merge(subscriber: Subscriber, update: LiveTelemetry): void {
    const key = `${update.robotId}/${update.stream}`;
    const waiting = subscriber.pending.get(key);
    if (!waiting && subscriber.pending.size >= PENDING_STREAMS_MAX) return;
    const newest = waiting && waiting.update.recordedAt > update.recordedAt ? waiting.update : update;
    const sampleCount = (waiting?.update.sampleCount ?? 0) + update.sampleCount;
    subscriber.pending.set(key, { position: this.#position, update: { ...newest, sampleCount } });
    this.#timer ??= setTimeout(() => this.#round(), MERGE_MS).unref();
  }

  #round(): void {
    this.#timer = undefined;
    for (const group of this.#byTenant.values()) {
      for (const subscriber of group) {
        const updates = [...subscriber.pending.values()];
        subscriber.pending.clear();
        for (const update of updates) this.#deliver(subscriber, update);
      }
    }
  }

  #deliver(subscriber: Subscriber, { position, update }: PlacedUpdate): void {
    try {
      subscriber.callback(update, position);
    } catch (error) {
      this.#log.error({ err: error, type: update.type, values: countValues(update) }, 'live.subscriber_failed');
    }
  }
}

const countValues = (update: LiveUpdate): number =>
  update.type === 'telemetry' ? valueCount(update.sample.layout) : 0;

function wants(filter: LiveFilter, update: LiveUpdate): boolean {
  if (filter.robotIds && !filter.robotIds.includes(update.robotId)) return false;
  return update.type !== 'telemetry' || !filter.kinds || filter.kinds.includes(update.kind);
}
