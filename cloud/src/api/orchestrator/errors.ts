import type { DomainError } from '@outrider/shared/errors';
import { wireErrorOf } from '../errors.ts';
import type { ApiContext, WireErrors } from '../surface.ts';

const ERRORS: WireErrors = {
  invalid: { status: 400, code: 'INVALID_REQUEST' },
  payload_too_large: { status: 413, code: 'PAYLOAD_TOO_LARGE' },
  unauthenticated: { status: 401, code: 'UNAUTHORIZED' },
  token_expired: { status: 401, code: 'UNAUTHORIZED' },
  forbidden: { status: 403, code: 'FORBIDDEN' },
  not_found: { status: 404, code: 'NOT_FOUND' },
  already_exists: { status: 409, code: 'ALREADY_EXISTS' },
  bad_state: { status: 400, code: 'INVALID_TRANSITION' },
  rejected: { status: 400, code: 'INVALID_TRANSITION' },
  unsupported: { status: 501, code: 'NOT_IMPLEMENTED' },
  upgrade_required: { status: 426, code: 'UPGRADE_REQUIRED' },
  method_not_allowed: { status: 405, code: 'METHOD_NOT_ALLOWED' },
  too_many: { status: 429, code: 'RATE_LIMITED' },
  unavailable: { status: 503, code: 'SERVICE_UNAVAILABLE' },
  offline: { status: 503, code: 'AGENT_UNAVAILABLE' },
  timeout: { status: 504, code: 'TIMEOUT' },
  internal: { status: 500, code: 'INTERNAL_ERROR' },
};

/** Industrial Orchestrator, "Error Response". A missing thing is named by its kind: `SESSION_NOT_FOUND`. */
export function renderOrchestratorError(error: DomainError, c: ApiContext): Response {
  const { status, code } = wireErrorOf(ERRORS, error);
  const isNamed = error.code === 'not_found' && error.subject !== undefined;
  const details = { ...error.details, ...(error.problems.length > 0 ? { fields: error.problems } : {}) };
  return c.json(
    {
      error: {
        code: isNamed ? `${error.subject?.toUpperCase()}_NOT_FOUND` : code,
        message: error.message,
        ...(Object.keys(details).length > 0 ? { details } : {}),
        request_id: c.get('requestId'),
      },
    },
    status,
  );
}
