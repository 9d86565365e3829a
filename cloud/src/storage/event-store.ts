import type { EventType } from '@outrider/shared/events';
import { newId } from '@outrider/shared/ids';
import type { EpochMs } from '@outrider/shared/time';
import { type EventBundle, readBundle, TELEMETRY_EVENT } from '../events/bundle.ts';
import type { BusEvent, EventFilter, EventLog, FeedRow, NewEvent } from '../events/ports.ts';
import type { Database, Queryable, Tx } from './database.ts';

/** Rows that get their place in the feed at a time. */
const NUMBERED_AT_ONCE = 1000;
/** Rows that a filtered query looks at before it gives its cursor back. */
const SCANNED_AT_ONCE = 1000;
const DELETED_AT_ONCE = 5000;
const NUMBERED = 'numbered';
const PUBLISHED = 'published';

interface EventRow {
  readonly feed: number;
  readonly tenant_id: string | null;
  readonly subject_id: string | null;
  readonly event_id: string;
  readonly type: string;
  readonly occurred_at: Date;
  readonly stored_at: Date;
  readonly trace_id: string;
  readonly payload: string;
}

const COLUMNS = 'feed, tenant_id, subject_id, event_id, type, occurred_at, stored_at, trace_id, payload';

/**
 * Writes events into the bus's outbox, inside the transaction of the change that they tell of: they exist if and only
 * if it is committed. An event id that its robot or swarm has used already is left as it is.
 */
export async function insertBusEvents(tx: Tx, events: readonly NewEvent[], nowMs: number): Promise<void> {
  if (events.length === 0) return;
  await tx.query(
    `insert into bus_event (tenant_id, subject_id, event_id, type, occurred_at, stored_at, trace_id, payload)
     select tenant_id, subject_id, event_id, type, to_timestamp(occurred_ms / 1000), to_timestamp($8::float8 / 1000),
            trace_id, payload
       from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::text[], $7::text[])
            with ordinality as u (tenant_id, subject_id, event_id, type, occurred_ms, trace_id, payload, place)
      order by place
     on conflict (tenant_id, subject_id, event_id) do nothing`,
    [
      events.map((event) => event.tenantId),
      events.map((event) => event.robotId ?? event.swarmId),
      events.map((event) => event.eventId ?? newId('evt')),
      events.map((event) => event.type),
      events.map((event) => event.occurredAtMs),
      events.map((event) => event.traceId),
      events.map((event) => JSON.stringify(event.payload)),
      nowMs,
    ],
  );
}

/** Writes the telemetry events of one commit as one row: a row a robot would cost the ingest more than its telemetry. */
export async function insertBundle(tx: Tx, bundle: EventBundle, nowMs: number): Promise<void> {
  if (bundle.lines === '') return;
  await tx.query(
    `insert into bus_event (event_id, type, occurred_at, stored_at, trace_id, payload)
     values ($1, $2, to_timestamp($3::float8 / 1000), to_timestamp($3::float8 / 1000), $4, $5)`,
    [newId('bundle'), TELEMETRY_EVENT, nowMs, bundle.traceId, bundle.lines],
  );
}

/** The outbox of the event bus in PostgreSQL or PGlite. */
export class SqlEventLog implements EventLog {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async prepare(): Promise<void> {
    await this.#database.query(
      'insert into bus_progress (step, feed) values ($1, 0), ($2, 0) on conflict (step) do nothing',
      [NUMBERED, PUBLISHED],
    );
  }

  async number(): Promise<number> {
    const [waiting] = await this.#database.query('select 1 from bus_event where feed is null limit 1');
    if (!waiting) return 0;
    return await this.#database.transaction(async (tx) => {
      // The lock comes before the look: what another replica has just numbered is seen as numbered.
      const [head] = await tx.query<{ feed: number }>(
        'select feed from bus_progress where step = $1 for update skip locked',
        [NUMBERED],
      );
      if (!head) return 0;
      const [row] = await tx.query<{ count: number }>(
        `with fresh as (
           select position, row_number() over (order by position) as place
             from (select position from bus_event where feed is null order by position limit ${NUMBERED_AT_ONCE}) as p
         ), placed as (
           update bus_event e set feed = $1::int8 + fresh.place from fresh where e.position = fresh.position returning 1
         ) select count(*)::int8 as count from placed`,
        [head.feed],
      );
      const count = row?.count ?? 0;
      await tx.query('update bus_progress set feed = feed + $2::int8 where step = $1', [NUMBERED, count]);
      return count;
    });
  }

  async head(): Promise<number> {
    return await this.#progress(this.#database, NUMBERED);
  }

  async after(feed: number, limit: number, withTelemetry: boolean): Promise<FeedRow[]> {
    const rows = await this.#database.query<EventRow>(
      `select ${COLUMNS} from bus_event where feed > $1 and ($3::bool or tenant_id is not null) order by feed limit $2`,
      [feed, limit, withTelemetry],
    );
    return rows.map(toFeedRow);
  }

  async search(filter: EventFilter, after: number, limit: number): Promise<{ rows: FeedRow[]; cursor: number }> {
    const wantsTelemetry = filter.types?.includes(TELEMETRY_EVENT) === true;
    const rows = await this.#database.query<EventRow>(
      `select ${COLUMNS} from bus_event
        where feed > $1
          and ((tenant_id = $2 and ($3::text[] is null or type = any($3::text[]))
                and ($4::text[] is null or subject_id = any($4::text[])))
               or ($5::bool and tenant_id is null))
        order by feed limit $6`,
      [
        after,
        filter.tenantId,
        filter.types ? [...filter.types] : null,
        filter.robotIds ? [...filter.robotIds] : null,
        wantsTelemetry,
        Math.min(limit, SCANNED_AT_ONCE),
      ],
    );
    return { rows: rows.map(toFeedRow), cursor: rows.at(-1)?.feed ?? after };
  }

  async publishSome(limit: number, publish: (rows: readonly FeedRow[]) => Promise<void>): Promise<number> {
    // PGlite has one connection and one process: a transaction would hold up the ingest for as long as the broker takes.
    if (this.#database.kind === 'pglite') return await this.#publishSome(this.#database, limit, publish);
    return await this.#database.transaction((tx) => this.#publishSome(tx, limit, publish));
  }

  async #publishSome(tx: Queryable, limit: number, publish: (rows: readonly FeedRow[]) => Promise<void>) {
    const [done] = await tx.query<{ feed: number }>(
      'select feed from bus_progress where step = $1 for update skip locked',
      [PUBLISHED],
    );
    if (!done) return 0;
    const rows = await tx.query<EventRow>(`select ${COLUMNS} from bus_event where feed > $1 order by feed limit $2`, [
      done.feed,
      limit,
    ]);
    const last = rows.at(-1);
    if (!last) return 0;
    await publish(rows.map(toFeedRow));
    await tx.query('update bus_progress set feed = $2 where step = $1', [PUBLISHED, last.feed]);
    return rows.length;
  }

  async backlog(): Promise<number> {
    return (await this.head()) - (await this.#progress(this.#database, PUBLISHED));
  }

  async removeOld(cutoffs: { telemetryMs: number; telemetryUnsentMs: number; eventMs: number }): Promise<number> {
    const published = await this.#progress(this.#database, PUBLISHED);
    const remove = async (where: string, values: readonly unknown[]): Promise<number> => {
      let total = 0;
      for (;;) {
        const gone = await this.#database.query(
          `delete from bus_event where position = any(array(
             select position from bus_event where ${where} limit ${DELETED_AT_ONCE})) returning 1`,
          values,
        );
        total += gone.length;
        if (gone.length < DELETED_AT_ONCE) return total;
      }
    };
    const isBundle = 'tenant_id is null and occurred_at < to_timestamp($1::float8 / 1000)';
    await remove(`${isBundle} and feed <= $2`, [cutoffs.telemetryMs, published]);
    const unsent = await remove(isBundle, [cutoffs.telemetryUnsentMs]);
    await remove(`stored_at < to_timestamp($1::float8 / 1000) and feed <= $2`, [cutoffs.eventMs, published]);
    return unsent;
  }

  async #progress(from: Queryable, step: string): Promise<number> {
    const [row] = await from.query<{ feed: number }>('select feed from bus_progress where step = $1', [step]);
    return row?.feed ?? 0;
  }
}

function toFeedRow(row: EventRow): FeedRow {
  const { feed, tenant_id: tenantId, subject_id: subjectId } = row;
  const storedAt = row.stored_at.getTime() as EpochMs;
  if (tenantId === null || subjectId === null) return { feed, storedAt, lines: readBundle(row.payload) };
  const isSwarm = row.type.startsWith('swarm.');
  const event: Omit<BusEvent, 'payload'> = {
    feed,
    tenantId,
    type: row.type as EventType,
    ...(isSwarm ? { swarmId: subjectId } : { robotId: subjectId }),
    eventId: row.event_id,
    occurredAt: row.occurred_at.getTime() as EpochMs,
    traceId: row.trace_id,
  };
  return { feed, storedAt, event, payloadJson: row.payload };
}
