import type { DomainError } from '@outrider/shared/errors';
import { wireErrorOf } from '../errors.ts';
import type { ApiContext, WireErrors } from '../surface.ts';
import { API_VERSION } from './envelope.ts';

const ERRORS: WireErrors = {
  invalid: { status: 422, code: 'VALIDATION_FAILED' },
  payload_too_large: { status: 413, code: 'PAYLOAD_TOO_LARGE' },
  unauthenticated: { status: 401, code: 'INVALID_TOKEN' },
  token_expired: { status: 401, code: 'INVALID_TOKEN' },
  forbidden: { status: 403, code: 'INSUFFICIENT_PERMISSIONS' },
  not_found: { status: 404, code: 'NOT_FOUND' },
  already_exists: { status: 409, code: 'ALREADY_EXISTS' },
  bad_state: { status: 409, code: 'ROBOT_BUSY' },
  rejected: { status: 422, code: 'COMMAND_REJECTED' },
  unsupported: { status: 422, code: 'CAPABILITY_NOT_SUPPORTED' },
  upgrade_required: { status: 426, code: 'UPGRADE_REQUIRED' },
  method_not_allowed: { status: 405, code: 'METHOD_NOT_ALLOWED' },
  too_many: { status: 429, code: 'RATE_LIMIT_EXCEEDED' },
  unavailable: { status: 503, code: 'SERVICE_UNAVAILABLE' },
  offline: { status: 503, code: 'ROBOT_OFFLINE' },
  timeout: { status: 504, code: 'COMMAND_TIMEOUT' },
  internal: { status: 500, code: 'INTERNAL_ERROR' },
};

/** WIA §2.2. A missing or doubled thing is named by its kind: `ROBOT_NOT_FOUND`. */
export function renderWiaError(error: DomainError, c: ApiContext): Response {
  const wire = wireErrorOf(ERRORS, error);
  const named = error.subject !== undefined && (error.code === 'not_found' || error.code === 'already_exists');
  const isBadBody = error.problems.some((problem) => problem.field === 'body' && error.code === 'invalid');
  const fields = error.problems.length > 0 ? { fields: error.problems } : {};
  const details = { ...error.details, ...fields };
  return c.json(
    {
      status: 'error',
      timestamp: new Date(c.get('startedAtMs')).toISOString(),
      error: {
        code: named ? `${error.subject?.toUpperCase()}_${wire.code}` : wire.code,
        message: error.message,
        ...(Object.keys(details).length > 0 ? { details } : {}),
      },
      metadata: { request_id: c.get('requestId'), version: API_VERSION },
    },
    // A body that is no JSON at all is a bad request (WIA §2.3); one that breaks a rule is unprocessable.
    isBadBody ? 400 : wire.status,
  );
}
