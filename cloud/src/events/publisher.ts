import type { Logger } from '@outrider/shared/log';
import { Backoff, pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { type EventMessage, messagesOf } from './envelope.ts';
import type { EventLog, FeedRow } from './ports.ts';

const POLL_MS = 100;
/** Rows that one turn takes. A row may hold the events of a hundred robots. */
const ROWS_AT_ONCE = 50;
/** Messages that may be on their way to the broker at a time. */
const IN_FLIGHT_MAX = 200;
/** A broker that takes longer than this over one turn gets it again: a turn holds a database connection. */
const TURN_MS_MAX = 10_000;
const RETRY_FIRST_MS = 200;
const RETRY_MAX_MS = 5000;
const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];

/** What carries events to whoever listens. */
export interface EventTransport {
  /** Resolves once the broker has it, QoS 1. @throws when there is no broker to give it to. */
  publish(topic: string, payload: Uint8Array): Promise<void>;
  /** False when it is known that nobody listens to events: then there is nothing to do for them. */
  hasEventListeners?(): boolean;
}

/** Sends committed events to the broker, each at least once, in the order of the feed. */
export class EventPublisher implements Service {
  readonly name = 'event-publisher';
  readonly #log: EventLog;
  readonly #transport: EventTransport;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #published: Counter;
  readonly #failures: Counter;
  readonly #lagSeconds: Histogram;

  constructor(deps: { log: EventLog; transport: EventTransport; clock: Clock; logger: Logger; metrics: Registry }) {
    this.#log = deps.log;
    this.#transport = deps.transport;
    this.#clock = deps.clock;
    this.#logger = deps.logger;
    const registers = [deps.metrics];
    this.#published = new Counter({
      name: 'outrider_events_published_total',
      help: 'Events that the broker took.',
      registers,
    });
    this.#failures = new Counter({
      name: 'outrider_events_publish_failures_total',
      help: 'Turns of publishing that failed and are tried again.',
      registers,
    });
    this.#lagSeconds = new Histogram({
      name: 'outrider_events_publish_lag_seconds',
      help: 'From the commit of an event to the broker having it.',
      buckets: SECONDS,
      registers,
    });
    const log = this.#log;
    new Gauge({
      name: 'outrider_events_backlog_rows',
      help: 'Rows of the outbox that are not published; -1 when the database does not answer.',
      registers,
      async collect() {
        this.set(await log.backlog().catch(() => -1));
      },
    });
  }

  /** Publishes until `signal` aborts. While the broker or the database is away it waits and tries again. */
  async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS);
    let isFailing = false;
    while (!signal.aborted) {
      try {
        const rows = await this.#log.publishSome(ROWS_AT_ONCE, (found) => this.#send(found));
        if (isFailing) this.#logger.info('events.publish_recovered');
        isFailing = false;
        backoff.reset();
        if (rows < ROWS_AT_ONCE) await pause(POLL_MS, signal);
      } catch (error) {
        this.#failures.inc();
        if (!isFailing) this.#logger.warn({ err: error }, 'events.publish_failed');
        isFailing = true;
        await pause(backoff.nextMs(), signal);
      }
    }
  }

  async #send(rows: readonly FeedRow[]): Promise<void> {
    if (this.#transport.hasEventListeners?.() === false) return;
    const messages = rows.flatMap(messagesOf);
    const endMs = this.#clock.monotonicMs() + TURN_MS_MAX;
    for (let at = 0; at < messages.length; at += IN_FLIGHT_MAX) {
      if (this.#clock.monotonicMs() > endMs) throw new Error('the broker takes events too slowly');
      await within(this.#sendAll(messages.slice(at, at + IN_FLIGHT_MAX)), TURN_MS_MAX);
    }
    this.#published.inc(messages.length);
    const nowMs = this.#clock.epochMs();
    for (const { storedAt } of rows) this.#lagSeconds.observe(Math.max(0, nowMs - storedAt) / 1000);
  }

  async #sendAll(messages: readonly EventMessage[]): Promise<void> {
    await Promise.all(messages.map(({ topic, json }) => this.#transport.publish(topic, Buffer.from(json))));
  }
}

/** Fails when the work takes longer. */
async function within(work: Promise<void>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error('the broker did not take the events in time')), ms);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
