import { z } from '@hono/zod-openapi';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { ApiContext } from '../surface.ts';

/** The version that WIA's envelope carries. */
export const API_VERSION = '1.0.0';

/** WIA §2.1: what every success answers. */
export function success(c: ApiContext, data: unknown, status: ContentfulStatusCode = 200): Response {
  return c.json(
    {
      status: 'success',
      timestamp: new Date(c.get('startedAtMs')).toISOString(),
      data,
      metadata: { request_id: c.get('requestId'), version: API_VERSION },
    },
    status,
  );
}

/** The envelope's schema around a payload's. */
export const envelopeOf = (data: z.ZodType): z.ZodType =>
  z.object({
    status: z.literal('success'),
    timestamp: z.iso.datetime(),
    data,
    metadata: z.object({ request_id: z.string(), version: z.string() }),
  });
