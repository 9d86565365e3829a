import type { EventEnvelope } from '@outrider/shared/events';
import { toIso } from '@outrider/shared/time';
import { TELEMETRY_EVENT } from './bundle.ts';
import type { BundleLine, BusEvent, EventFilter, FeedRow } from './ports.ts';

/** A message of the bus. */
export interface EventMessage {
  readonly topic: string;
  readonly json: string;
}

/** Everything that a tenant's events are published under. */
export const eventFilterOf = (tenantId: string): string => `events/${tenantId}/#`;

/** The MQTT messages of a row. */
export function messagesOf(row: FeedRow): EventMessage[] {
  if (!row.event)
    return row.lines.map(({ tenantId, robotId, json }) => ({
      topic: `events/${tenantId}/${TELEMETRY_EVENT}/${robotId}`,
      json,
    }));
  const { event, payloadJson } = row;
  const subject = event.robotId === undefined ? { swarm_id: event.swarmId } : { robot_id: event.robotId };
  const head = JSON.stringify({
    event_id: event.eventId,
    event_type: event.type,
    occurred_at: toIso(event.occurredAt),
    ...subject,
    trace_id: event.traceId,
  });
  // The payload is JSON already, so it is put in as it is.
  const json = `${head.slice(0, -1)},"payload":${payloadJson}}`;
  return [{ topic: `events/${event.tenantId}/${event.type}/${event.robotId ?? event.swarmId}`, json }];
}

/** The events of a row that a filter wants. */
export function eventsOf(row: FeedRow, filter: EventFilter): BusEvent[] {
  if (!row.event) {
    if (!filter.types?.includes(TELEMETRY_EVENT)) return [];
    const wanted = row.lines.filter(
      (line) => line.tenantId === filter.tenantId && (filter.robotIds?.includes(line.robotId) ?? true),
    );
    return wanted.map((line) => readLine(row.feed, line));
  }
  const { event, payloadJson } = row;
  const isWanted =
    event.tenantId === filter.tenantId &&
    (filter.types?.includes(event.type) ?? true) &&
    (filter.robotIds === undefined || (event.robotId !== undefined && filter.robotIds.includes(event.robotId)));
  return isWanted ? [{ ...event, payload: JSON.parse(payloadJson) as unknown }] : [];
}

function readLine(feed: number, { tenantId, robotId, json }: BundleLine): BusEvent {
  const envelope = JSON.parse(json) as EventEnvelope;
  return {
    feed,
    tenantId,
    type: TELEMETRY_EVENT,
    robotId,
    eventId: envelope.event_id,
    occurredAt: Date.parse(envelope.occurred_at) as BusEvent['occurredAt'],
    traceId: envelope.trace_id,
    payload: envelope.payload,
  };
}
