import { DomainError } from '@outrider/shared/errors';
import { EVENT_TYPES, type EventType, OWN_EVENT_TYPES } from '@outrider/shared/events';
import { outrider } from '@outrider/shared/protocol/api-messages';
import { pause } from '@outrider/shared/service';
import { toIso } from '@outrider/shared/time';
import type { Core } from '../api/core.ts';
import type { BusEvent, EventFilter } from '../events/ports.ts';
import type { Principal } from '../identity/principal.ts';
import type { Calls, Methods } from './calls.ts';

const { Event, WatchEventsRequest } = outrider.api.v1;

const PAGE = 100;
const ROBOTS_MAX = 100;
/** The feed is read again so often even when nobody says that there is something new. */
const LOOK_MS = 10_000;
const TYPES: readonly EventType[] = [...EVENT_TYPES, ...OWN_EVENT_TYPES];

/** outrider.api.v1.EventService */
export const eventService = (core: Core, calls: Calls): Methods => ({
  WatchEvents: calls.serverStream(
    { request: WatchEventsRequest, reply: Event, access: ['telemetry:read'], throttle: 'tier' },
    async (request, context, send) => {
      const filter = await filterOf(core, await context.principal(), request);
      const { signal } = context;
      let isNew = true;
      let wake = new AbortController();
      const hear = (): void => {
        isNew = true;
        wake.abort();
      };
      signal.addEventListener('abort', hear, { once: true });
      const unsubscribe = core.events.subscribe(filter, hear);
      try {
        let after = request.after ?? (await core.events.head());
        // Pages are read when the caller has taken the one before, so what waits for it waits in the database.
        while (!signal.aborted) {
          isNew = false;
          wake = new AbortController();
          const { events, cursor } = await core.events.query(filter, after, PAGE);
          await context.principal();
          for (const event of events) await send(describe(event));
          const isMore = events.length > 0 || cursor > after;
          after = cursor;
          if (!isMore && !isNew) await pause(LOOK_MS, wake.signal);
        }
        signal.throwIfAborted();
      } finally {
        unsubscribe();
        signal.removeEventListener('abort', hear);
      }
    },
  ),
});

async function filterOf(
  core: Core,
  principal: Principal,
  request: outrider.api.v1.WatchEventsRequest,
): Promise<EventFilter> {
  const types = request.types.map((word, index) => {
    const type = TYPES.find((known) => known === word);
    if (!type) throw refuse(`types[${index}]`, `must be one of ${TYPES.join(', ')}`);
    return type;
  });
  if (request.robot_ids.length > ROBOTS_MAX) throw refuse('robot_ids', `must name at most ${ROBOTS_MAX} robots`);
  for (const robotId of request.robot_ids) await core.robots.find(principal, robotId);
  const robotIds = request.robot_ids.length > 0 ? request.robot_ids : principal.robotIds;
  return {
    tenantId: principal.tenantId,
    ...(types.length > 0 ? { types } : {}),
    ...(robotIds ? { robotIds } : {}),
  };
}

const describe = (event: BusEvent): outrider.api.v1.Event.$Properties => ({
  event_id: event.eventId,
  event_type: event.type,
  occurred_at: toIso(event.occurredAt),
  robot_id: event.robotId ?? '',
  swarm_id: event.swarmId ?? '',
  trace_id: event.traceId,
  payload_json: JSON.stringify(event.payload),
  cursor: event.feed,
});

const refuse = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });
