import type { DomainError } from '@outrider/shared/errors';
import { wireErrorOf } from '../errors.ts';
import type { ApiContext, WireErrors } from '../surface.ts';

/** SigmaPrompt's codes are gRPC's, in HTTP. */
const ERRORS: WireErrors = {
  invalid: { status: 400, code: 'INVALID_ARGUMENT' },
  payload_too_large: { status: 413, code: 'RESOURCE_EXHAUSTED' },
  unauthenticated: { status: 401, code: 'UNAUTHENTICATED' },
  token_expired: { status: 401, code: 'UNAUTHENTICATED' },
  forbidden: { status: 403, code: 'PERMISSION_DENIED' },
  not_found: { status: 404, code: 'NOT_FOUND' },
  already_exists: { status: 409, code: 'ALREADY_EXISTS' },
  bad_state: { status: 409, code: 'FAILED_PRECONDITION' },
  rejected: { status: 409, code: 'FAILED_PRECONDITION' },
  unsupported: { status: 501, code: 'UNIMPLEMENTED' },
  upgrade_required: { status: 426, code: 'FAILED_PRECONDITION' },
  method_not_allowed: { status: 405, code: 'UNIMPLEMENTED' },
  too_many: { status: 429, code: 'RESOURCE_EXHAUSTED' },
  unavailable: { status: 503, code: 'UNAVAILABLE' },
  offline: { status: 503, code: 'UNAVAILABLE' },
  timeout: { status: 504, code: 'DEADLINE_EXCEEDED' },
  internal: { status: 500, code: 'INTERNAL' },
};

/** SigmaPrompt §12. `details` is a list of `{field, reason}`; other facts are `{field, reason}` too. */
export function renderSigmaError(error: DomainError, c: ApiContext): Response {
  const { status, code } = wireErrorOf(ERRORS, error);
  const facts = Object.entries(error.details).map(([field, value]) => ({ field, reason: String(value) }));
  const details = [...error.problems, ...facts];
  return c.json(
    {
      error: {
        code,
        message: error.message,
        ...(details.length > 0 ? { details } : {}),
        request_id: c.get('requestId'),
      },
    },
    status,
  );
}
