import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { STREAM_KINDS } from '@outrider/shared/telemetry';
import { toIso } from '@outrider/shared/time';
import type { LiveSink, StreamHub } from '../../dashboard/stream-hub.ts';
import type { StreamGrant } from '../../dashboard/tickets.ts';
import { requireScope } from '../../identity/principal.ts';
import type { LiveFilter } from '../../telemetry/ports.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { openEventStream } from '../stream/sse.ts';
import { openWebSocketStream } from '../stream/websocket.ts';
import type { ApiContext } from '../surface.ts';
import { sigmaErrors } from './responses.ts';

const ROBOTS_MAX = 100;

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
        ...sigmaErrors([400, 401, 403, 404, 426, 429]),
      },
    },
    async ({ query }, c) => {
      const grant = await grantOf(router, core, c, query.ticket);
      requireScope(grant.principal, ['telemetry:read']);
      const filter = await filterOf(core, grant, query);
      const isWebSocket = c.req.header('upgrade')?.toLowerCase() === 'websocket';
      const isEventStream = c.req.header('accept')?.includes('text/event-stream') === true;
      if (!isWebSocket && !isEventStream) {
        throw new DomainError(
          'upgrade_required',
          'ask for a WebSocket (Upgrade: websocket) or for Accept: text/event-stream',
        );
      }
      hub.checkRoom(grant.principal);
      const open = (sink: LiveSink): (() => void) => hub.open(grant, filter, sink);
      return isWebSocket ? openWebSocketStream(c, () => toIso(core.clock.epochMs()), open) : openEventStream(c, open);
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

async function filterOf(
  core: Core,
  { principal }: StreamGrant,
  query: z.output<typeof StreamQuery>,
): Promise<LiveFilter> {
  const wanted = query.robot_id?.split(',').filter((id) => id !== '');
  if (wanted && wanted.length > ROBOTS_MAX) throw refuse('robot_id', `must name at most ${ROBOTS_MAX} robots`);
  for (const robotId of wanted ?? []) await core.robots.find(principal, robotId);
  const robotIds = wanted ?? principal.robotIds;
  const kinds = query.kind?.split(',').map((word) => {
    const kind = STREAM_KINDS.find((known) => known === word);
    if (!kind) throw refuse('kind', `must be among ${STREAM_KINDS.join(', ')}`);
    return kind;
  });
  return { tenantId: principal.tenantId, ...(robotIds ? { robotIds } : {}), ...(kinds ? { kinds } : {}) };
}

const refuse = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });
