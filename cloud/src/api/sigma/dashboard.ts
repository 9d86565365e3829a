import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { STREAM_KINDS } from '@outrider/shared/telemetry';
import { toIso } from '@outrider/shared/time';
import {
  LIVE_TYPES,
  RATE_HZ_MAX,
  ROBOTS_MAX,
  readWish,
  type StreamFilter,
  type StreamWish,
} from '../../dashboard/live-filter.ts';
import type { LiveSink } from '../../dashboard/stream-client.ts';
import type { OpenStream, StreamHub } from '../../dashboard/stream-hub.ts';
import type { StreamGrant } from '../../dashboard/tickets.ts';
import { type Principal, requireScope } from '../../identity/principal.ts';
import type { Core } from '../core.ts';
import { asDomainError } from '../errors.ts';
import type { Router } from '../router.ts';
import { openEventStream } from '../stream/sse.ts';
import { openWebSocketStream } from '../stream/websocket.ts';
import type { ApiContext } from '../surface.ts';
import { validate } from '../validation.ts';
import { sigmaErrors } from './responses.ts';

const StreamQuery = z.strictObject({
  ticket: z
    .string()
    .max(128)
    .optional()
    .openapi({ description: 'A ticket of /api/v1/auth/ticket, instead of a header' }),
  robot_id: z.string().max(8_192).optional().openapi({ description: 'Only these robots, separated by commas' }),
  kind: z
    .string()
    .max(256)
    .optional()
    .openapi({ description: `Only these kinds of telemetry: ${STREAM_KINDS.join(', ')}` }),
  include: z
    .string()
    .max(256)
    .optional()
    .openapi({ description: `Only these types of message: ${LIVE_TYPES.join(', ')}` }),
  max_rate_hz: z.coerce
    .number()
    .positive()
    .max(RATE_HZ_MAX)
    .optional()
    .openapi({ description: 'Telemetry of a stream comes at most this often; its newest sample is kept' }),
  last_event_id: z
    .string()
    .max(64)
    .optional()
    .openapi({ description: 'The id of the last message, to go on from there after a break; or Last-Event-ID' }),
});

/** What a client may send over its WebSocket. */
const Subscribe = z.strictObject({
  type: z.literal('subscribe'),
  robot_ids: z.array(z.string().max(64)).max(ROBOTS_MAX).optional(),
  kinds: z.array(z.string().max(32)).max(32).optional(),
  include: z.array(z.string().max(32)).max(32).optional(),
  max_rate_hz: z.number().optional(),
});

/** GET /api/v1/dashboard/stream: WebSocket on Upgrade, server-sent events on Accept, else 426. */
export function registerDashboard(router: Router, core: Core, hub: StreamHub): void {
  router.addPublic(
    {
      method: 'get',
      path: '/api/v1/dashboard/stream',
      operationId: 'streamDashboard',
      summary: 'Live telemetry and incidents: WebSocket or server-sent events',
      tag: 'SigmaPrompt',
      // The handler asks for a token or a ticket itself, as browsers cannot send headers with either transport.
      access: 'public',
      throttle: 'never',
      query: StreamQuery,
      responses: {
        101: { description: 'WebSocket: a JSON message per update' },
        200: { description: 'Server-sent events: a JSON message per update', contentType: 'text/event-stream' },
        ...sigmaErrors([400, 401, 403, 404, 426, 429, 503]),
      },
    },
    async ({ query }, c) => {
      const grant = await grantOf(router, core, c, query.ticket);
      requireScope(grant.principal, ['telemetry:read']);
      const filter = await filterOf(core, grant.principal, wishOf(query));
      const isWebSocket = c.req.header('upgrade')?.toLowerCase() === 'websocket';
      const isEventStream = c.req.header('accept')?.includes('text/event-stream') === true;
      if (!isWebSocket && !isEventStream) {
        throw new DomainError(
          'upgrade_required',
          'ask for a WebSocket (Upgrade: websocket) or for Accept: text/event-stream',
        );
      }
      hub.checkRoom(grant.principal);
      const lastPlace = query.last_event_id ?? c.req.header('last-event-id');
      const open = (sink: LiveSink): OpenStream => hub.open(grant, filter, sink, lastPlace);
      if (isEventStream && !isWebSocket) return openEventStream(c, open);
      return openWebSocketStream(c, () => toIso(core.clock.epochMs()), open, subscriber(core, grant.principal));
    },
  );
}

async function grantOf(router: Router, core: Core, c: ApiContext, ticket: string | undefined): Promise<StreamGrant> {
  if (ticket === undefined) {
    const principal = await router.authenticate(c);
    return { principal, secret: c.req.header('x-api-key') ?? c.req.header('authorization')?.replace(/^bearer +/i, '') };
  }
  const grant = core.tickets.redeem(ticket);
  if (!grant) throw new DomainError('unauthenticated', 'the ticket is not valid: each can be used once, within 30 s');
  c.set('principal', grant.principal);
  return grant;
}

const words = (text: string | undefined): string[] | undefined => text?.split(',').filter((word) => word !== '');

const wishOf = (query: z.output<typeof StreamQuery>): StreamWish => ({
  robotIds: words(query.robot_id),
  kinds: words(query.kind),
  include: words(query.include),
  maxRateHz: query.max_rate_hz,
});

/** What the wish comes to for this caller. @throws DomainError for a robot that it may not see. */
async function filterOf(core: Core, principal: Principal, wish: StreamWish): Promise<StreamFilter> {
  const wanted = readWish(wish);
  for (const robotId of wanted.robotIds ?? []) await core.robots.find(principal, robotId);
  const robotIds = wanted.robotIds ?? principal.robotIds;
  return { ...wanted, tenantId: principal.tenantId, ...(robotIds ? { robotIds } : {}) };
}

/** Changes a stream as its client asks, one message at a time. */
function subscriber(core: Core, principal: Principal): (message: unknown, stream: OpenStream) => void {
  let isBusy = false;
  const change = async (message: unknown, stream: OpenStream): Promise<void> => {
    if (isBusy) throw new DomainError('too_many', 'wait for the answer to the message before');
    isBusy = true;
    try {
      const { robot_ids, kinds, include, max_rate_hz } = validate(Subscribe, message, 'body');
      const wish = { robotIds: robot_ids, kinds, include, maxRateHz: max_rate_hz };
      const filter = await filterOf(core, principal, wish);
      stream.change(filter);
      stream.tell('subscribed', {
        robot_ids: filter.robotIds ?? null,
        kinds: filter.kinds ?? null,
        include: filter.include ?? null,
        max_rate_hz: filter.maxRateHz ?? RATE_HZ_MAX,
      });
    } finally {
      isBusy = false;
    }
  };
  return (message, stream) => {
    change(message, stream).catch((error: unknown) => {
      const failure = asDomainError(error);
      if (failure.code === 'internal') core.log.error({ err: error }, 'stream.subscribe_failed');
      stream.tell('error', { code: failure.code, message: failure.message, details: failure.problems ?? [] });
    });
  };
}
