import { DomainError } from '@outrider/shared/errors';
import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible';
import type { IdentityStore, Tier } from '../identity/ports.ts';
import type { Principal } from '../identity/principal.ts';

const MINUTE_S = 60;
/** WIA §9.4. [requests a minute] */
const TIER_POINTS: Readonly<Record<Tier, number>> = {
  free: 100,
  developer: 1_000,
  production: 10_000,
  enterprise: Number.POSITIVE_INFINITY,
};
/** Attempts to get a token from one address, right or wrong. Each may cost a slow hash. */
const AUTH_POINTS = 300;
/** Wrong secrets for one account from one address. The sixth is refused unseen. */
const AUTH_FAILURE_POINTS = 5;
const TENANT_CACHE_MAX = 10_000;
const TENANT_CACHE_MS = 60_000;

/** Where a caller stands: what the rate-limit headers say. */
export interface Allowance {
  readonly limit: number;
  readonly remaining: number;
  readonly resetMs: number;
}

/** Counts requests per caller and refuses those over its tier. In memory: each replica counts for itself. */
export class Throttle {
  readonly #store: IdentityStore;
  readonly #tiers = new Map<string, { tier: Tier; untilMs: number }>();
  readonly #limiters: Readonly<Record<Exclude<Tier, 'enterprise'>, RateLimiterMemory>>;
  readonly #attempts = new RateLimiterMemory({ keyPrefix: 'auth', points: AUTH_POINTS, duration: MINUTE_S });
  readonly #failures = new RateLimiterMemory({ keyPrefix: 'fail', points: AUTH_FAILURE_POINTS, duration: MINUTE_S });
  readonly #nowMs: () => number;

  constructor(store: IdentityStore, nowMs: () => number) {
    this.#store = store;
    this.#nowMs = nowMs;
    const limiter = (tier: Tier): RateLimiterMemory =>
      new RateLimiterMemory({ keyPrefix: tier, points: TIER_POINTS[tier], duration: MINUTE_S });
    this.#limiters = { free: limiter('free'), developer: limiter('developer'), production: limiter('production') };
  }

  /** Counts a request of a known caller. @throws DomainError `too_many` */
  async takeRequest(principal: Principal): Promise<Allowance | undefined> {
    const tier = await this.#tierOf(principal.tenantId);
    if (tier === 'enterprise') return undefined;
    return take(this.#limiters[tier], `${principal.tenantId}/${principal.sub}`, TIER_POINTS[tier]);
  }

  /** Counts an attempt to get a token. @throws DomainError `too_many` */
  async takeAuthAttempt(address: string): Promise<Allowance> {
    return take(this.#attempts, address, AUTH_POINTS);
  }

  /**
   * Runs a check of a secret, unless the account has failed too often from this address.
   *
   * @throws DomainError `too_many`, or whatever the check throws.
   */
  async guardSecret<T>(account: string, address: string, check: () => Promise<T>): Promise<T> {
    const key = `${address}|${account.slice(0, 128)}`;
    const before = await this.#failures.get(key);
    if (before && before.consumedPoints >= AUTH_FAILURE_POINTS) throw tooMany(before, AUTH_FAILURE_POINTS);
    try {
      return await check();
    } catch (error) {
      if (error instanceof DomainError && error.code === 'unauthenticated') {
        await this.#failures.penalty(key);
      }
      throw error;
    }
  }

  async #tierOf(tenantId: string): Promise<Tier> {
    const cached = this.#tiers.get(tenantId);
    if (cached && cached.untilMs > this.#nowMs()) return cached.tier;
    const tier = await this.#store.tenant(tenantId).then(
      (tenant) => tenant?.tier ?? 'free',
      () => cached?.tier ?? 'production',
    );
    if (this.#tiers.size >= TENANT_CACHE_MAX) this.#tiers.clear();
    this.#tiers.set(tenantId, { tier, untilMs: this.#nowMs() + TENANT_CACHE_MS });
    return tier;
  }
}

async function take(limiter: RateLimiterMemory, key: string, limit: number): Promise<Allowance> {
  try {
    const taken = await limiter.consume(key);
    return { limit, remaining: taken.remainingPoints, resetMs: taken.msBeforeNext };
  } catch (refused) {
    if (refused instanceof Error) throw refused;
    throw tooMany(refused as RateLimiterRes, limit);
  }
}

function tooMany(state: RateLimiterRes, limit: number): DomainError {
  const retryAfterS = Math.max(1, Math.ceil(state.msBeforeNext / 1000));
  return new DomainError('too_many', `too many requests: try again in ${retryAfterS} s`, {
    retryAfterS,
    details: { limit, reset_in_s: retryAfterS },
  });
}
