import { requestIdOr } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { Clock } from '@outrider/shared/time';
import type { MiddlewareHandler } from 'hono';
import { type ApiEnv, nodeOf, type Surface } from '../surface.ts';
import type { ApiMetrics } from './metrics.ts';

/**
 * Gives each request its id, its headers and its line in the access log. Neither the query string nor a header is
 * logged: both can hold secrets.
 */
export function requestContext(deps: {
  clock: Clock;
  log: Logger;
  metrics: ApiMetrics;
  surfaceFor: (path: string) => Surface;
}): MiddlewareHandler<ApiEnv> {
  const { clock, metrics, surfaceFor } = deps;
  // The entry's fields are all our own and hold no secret; looking through each line for one costs more than the line.
  const log = deps.log.child({}, { redact: [] });
  return async (c, next) => {
    const startedMs = clock.monotonicMs();
    const requestId = requestIdOr(c.req.header('x-request-id'));
    c.set('requestId', requestId);
    c.set('startedAtMs', clock.epochMs());
    // What every answer carries is told to Node itself: through hono it would be copied from Headers to Headers.
    const { outgoing } = nodeOf(c) ?? {};
    const header = outgoing ? (name: string, text: string) => outgoing.setHeader(name, text) : c.header;
    header('X-Request-ID', requestId);
    header('X-Content-Type-Options', 'nosniff');
    header('Cache-Control', 'no-store');
    await next();
    const allowance = c.get('allowance');
    if (allowance) {
      const name = surfaceFor(c.req.path).rateLimitHeader;
      header(`${name}-Limit`, String(allowance.limit));
      header(`${name}-Remaining`, String(allowance.remaining));
      header(`${name}-Reset`, String(Math.ceil((clock.epochMs() + allowance.resetMs) / 1000)));
    }
    const durationMs = clock.monotonicMs() - startedMs;
    const { status } = c.res;
    metrics.requestSeconds.observe(
      { method: c.req.method, route: c.get('routePath') ?? 'none', status: String(status) },
      durationMs / 1000,
    );
    metrics.observeOperation(
      { method: c.req.method, route: c.get('routePath') ?? '', status },
      c.get('failureCode'),
      durationMs / 1000,
      clock.epochMs(),
    );
    const principal = c.get('principal');
    const entry = {
      requestId,
      method: c.req.method,
      path: c.req.path,
      status,
      durationMs: Math.round(durationMs * 1000) / 1000,
      tenantId: principal?.tenantId,
      subject: principal?.sub,
      robotId: c.get('robotId'),
    };
    if (status === 500) log.error(entry, 'http.failed');
    else if (status > 500) log.warn(entry, 'http.answered');
    else log.info(entry, 'http.answered');
  };
}
