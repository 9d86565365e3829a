import { DomainError } from '@outrider/shared/errors';

/** Everything a token can be allowed to do. `telemetry:read` and `command:write` are SigmaPrompt's names of WIA scopes. */
export const SCOPES = [
  'robot:read',
  'robot:write',
  'robot:control',
  'robot:admin',
  'telemetry:read',
  'telemetry:write',
  'command:write',
  'fleet:read',
  'fleet:write',
  'fleet:control',
  'alert:read',
  'alert:write',
  'sim:read',
  'sim:write',
  'deploy:read',
  'deploy:write',
  'work:read',
  'work:write',
] as const;
export type Scope = (typeof SCOPES)[number];

/** Scopes that two seeds spell differently and mean alike. */
const EQUIVALENT: Readonly<Partial<Record<Scope, Scope>>> = {
  'telemetry:read': 'robot:read',
  'command:write': 'robot:control',
};

export const PRINCIPAL_KINDS = ['client', 'user', 'robot', 'anonymous'] as const;
export type PrincipalKind = (typeof PRINCIPAL_KINDS)[number];

/** Who is asking, however it was proven. Every operation takes its tenant from here and from nowhere else. */
export interface Principal {
  readonly kind: PrincipalKind;
  readonly sub: string;
  readonly tenantId: string;
  readonly scopes: readonly Scope[];
  /** The only robots it may see. Absent: every robot of the tenant. */
  readonly robotIds?: readonly string[];
  /** Id of the token, so that it can be taken back. */
  readonly tokenId?: string;
  /** When the proof ends. [s since 1970] */
  readonly expiresAtS?: number;
}

export const isScope = (text: string): text is Scope => (SCOPES as readonly string[]).includes(text);

const canonical = (scope: Scope): Scope => EQUIVALENT[scope] ?? scope;

/** Whether `granted` covers `wanted`, by either of its names. */
export function coversScope(granted: readonly Scope[], wanted: Scope): boolean {
  return granted.some((scope) => canonical(scope) === canonical(wanted));
}

/** @throws DomainError `forbidden` unless the principal holds one of the scopes. */
export function requireScope(principal: Principal, anyOf: readonly Scope[]): void {
  if (anyOf.some((scope) => coversScope(principal.scopes, scope))) return;
  throw new DomainError('forbidden', `this needs the scope ${anyOf.join(' or ')}`, {
    details: { required_scope: anyOf.join(' ') },
  });
}

/** @throws DomainError `forbidden` when the principal is bound to other robots. Says nothing of what exists. */
export function requireRobot(principal: Principal, robotId: string): void {
  if (principal.robotIds === undefined || principal.robotIds.includes(robotId)) return;
  throw new DomainError('forbidden', `this token does not cover the robot '${robotId}'`, {
    details: { robot_id: robotId },
  });
}

/**
 * Reads a space-separated scope list.
 *
 * @throws DomainError `invalid` that names the first scope nobody knows.
 */
export function parseScopes(text: string, field = 'scope'): Scope[] {
  const scopes: Scope[] = [];
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    if (!isScope(word)) {
      throw new DomainError('invalid', `${field} '${word.slice(0, 64)}' is not known`, {
        problems: [{ field, reason: `must be among: ${SCOPES.join(' ')}` }],
      });
    }
    if (!scopes.includes(word)) scopes.push(word);
  }
  return scopes;
}
