import type { DomainError } from '@outrider/shared/errors';
import { wireErrorOf } from '../errors.ts';
import type { ApiContext, WireErrors } from '../surface.ts';

const ERRORS: WireErrors = {
  invalid: { status: 400, code: 'INVALID_REQUEST' },
  payload_too_large: { status: 413, code: 'INVALID_REQUEST' },
  unauthenticated: { status: 401, code: 'UNAUTHORIZED' },
  token_expired: { status: 401, code: 'TOKEN_EXPIRED' },
  forbidden: { status: 403, code: 'FORBIDDEN' },
  not_found: { status: 404, code: 'NOT_FOUND' },
  already_exists: { status: 409, code: 'ALREADY_EXISTS' },
  bad_state: { status: 409, code: 'CONFLICT' },
  rejected: { status: 409, code: 'CONFLICT' },
  unsupported: { status: 501, code: 'INVALID_REQUEST' },
  upgrade_required: { status: 426, code: 'INVALID_REQUEST' },
  method_not_allowed: { status: 405, code: 'INVALID_REQUEST' },
  too_many: { status: 429, code: 'RATE_LIMITED' },
  unavailable: { status: 503, code: 'SERVICE_UNAVAILABLE' },
  offline: { status: 503, code: 'SERVICE_UNAVAILABLE' },
  timeout: { status: 504, code: 'TIMEOUT' },
  internal: { status: 500, code: 'INTERNAL_ERROR' },
};

/** Secret Panthers, "Standard Error Format": `details` is an object, one member a field. */
export function renderPanthersError(error: DomainError, c: ApiContext): Response {
  const { status, code } = wireErrorOf(ERRORS, error);
  const [first] = error.problems;
  const specific =
    first && first.field !== 'body' ? (first.reason === 'missing' ? 'MISSING_FIELD' : 'INVALID_FIELD') : code;
  const details = {
    ...error.details,
    ...Object.fromEntries(error.problems.map(({ field, reason }) => [field, reason])),
  };
  return c.json(
    {
      error: {
        code: error.code === 'invalid' ? specific : code,
        message: error.message,
        ...(Object.keys(details).length > 0 ? { details } : {}),
        request_id: c.get('requestId'),
      },
    },
    status,
  );
}
