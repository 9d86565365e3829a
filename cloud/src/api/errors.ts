import { DomainError } from '@outrider/shared/errors';
import type { ApiContext, WireError, WireErrors } from './surface.ts';

/** Failures of the network to the database; the request can be tried again. */
const CONNECTION_FAILURE =
  /^(ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|CONNECTION_CLOSED|CONNECTION_ENDED|CONNECTION_DESTROYED|CONNECT_TIMEOUT|08\w{3}|57P0[1-3]|53\w{3})$/;
const CAUSE_DEPTH_MAX = 5;

/** Any failure as one a caller can understand. Says nothing of what went wrong inside. */
export function asDomainError(error: unknown): DomainError {
  if (error instanceof DomainError) return error;
  if (isConnectionFailure(error)) {
    return new DomainError('unavailable', 'the database does not answer; try again', { cause: error, retryAfterS: 1 });
  }
  return new DomainError('internal', 'something went wrong here; the request id finds it in the log', { cause: error });
}

function isConnectionFailure(error: unknown): boolean {
  let current = error;
  for (let depth = 0; depth < CAUSE_DEPTH_MAX && typeof current === 'object' && current !== null; depth += 1) {
    if ('code' in current && typeof current.code === 'string' && CONNECTION_FAILURE.test(current.code)) return true;
    if ('message' in current && typeof current.message === 'string' && /PGlite is clos/i.test(current.message))
      return true;
    current = 'cause' in current ? current.cause : undefined;
  }
  return false;
}

/** The surface's answer for an error's code. */
export const wireErrorOf = (errors: WireErrors, error: DomainError): WireError => errors[error.code];

/** Headers that go with some errors whatever the envelope. */
export function errorHeaders(error: DomainError, c: ApiContext): void {
  if (error.retryAfterS !== undefined) c.header('Retry-After', String(error.retryAfterS));
  if (error.code === 'upgrade_required') c.header('Upgrade', 'websocket');
  if (error.code === 'unauthenticated' || error.code === 'token_expired')
    c.header('WWW-Authenticate', error.code === 'token_expired' ? 'Bearer error="invalid_token"' : 'Bearer');
}
