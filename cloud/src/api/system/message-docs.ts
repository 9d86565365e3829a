import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { EVENT_SCHEMAS, type JsonSchema } from '@outrider/shared/event-schemas';
import type { EventType } from '@outrider/shared/events';
import type { PublicUrls } from '../core.ts';
import type { Router } from '../router.ts';
import { describeMessages } from './asyncapi.ts';

const Document = z.record(z.string(), z.unknown());

/** What a path that no document owns answers. */
const NotFound = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    details: z.array(z.object({ field: z.string(), reason: z.string() })).optional(),
    request_id: z.string(),
  }),
});

/** The AsyncAPI document, and the JSON Schema of each event. */
export function registerMessageDocs(router: Router, urls: () => PublicUrls, version: string): void {
  const base = { method: 'get', tag: 'System', access: 'public', throttle: 'never' } as const;
  let document: JsonSchema | undefined;
  router.addPublic(
    {
      ...base,
      path: '/asyncapi.json',
      operationId: 'asyncapi',
      summary: 'The event bus and the live stream as AsyncAPI 3.0',
      responses: { 200: { description: 'The document', schema: Document } },
    },
    (_input, c) => {
      document ??= describeMessages({ ...urls(), version });
      return c.json(document);
    },
  );
  router.addPublic(
    {
      ...base,
      path: '/schemas/events/{file}',
      operationId: 'eventSchema',
      summary: 'The JSON Schema (2020-12) of an event: telemetry.ingested.v1.json and so on',
      params: z.object({ file: z.string().max(128) }),
      responses: {
        200: { description: 'The schema', schema: Document },
        404: { description: 'There is no such event', schema: NotFound },
      },
    },
    ({ params: { file } }, c) => {
      const schema = file.endsWith('.json')
        ? EVENT_SCHEMAS.get(file.slice(0, -'.json'.length) as EventType)
        : undefined;
      if (!schema) throw new DomainError('not_found', 'there is no such event');
      return c.json(schema);
    },
  );
}
