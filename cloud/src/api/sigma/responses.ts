import type { ResponseSpec } from '../router.ts';
import { SigmaError } from './schemas.ts';

export type SigmaErrors = readonly (400 | 401 | 403 | 404 | 409 | 413 | 426 | 429 | 503 | 504)[];

const MEANING: Readonly<Record<SigmaErrors[number], string>> = {
  400: 'The input is wrong; `details` names the fields',
  401: 'No token, or one that is not valid',
  403: 'The token does not cover this',
  404: 'There is no such robot in this tenant',
  409: 'The robot cannot do that now',
  413: 'The body is too large',
  426: 'Only WebSocket and server-sent events',
  429: 'Too many requests',
  503: 'The robot or a part of the server cannot be reached',
  504: 'The robot did not answer in time',
};

/** Error responses for the OpenAPI document. */
export const sigmaErrors = (statuses: SigmaErrors): Record<number, ResponseSpec> =>
  Object.fromEntries(statuses.map((status) => [status, { description: MEANING[status], schema: SigmaError }]));
