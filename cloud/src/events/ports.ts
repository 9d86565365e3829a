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

/** One event of a bundle, ready to be sent. */
export interface BundleLine {
  readonly tenantId: string;
  readonly robotId: string;
  /** The whole envelope. */
  readonly json: string;
}

/** A row of the outbox: one event, or the telemetry events of one commit. */
export type FeedRow = { readonly feed: number; readonly storedAt: EpochMs } & (
  | { readonly event: Omit<BusEvent, 'payload'>; readonly payloadJson: string }
  | { readonly lines: readonly BundleLine[]; readonly event?: never }
);

/** The outbox, as those see it who pass events on. */
export interface EventLog {
  /** Call it once before the rest. */
  prepare(): Promise<void>;
  /** Gives committed rows their places in the feed. Replicas take turns. @returns How many rows. */
  number(): Promise<number>;
  /** The newest place in the feed. */
  head(): Promise<number>;
  /** Rows after a place, in order. Telemetry is left out unless it is wanted: it is most of the rows. */
  after(feed: number, limit: number, withTelemetry: boolean): Promise<FeedRow[]>;
  /** Rows that may hold what the filter wants; bundles are given whole. */
  search(filter: EventFilter, after: number, limit: number): Promise<{ rows: FeedRow[]; cursor: number }>;
  /**
   * Gives the next rows that have not been published to `publish`, and remembers them as published once it resolves.
   * Only one replica at a time does so, so that the order of the feed is kept; when it dies another goes on at once.
   *
   * @returns How many rows; 0 also when another replica is at it.
   */
  publishSome(limit: number, publish: (rows: readonly FeedRow[]) => Promise<void>): Promise<number>;
  /** Rows that are numbered and not published. */
  backlog(): Promise<number>;
  /**
   * Removes rows: telemetry events some time after they were published, or when nobody could be told for long, and
   * other events, once published, after long.
   *
   * @returns How many rows of telemetry events went unpublished.
   */
  removeOld(cutoffs: {
    readonly telemetryMs: number;
    readonly telemetryUnsentMs: number;
    readonly eventMs: number;
  }): Promise<number>;
}
