import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DomainError, DomainErrorCode } from '@outrider/shared/errors';
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { Principal } from '../identity/principal.ts';
import type { Router } from './router.ts';
import type { Allowance } from './throttle.ts';

/** What every request carries through the server. */
export interface ApiEnv {
  Variables: {
    /** Echoed as X-Request-ID, and the trace id of all that the request causes. */
    requestId: string;
    principal: Principal | undefined;
    /** For the access log. */
    robotId: string | undefined;
    /** The route's pattern, for metrics: never the path, which has ids. */
    /** Wall time at arrival. [ms since 1970] */
    startedAtMs: number;
    routePath: string | undefined;
    allowance: Allowance | undefined;
    /** What went wrong, in the domain's words. */
    failureCode: DomainErrorCode | undefined;
  };
}
export type ApiContext = Context<ApiEnv>;

/** Node's own side of a request that came over a listener; a request of a test has none. */
export interface NodeSide {
  readonly incoming?: IncomingMessage;
  readonly outgoing?: Pick<ServerResponse, 'setHeader'>;
}
export const nodeOf = (c: ApiContext): NodeSide | undefined => c.env as NodeSide | undefined;

/** How a domain error looks on one surface. */
export interface WireError {
  readonly status: ContentfulStatusCode;
  readonly code: string;
}
/** Complete by type: a new domain error does not compile until every surface has answered it. */
export type WireErrors = Readonly<Record<DomainErrorCode, WireError>>;

/** One seed document's HTTP surface: the paths it owns and the envelope it speaks. */
export interface Surface {
  readonly name: string;
  /** `/api/v1/robots`: no two surfaces own the same one. The longest that fits chooses the envelope. */
  readonly prefixes: readonly string[];
  /** `X-RateLimit` or `X-Rate-Limit`. */
  readonly rateLimitHeader: 'X-RateLimit' | 'X-Rate-Limit';
  /** Adds the surface's routes. Absent while only its envelope is there. */
  register?(router: Router): void;
  renderError(error: DomainError, c: ApiContext): Response;
}

/** Whether the path is the prefix or below it. */
export const ownsPath = (prefix: string, path: string): boolean =>
  path === prefix || (path.startsWith(prefix) && path[prefix.length] === '/');

/** The surface with the longest prefix that owns the path. */
export function surfaceOf(surfaces: readonly Surface[], path: string, fallback: Surface): Surface {
  let best = fallback;
  let bestLength = 0;
  for (const surface of surfaces) {
    for (const prefix of surface.prefixes) {
      if (prefix.length <= bestLength || !ownsPath(prefix, path)) continue;
      best = surface;
      bestLength = prefix.length;
    }
  }
  return best;
}
