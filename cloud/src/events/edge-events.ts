import { EVENT_SCHEMAS } from '@outrider/shared/event-schemas';
import type { EventType } from '@outrider/shared/events';
import { z } from 'zod';
import type { NewEvent } from './ports.ts';

/** What a robot may tell the bus. The others are for the control plane to say. */
const EDGE_EVENT_TYPES: readonly EventType[] = [
  'anomaly.detected.v1',
  'failsafe.triggered.v1',
  'failsafe.transition.v1',
  'telemetry.gap.v1',
  'edge.started.v1',
  'blackbox.recorded.v1',
  'command.answered.v1',
  'command.unauthentic.v1',
];

/** An event as a robot's event lane brings it. */
export interface EdgeEvent {
  readonly eventId: string;
  readonly type: string;
  readonly occurredAtMs: number;
  readonly traceId: string;
  readonly payloadJson: string;
}

const payloads = new Map<EventType, z.ZodType>();

/** The payload's part of the event's JSON Schema, made ready when it is first needed. */
function payloadSchema(type: EventType): z.ZodType {
  let schema = payloads.get(type);
  if (!schema) {
    const { payload } = (EVENT_SCHEMAS.get(type) as { properties: { payload: z.core.JSONSchema.JSONSchema } })
      .properties;
    schema = z.fromJSONSchema(payload);
    payloads.set(type, schema);
  }
  return schema;
}

/**
 * A robot's event for the bus; `undefined` when it is none for the bus, `invalid` when it is not what its JSON Schema
 * says: consumers rely on that, and a robot may run any software. It stays readable as the robot's own event.
 */
export function busEventOf(
  robot: { readonly tenantId: string; readonly robotId: string },
  event: EdgeEvent,
): NewEvent | 'invalid' | undefined {
  const type = EDGE_EVENT_TYPES.find((known) => known === event.type);
  if (!type) return undefined;
  const payload: unknown = JSON.parse(event.payloadJson);
  if (!payloadSchema(type).safeParse(payload).success) return 'invalid';
  const { eventId, occurredAtMs } = event;
  const traceId = event.traceId === '' ? eventId : event.traceId;
  return { type, tenantId: robot.tenantId, robotId: robot.robotId, eventId, occurredAtMs, traceId, payload };
}
