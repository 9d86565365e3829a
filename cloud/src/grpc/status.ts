import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { DomainError, DomainErrorCode } from '@outrider/shared/errors';
import { google } from '@outrider/shared/protocol/api-messages';

/** Complete by type: a new domain error does not compile until gRPC has answered it, too. */
const CODES: Readonly<Record<DomainErrorCode, status>> = {
  invalid: status.INVALID_ARGUMENT,
  payload_too_large: status.RESOURCE_EXHAUSTED,
  unauthenticated: status.UNAUTHENTICATED,
  token_expired: status.UNAUTHENTICATED,
  forbidden: status.PERMISSION_DENIED,
  not_found: status.NOT_FOUND,
  already_exists: status.ALREADY_EXISTS,
  bad_state: status.FAILED_PRECONDITION,
  rejected: status.FAILED_PRECONDITION,
  unsupported: status.UNIMPLEMENTED,
  upgrade_required: status.FAILED_PRECONDITION,
  method_not_allowed: status.UNIMPLEMENTED,
  too_many: status.RESOURCE_EXHAUSTED,
  unavailable: status.UNAVAILABLE,
  offline: status.UNAVAILABLE,
  timeout: status.DEADLINE_EXCEEDED,
  internal: status.INTERNAL,
};
const TYPE = 'type.googleapis.com/google.rpc';
/** Trailers share one header block, which peers bound to 16 KiB or so. */
const PROBLEMS_MAX = 10;
const TEXT_MAX = 256;

/** The status code of a domain error. */
export const statusOf = (error: DomainError): status => CODES[error.code];

/** A failure as gRPC says it: the code, the message, and the details of Google's error model in the trailers. */
export function serviceError(error: DomainError, requestId: string): ServiceError {
  const code = statusOf(error);
  const { BadRequest, ErrorInfo, RequestInfo, Status } = google.rpc;
  const metadata = new Metadata();
  metadata.set('x-request-id', requestId);
  if (error.retryAfterS !== undefined) metadata.set('retry-after', String(error.retryAfterS));
  const facts = Object.entries(error.details).map(([key, value]) => [key, cut(String(value))] as const);
  const details = [
    {
      type_url: `${TYPE}.ErrorInfo`,
      value: ErrorInfo.encode({ reason: error.code, domain: 'outrider', metadata: Object.fromEntries(facts) }).finish(),
    },
    { type_url: `${TYPE}.RequestInfo`, value: RequestInfo.encode({ request_id: requestId }).finish() },
  ];
  if (error.problems.length > 0) {
    const violations = error.problems
      .slice(0, PROBLEMS_MAX)
      .map(({ field, reason }) => ({ field: cut(field), description: cut(reason) }));
    details.push({
      type_url: `${TYPE}.BadRequest`,
      value: BadRequest.encode({ field_violations: violations }).finish(),
    });
  }
  const message = cut(error.message);
  metadata.set('grpc-status-details-bin', Buffer.from(Status.encode({ code, message, details }).finish()));
  return Object.assign(new Error(message), { code, details: message, metadata });
}

const cut = (text: string): string => (text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX - 1)}…` : text);
