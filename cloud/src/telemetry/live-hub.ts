import type { Logger } from '@outrider/shared/log';
import { valueCount } from '@outrider/shared/telemetry';
import type { LiveFeed, LiveFilter, LiveTelemetry, LiveUpdate } from './ports.ts';

/** Telemetry of a stream reaches a subscriber at most this often. */
const MERGE_MS = 100;
/** Streams that may wait for one subscriber's next round; more are left out of it, oldest first. */
const PENDING_STREAMS_MAX = 10_000;

interface Subscriber {
  readonly filter: LiveFilter;
  readonly callback: (update: LiveUpdate) => void;
  readonly pending: Map<string, LiveTelemetry>;
}

/** Hands updates to the subscribers in this process. */
export class LiveHub implements LiveFeed {
  readonly #log: Logger;
  readonly #byTenant = new Map<string, Set<Subscriber>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  subscribe(filter: LiveFilter, callback: (update: LiveUpdate) => void): () => void {
    const subscriber: Subscriber = { filter, callback, pending: new Map() };
    const group = this.#byTenant.get(filter.tenantId) ?? new Set();
    group.add(subscriber);
    this.#byTenant.set(filter.tenantId, group);
    return () => {
      subscriber.pending.clear();
      group.delete(subscriber);
      if (group.size === 0 && this.#byTenant.get(filter.tenantId) === group) this.#byTenant.delete(filter.tenantId);
    };
  }

  /** Whether anybody in this process listens to the tenant. */
  hasSubscribers(tenantId: string): boolean {
    return this.#byTenant.has(tenantId);
  }

  /** Passes updates on. Events, states and presence go at once, telemetry with the next round. */
  publish(updates: readonly LiveUpdate[]): void {
    for (const update of updates) {
      for (const subscriber of this.#byTenant.get(update.tenantId) ?? []) {
        if (!wants(subscriber.filter, update)) continue;
        if (update.type === 'telemetry') this.#merge(subscriber, update);
        else this.#deliver(subscriber, update);
      }
    }
  }

  #merge(subscriber: Subscriber, update: LiveTelemetry): void {
    const key = `${update.robotId}/${update.stream}`;
    const waiting = subscriber.pending.get(key);
    if (!waiting && subscriber.pending.size >= PENDING_STREAMS_MAX) return;
    const newest = waiting && waiting.recordedAt > update.recordedAt ? waiting : update;
    subscriber.pending.set(key, { ...newest, sampleCount: (waiting?.sampleCount ?? 0) + update.sampleCount });
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

  #deliver(subscriber: Subscriber, update: LiveUpdate): void {
    try {
      subscriber.callback(update);
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
