import { newId } from '@outrider/shared/ids';
import type { NewEvent } from '../events/ports.ts';
import type { Tx } from './database.ts';

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
