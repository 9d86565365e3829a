import { bundleOf } from '../events/bundle.ts';
import { busEventOf } from '../events/edge-events.ts';
import type { NewEvent } from '../events/ports.ts';
import type { EventLaneRecord, TelemetryRecord } from '../telemetry/record.ts';
import type { Queryable } from './database.ts';
import { insertBundle, insertBusEvents } from './event-store.ts';
import type { Placed } from './ingest-rows.ts';

/** Telemetry, with the names that its sender gave it, if any. */
type NamedTelemetry = Placed<TelemetryRecord> & { readonly eventId?: string; readonly traceId?: string };

/** Tells the bus of stored telemetry. */
export async function storeTelemetryEvents(
  tx: Queryable,
  rows: readonly NamedTelemetry[],
  nowMs: number,
): Promise<void> {
  if (rows.length === 0) return;
  const ingested = rows.map(({ robot, record, eventId, traceId }) => ({
    tenantId: robot.tenantId,
    robotId: robot.robotId,
    stream: record.block.layout.stream,
    samples: record.block.count,
    fromMs: record.span.firstMs,
    toMs: record.span.lastMs,
    ...(eventId === undefined ? {} : { eventId }),
    ...(traceId === undefined ? {} : { traceId }),
  }));
  await insertBundle(tx, bundleOf(ingested, nowMs), nowMs);
}

/** Hears of an event that the bus does not take, because it is not what its JSON Schema says. */
export type OnInvalidEvent = (row: Placed<EventLaneRecord>) => void;

/** Passes the events of robots on to the bus, those that are for it, under their own ids. */
export async function storeLaneEvents(
  tx: Queryable,
  rows: readonly Placed<EventLaneRecord>[],
  nowMs: number,
  onInvalid: OnInvalidEvent,
): Promise<void> {
  const events: NewEvent[] = [];
  for (const row of rows) {
    const event = busEventOf(row.robot, row.record);
    if (event === 'invalid') onInvalid(row);
    else if (event) events.push(event);
  }
  await insertBusEvents(tx, events, nowMs);
}
