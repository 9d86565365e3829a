import type { DomainError } from '@outrider/shared/errors';
import { wireErrorOf } from '../errors.ts';
import type { ApiContext, WireErrors } from '../surface.ts';

const ERRORS: WireErrors = {
  invalid: { status: 422, code: 'validation_error' },
  payload_too_large: { status: 413, code: 'payload_too_large' },
  unauthenticated: { status: 401, code: 'unauthorized' },
  token_expired: { status: 401, code: 'token_expired' },
  forbidden: { status: 403, code: 'forbidden' },
  not_found: { status: 404, code: 'not_found' },
  already_exists: { status: 409, code: 'already_exists' },
  bad_state: { status: 409, code: 'conflict' },
  rejected: { status: 409, code: 'rejected' },
  unsupported: { status: 501, code: 'not_implemented' },
  upgrade_required: { status: 426, code: 'upgrade_required' },
  method_not_allowed: { status: 405, code: 'method_not_allowed' },
  too_many: { status: 429, code: 'rate_limited' },
  unavailable: { status: 503, code: 'service_unavailable' },
  offline: { status: 503, code: 'service_unavailable' },
  timeout: { status: 504, code: 'timeout' },
  internal: { status: 500, code: 'internal_error' },
};

/** FastAPI's shape, which QERS clients read: `detail` is a sentence, or a list of what is wrong with the input. */
export function renderQersError(error: DomainError, c: ApiContext): Response {
  const { status, code } = wireErrorOf(ERRORS, error);
  const detail =
    error.code === 'invalid' && error.problems.length > 0
      ? error.problems.map(({ field, reason }) => ({ loc: field.split('.'), msg: reason, type: 'value_error' }))
      : error.message;
  return c.json({ detail, error: { code, message: error.message, request_id: c.get('requestId') } }, status);
}
