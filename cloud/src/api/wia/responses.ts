import type { z } from '@hono/zod-openapi';
import type { ResponseSpec } from '../router.ts';
import { envelopeOf } from './envelope.ts';
import { WiaError } from './schemas.ts';

type Status = 400 | 401 | 403 | 404 | 409 | 413 | 422 | 429 | 503;

const MEANING: Readonly<Record<Status, string>> = {
  400: 'The body is not JSON',
  401: 'No token, or one that is not valid',
  403: 'The token does not cover this',
  404: 'There is no such robot in this tenant',
  409: 'There is one already',
  413: 'The body is too large',
  422: 'The input is wrong; `error.details.fields` names the fields',
  429: 'Too many requests',
  503: 'A part of the server cannot be reached',
};

/** Responses for the OpenAPI document: one success, in the envelope unless it has no body, and errors. */
export const wiaResponses = (
  status: 200 | 201 | 204,
  description: string,
  data: z.ZodType | undefined,
  errors: readonly Status[],
): Record<number, ResponseSpec> => ({
  [status]: data ? { description, schema: envelopeOf(data) } : { description },
  ...Object.fromEntries(errors.map((error) => [error, { description: MEANING[error], schema: WiaError }])),
});
