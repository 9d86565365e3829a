import type { EventType } from '@outrider/shared/events';
import type { EpochMs } from '@outrider/shared/time';

/** Which robot, or which swarm, an event is about. */
export type EventSubject =
  | { readonly robotId: string; readonly swarmId?: never }
  | { readonly swarmId: string; readonly robotId?: never };

/** Something that a transaction did and the bus shall tell of. */
export type NewEvent = EventSubject & {
  readonly type: EventType;
  readonly tenantId: string;
  readonly occurredAtMs: number;
  /** The X-Request-ID of what caused it. */
  readonly traceId: string;
  /** What the event's JSON Schema says. */
  readonly payload: unknown;
  /** Absent: a new one. Given again for the same subject, nothing happens. */
  readonly eventId?: string;
};

/** An event as the bus keeps it. */
export interface BusEvent {
  /** Its place in the feed: rises from event to event, with holes. The events of one ingest commit share a place. */
  readonly feed: number;
  readonly tenantId: string;
  readonly type: EventType;
  readonly robotId?: string;
  readonly swarmId?: string;
  readonly eventId: string;
  readonly occurredAt: EpochMs;
  readonly traceId: string;
  readonly payload: unknown;
}

export interface EventFilter {
  readonly tenantId: string;
  /** Absent: all but `telemetry.ingested.v1`, which comes with every commit and has to be asked for. */
  readonly types?: readonly EventType[];
  /** Absent: all robots and swarms of the tenant. Present: no swarm's events. */
  readonly robotIds?: readonly string[];
}

export interface EventPage {
  readonly events: readonly BusEvent[];
  /** Where to go on: the `after` of the next call. */
  readonly cursor: number;
}

/** The bus as other contexts read it. */
export interface EventReader {
  /**
   * Events after a place in the feed, oldest first.
   *
   * Telemetry events are kept for minutes only: what they tell of is in the telemetry itself.
   *
   * @param after 0: from the beginning.
   */
  query(filter: EventFilter, after: number, limit: number): Promise<EventPage>;
  /** The newest place in the feed. */
  head(): Promise<number>;
  /**
   * Hears every event committed from now on, whichever replica committed it, once each and in the order of the feed.
   * The callback must not block.
   *
   * @returns Ends the subscription.
   */
  subscribe(filter: EventFilter, callback: (event: BusEvent) => void): () => void;
}
