import { DomainError } from '@outrider/shared/errors';
import { newId } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import { decodeProtectedHeader, jwtVerify, SignJWT } from 'jose';
import { JWTExpired } from 'jose/errors';
import type { IdentityStore } from './ports.ts';
import { coversScope, isScope, PRINCIPAL_KINDS, type Principal } from './principal.ts';
import { fingerprint } from './secrets.ts';
import { SIGNING_ALGORITHM, type SigningKeys } from './signing-keys.ts';

/** How long an access token lives (SigmaPrompt §3). [s] */
export const TOKEN_LIFETIME_S = 3_600;
const LEEWAY_S = 60;
const TOKEN_CHARACTERS_MAX = 8_192;
const CACHE_ENTRIES_MAX = 10_000;
/** RFC 9068: an access token and nothing else. */
const TOKEN_TYPE = 'at+jwt';
const COMPACT_JWS = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;

/**
 * Whether a text is a compact JWS to the letter. jose takes blanks, padding and left-over bits in its base64; RFC 7515
 * does not, and one token would have many spellings.
 */
export const isCompactJws = (text: string): boolean =>
  COMPACT_JWS.test(text) &&
  text.split('.').every((part) => Buffer.from(part, 'base64url').toString('base64url') === part);

export interface IssuedToken {
  readonly accessToken: string;
  readonly expiresInS: number;
}

/**
 * Issues and checks our access tokens.
 *
 * A verified token is remembered by its hash: checking an Ed25519 signature on each request would cost four times
 * as much as serving the request.
 */
export class Tokens {
  readonly #keys: SigningKeys;
  readonly #store: IdentityStore;
  readonly #clock: Clock;
  readonly #issuer: string;
  readonly #audience: string;
  readonly #verified = new Map<string, Principal>();
  #revoked = new Set<string>();

  constructor(keys: SigningKeys, store: IdentityStore, clock: Clock, options: { issuer: string; audience: string }) {
    this.#keys = keys;
    this.#store = store;
    this.#clock = clock;
    this.#issuer = options.issuer;
    this.#audience = options.audience;
  }

  /** Reads what other replicas took back. Call at start and every few seconds. */
  async refreshRevocations(): Promise<void> {
    this.#revoked = new Set(await this.#store.revokedTokens(this.#clock.epochMs()));
  }

  async issue(
    principal: Omit<Principal, 'tokenId' | 'expiresAtS'>,
    lifetimeS = TOKEN_LIFETIME_S,
  ): Promise<IssuedToken> {
    const { kid, key } = this.#keys.signer();
    const nowS = Math.floor(this.#clock.epochMs() / 1000);
    const accessToken = await new SignJWT({
      tenant: principal.tenantId,
      kind: principal.kind,
      scope: principal.scopes.join(' '),
      ...(principal.robotIds === undefined ? {} : { robot_ids: [...principal.robotIds] }),
    })
      .setProtectedHeader({ alg: SIGNING_ALGORITHM, kid, typ: TOKEN_TYPE })
      .setSubject(principal.sub)
      .setIssuer(this.#issuer)
      .setAudience(this.#audience)
      .setIssuedAt(nowS)
      .setExpirationTime(nowS + lifetimeS)
      .setJti(newId('tok'))
      .sign(key);
    return { accessToken, expiresInS: lifetimeS };
  }

  /**
   * Whose token this is.
   *
   * @throws DomainError `token_expired` or `unauthenticated`; never says more about why, and never quotes the token.
   */
  async verify(token: string): Promise<Principal> {
    const hash = fingerprint(token);
    const principal = this.#verified.get(hash) ?? (await this.#check(token));
    if (principal.tokenId !== undefined && this.#revoked.has(principal.tokenId)) {
      this.#verified.delete(hash);
      throw new DomainError('unauthenticated', 'the token was revoked');
    }
    if ((principal.expiresAtS ?? 0) + LEEWAY_S <= this.#clock.epochMs() / 1000) {
      this.#verified.delete(hash);
      throw new DomainError('token_expired', 'the token has expired');
    }
    if (this.#verified.size >= CACHE_ENTRIES_MAX) this.#verified.clear();
    this.#verified.set(hash, principal);
    return principal;
  }

  /** Takes a token back: at once here, within the refresh interval on other replicas. */
  async revoke(principal: Principal): Promise<void> {
    if (principal.tokenId === undefined) return;
    this.#revoked.add(principal.tokenId);
    await this.#store.revokeToken(principal.tokenId, ((principal.expiresAtS ?? 0) + LEEWAY_S) * 1000);
  }

  async #check(token: string): Promise<Principal> {
    if (token.length > TOKEN_CHARACTERS_MAX || !isCompactJws(token)) throw refuse();
    try {
      const { kid } = decodeProtectedHeader(token);
      const key = kid === undefined ? undefined : await this.#keys.verifier(kid);
      if (!key) throw refuse();
      const { payload } = await jwtVerify(token, key, {
        algorithms: [SIGNING_ALGORITHM],
        issuer: this.#issuer,
        audience: this.#audience,
        typ: TOKEN_TYPE,
        clockTolerance: LEEWAY_S,
        currentDate: new Date(this.#clock.epochMs()),
        requiredClaims: ['exp', 'iat', 'sub', 'jti', 'tenant', 'scope'],
      });
      // jose looks at iat only when there is a greatest age.
      if ((payload.iat ?? Number.POSITIVE_INFINITY) > this.#clock.epochMs() / 1000 + LEEWAY_S) throw refuse();
      return principalOf(payload);
    } catch (error) {
      if (error instanceof DomainError) throw error;
      if (error instanceof JWTExpired) throw new DomainError('token_expired', 'the token has expired');
      throw refuse();
    }
  }
}

function principalOf(claims: Record<string, unknown>): Principal {
  const { sub, tenant, scope, jti, exp, kind, robot_ids: robotIds } = claims;
  if (typeof sub !== 'string' || typeof tenant !== 'string' || typeof scope !== 'string' || typeof jti !== 'string')
    throw refuse();
  if (robotIds !== undefined && !(Array.isArray(robotIds) && robotIds.every((id) => typeof id === 'string')))
    throw refuse();
  return {
    kind: PRINCIPAL_KINDS.find((known) => known === kind) ?? 'client',
    sub,
    tenantId: tenant,
    scopes: scope.split(' ').filter(isScope),
    ...(robotIds === undefined ? {} : { robotIds: robotIds as string[] }),
    tokenId: jti,
    expiresAtS: Number(exp),
  };
}

const refuse = (): DomainError => new DomainError('unauthenticated', 'the token is not valid');

/** The scopes to put into a token: those asked for, or all when none were. @throws DomainError `invalid` */
export function grantScopes(allowed: Principal['scopes'], asked: Principal['scopes']): Principal['scopes'] {
  const denied = asked.find((scope) => !coversScope(allowed, scope));
  if (denied !== undefined) {
    throw new DomainError('invalid', `scope '${denied}' is not granted to this account`, {
      problems: [{ field: 'scope', reason: `'${denied}' is not granted; allowed: ${allowed.join(' ')}` }],
    });
  }
  return asked.length > 0 ? asked : allowed;
}
