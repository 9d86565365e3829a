import { DomainError } from '@outrider/shared/errors';
import type { Clock } from '@outrider/shared/time';
import type { IdentityStore } from './ports.ts';
import { type Principal, SCOPES } from './principal.ts';
import { fingerprint } from './secrets.ts';
import type { Tokens } from './tokens.ts';

export const AUTH_MODES = ['required', 'optional'] as const;
export type AuthMode = (typeof AUTH_MODES)[number];

/** What a robot's own key lets it do: speak for itself, and read itself. */
const ROBOT_SCOPES = ['telemetry:write', 'robot:read'] as const;
const API_KEY_PATTERN = /^wia_sk_live_[A-Za-z0-9_-]{43}$/;
/** How long a key that was good is taken without asking the database: also how late a revocation is felt. */
const API_KEY_CACHE_MS = 15_000;
const CACHE_ENTRIES_MAX = 10_000;

/** What a request brings to prove who it is. */
export interface Credentials {
  /** The `Authorization` header. */
  readonly authorization?: string | undefined;
  /** The `X-API-Key` header: a robot's key. */
  readonly apiKey?: string | undefined;
  /** The `X-Tenant-ID` header. */
  readonly tenantId?: string | undefined;
}

/** Turns credentials of any kind into a principal. */
export class Authenticator {
  readonly #tokens: Tokens;
  readonly #store: IdentityStore;
  readonly #clock: Clock;
  readonly #anonymous: Principal | undefined;
  readonly #robotKeys = new Map<string, { principal: Principal; untilMs: number }>();

  /** @param mode `optional` treats a request without credentials as the default tenant's administrator. */
  constructor(tokens: Tokens, store: IdentityStore, clock: Clock, mode: AuthMode, defaultTenantId: string) {
    this.#tokens = tokens;
    this.#store = store;
    this.#clock = clock;
    this.#anonymous =
      mode === 'optional'
        ? { kind: 'anonymous', sub: 'anonymous', tenantId: defaultTenantId, scopes: SCOPES }
        : undefined;
  }

  /**
   * @throws DomainError `unauthenticated` or `token_expired`; `forbidden` when `X-Tenant-ID` names a tenant that is
   *   not the principal's.
   */
  async authenticate(credentials: Credentials): Promise<Principal> {
    const principal = await this.#principalOf(credentials);
    if (credentials.tenantId !== undefined && credentials.tenantId !== principal.tenantId) {
      throw new DomainError('forbidden', 'X-Tenant-ID is not a tenant of this token', {
        problems: [{ field: 'X-Tenant-ID', reason: 'must be the tenant of the token, or be left out' }],
      });
    }
    return principal;
  }

  /** The principal of a bare token or key, such as a stream's ticket or its renewal. */
  async authenticateSecret(secret: string): Promise<Principal> {
    return secret.startsWith('wia_sk_') ? this.#robotPrincipal(secret) : this.#tokens.verify(secret);
  }

  async #principalOf({ authorization, apiKey }: Credentials): Promise<Principal> {
    if (apiKey !== undefined) return this.#robotPrincipal(apiKey);
    if (authorization === undefined || authorization === '') {
      if (this.#anonymous) return this.#anonymous;
      throw new DomainError('unauthenticated', 'a bearer token is needed: Authorization: Bearer <token>');
    }
    const [scheme, secret, ...rest] = authorization.trim().split(/ +/);
    if (scheme?.toLowerCase() !== 'bearer' || secret === undefined || rest.length > 0)
      throw new DomainError('unauthenticated', 'the Authorization header must read: Bearer <token>');
    return this.authenticateSecret(secret);
  }

  async #robotPrincipal(apiKey: string): Promise<Principal> {
    if (!API_KEY_PATTERN.test(apiKey)) throw new DomainError('unauthenticated', 'the API key is not valid');
    const hash = fingerprint(apiKey);
    const nowMs = this.#clock.monotonicMs();
    const cached = this.#robotKeys.get(hash);
    if (cached && cached.untilMs > nowMs) return cached.principal;
    const stored = await this.#store.robotKey(hash);
    if (!stored) {
      this.#robotKeys.delete(hash);
      throw new DomainError('unauthenticated', 'the API key is not valid');
    }
    const principal: Principal = {
      kind: 'robot',
      sub: `robot:${stored.robotId}`,
      tenantId: stored.tenantId,
      scopes: ROBOT_SCOPES,
      robotIds: [stored.robotId],
    };
    if (this.#robotKeys.size >= CACHE_ENTRIES_MAX) this.#robotKeys.clear();
    this.#robotKeys.set(hash, { principal, untilMs: nowMs + API_KEY_CACHE_MS });
    return principal;
  }
}
