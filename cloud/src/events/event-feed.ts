import type { Logger } from '@outrider/shared/log';
import { Backoff, pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import { TELEMETRY_EVENT } from './bundle.ts';
import { eventsOf } from './envelope.ts';
import type { BusEvent, EventFilter, EventLog, EventPage, EventReader, FeedRow } from './ports.ts';

/** How long a committed event waits for its place in the feed, at most. */
const POLL_MS = 100;
const ROWS_AT_ONCE = 500;
const RETRY_FIRST_MS = 200;
const RETRY_MAX_MS = 5000;
const TIDY_MS = 30_000;
/** Telemetry events tell of rows that everybody can read, so they go as soon as every replica's watchers have them. */
const TELEMETRY_KEPT_MS = 120_000;
/** Telemetry events that could not be published for so long are given up: they would fill the disk. */
const TELEMETRY_UNSENT_KEPT_MS = 3_600_000;
const EVENT_KEPT_MS = 30 * 86_400_000;

interface Watcher {
  readonly filter: EventFilter;
  readonly callback: (event: BusEvent) => void;
}

/** Puts committed events in order, and lets this process read and watch them. */
export class EventFeed implements EventReader, Service {
  readonly name = 'event-feed';
  readonly #log: EventLog;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #watchers = new Set<Watcher>();
  /** How far the watchers were told; absent while there are none. */
  #told: number | undefined;
  #tidiedMs: number;

  constructor(deps: { log: EventLog; clock: Clock; logger: Logger }) {
    this.#log = deps.log;
    this.#clock = deps.clock;
    this.#logger = deps.logger;
    this.#tidiedMs = deps.clock.monotonicMs();
  }

  async query(filter: EventFilter, after: number, limit: number): Promise<EventPage> {
    const { rows, cursor } = await this.#log.search(filter, after, limit);
    return { events: rows.flatMap((row) => eventsOf(row, filter)), cursor };
  }

  head(): Promise<number> {
    return this.#log.head();
  }

  subscribe(filter: EventFilter, callback: (event: BusEvent) => void): () => void {
    const watcher = { filter, callback };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Numbers and tells until `signal` aborts. While the database is away it waits. */
  async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS);
    let isFailing = false;
    let isPrepared = false;
    while (!signal.aborted) {
      try {
        if (!isPrepared) await this.#log.prepare();
        isPrepared = true;
        const numbered = await this.#log.number();
        const told = await this.#tell();
        await this.#tidy();
        if (isFailing) this.#logger.info('events.feed_recovered');
        isFailing = false;
        backoff.reset();
        if (numbered < ROWS_AT_ONCE && told < ROWS_AT_ONCE) await pause(POLL_MS, signal);
      } catch (error) {
        if (!isFailing) this.#logger.warn({ err: error }, 'events.feed_failed');
        isFailing = true;
        await pause(backoff.nextMs(), signal);
      }
    }
  }

  async #tell(): Promise<number> {
    if (this.#watchers.size === 0) {
      this.#told = undefined;
      return 0;
    }
    if (this.#told === undefined) {
      this.#told = await this.#log.head();
      return 0;
    }
    const watchers = [...this.#watchers];
    const wantsTelemetry = watchers.some(({ filter }) => filter.types?.includes(TELEMETRY_EVENT) === true);
    const rows = await this.#log.after(this.#told, ROWS_AT_ONCE, wantsTelemetry);
    for (const row of rows) this.#tellOf(row, watchers);
    this.#told = rows.at(-1)?.feed ?? this.#told;
    return rows.length;
  }

  #tellOf(row: FeedRow, watchers: readonly Watcher[]): void {
    for (const { filter, callback } of watchers) {
      for (const event of eventsOf(row, filter)) {
        try {
          callback(event);
        } catch (error) {
          this.#logger.error({ err: error, type: event.type }, 'events.watcher_failed');
        }
      }
    }
  }

  async #tidy(): Promise<void> {
    if (this.#clock.monotonicMs() - this.#tidiedMs < TIDY_MS) return;
    this.#tidiedMs = this.#clock.monotonicMs();
    const nowMs = this.#clock.epochMs();
    const unsent = await this.#log.removeOld({
      telemetryMs: nowMs - TELEMETRY_KEPT_MS,
      telemetryUnsentMs: nowMs - TELEMETRY_UNSENT_KEPT_MS,
      eventMs: nowMs - EVENT_KEPT_MS,
    });
    if (unsent > 0) this.#logger.warn({ rows: unsent }, 'events.telemetry_given_up');
  }
}
