/** Every way an operation can fail that a caller may want to tell apart. Each API surface maps all of them. */
export const DOMAIN_ERROR_CODES = [
  'invalid',
  'payload_too_large',
  'unauthenticated',
  'token_expired',
  'forbidden',
  'not_found',
  'already_exists',
  'bad_state',
  'rejected',
  'unsupported',
  'upgrade_required',
  'method_not_allowed',
  'too_many',
  'unavailable',
  'offline',
  'timeout',
  'internal',
] as const;

export type DomainErrorCode = (typeof DOMAIN_ERROR_CODES)[number];

/** One thing wrong with the input: which field, and why. */
export interface FieldProblem {
  /** Path of the field as the caller wrote it: `joint_state[0].position`. */
  readonly field: string;
  readonly reason: string;
}

export interface DomainErrorOptions {
  readonly cause?: unknown;
  readonly problems?: readonly FieldProblem[];
  /** Facts for the caller, such as `{robot_id}`. Never secrets. */
  readonly details?: Readonly<Record<string, unknown>>;
  /** What the failing thing was: `robot`, `command`, … Picks the surface's own code (`ROBOT_NOT_FOUND`). */
  readonly subject?: string;
  readonly retryAfterS?: number;
}

/** A failure that a caller can understand. Two places catch it: a surface's edge and a service's retry loop. */
export class DomainError extends Error {
  override readonly name = 'DomainError';
  readonly code: DomainErrorCode;
  readonly problems: readonly FieldProblem[];
  readonly details: Readonly<Record<string, unknown>>;
  readonly subject: string | undefined;
  readonly retryAfterS: number | undefined;

  constructor(code: DomainErrorCode, message: string, options: DomainErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.problems = options.problems ?? [];
    this.details = options.details ?? {};
    this.subject = options.subject;
    this.retryAfterS = options.retryAfterS;
  }
}

/** The message of anything thrown. */
export const errorMessage = (error: unknown): string => (error instanceof Error ? error.message : String(error));
