import { OpenAPIHono } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { TrieRouter } from 'hono/router/trie-router';
import type { StreamHub } from '../dashboard/stream-hub.ts';
import { SCOPES } from '../identity/principal.ts';
import type { Core } from './core.ts';
import { asDomainError, errorHeaders } from './errors.ts';
import { requestContext } from './middleware/request-context.ts';
import { renderOrchestratorError } from './orchestrator/errors.ts';
import { renderPanthersError } from './panthers/errors.ts';
import { renderQersError } from './qers/errors.ts';
import { Router } from './router.ts';
import { renderSigmaError } from './sigma/errors.ts';
import { sigmaSurface } from './sigma/surface.ts';
import { type ApiEnv, type Surface, surfaceOf } from './surface.ts';
import { registerSystem } from './system/routes.ts';
import { wiaSurface } from './wia/surface.ts';

export interface ApiOptions {
  readonly version: string;
  /** Monotonic time of the process's start, for the uptime. */
  readonly startedMs: number;
}

/** The whole HTTP server: five surfaces over one core, and the envelope of each for whatever goes wrong under it. */
export function createApi(core: Core, hub: StreamHub, options: ApiOptions): OpenAPIHono<ApiEnv> {
  const app = new OpenAPIHono<ApiEnv>();
  const surfaces: readonly Surface[] = [sigmaSurface(core, hub), wiaSurface(core), ...SURFACES_TO_COME];
  const surfaceFor = (path: string): Surface => surfaceOf(surfaces, path, SYSTEM);

  app.use('*', requestContext({ clock: core.clock, log: core.log, metrics: core.metrics, surfaceFor }));
  app.onError((error, c) => {
    const failure = asDomainError(error);
    c.set('failureCode', failure.code);
    if (failure.cause !== undefined && (failure.code === 'internal' || failure.code === 'unavailable'))
      core.log.error({ err: failure.cause, requestId: c.get('requestId') }, 'request.failed');
    errorHeaders(failure, c);
    return surfaceFor(c.req.path).renderError(failure, c);
  });

  const router = new Router(app, core.authenticator, core.throttle);
  for (const surface of surfaces) surface.register?.(router);
  registerSystem(router, core, { ...options, document: (url) => describeApi(app, options.version, url) });
  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'oauth2',
    description: 'A token of /api/v1/auth/token or /v1/auth/login; robots may send their API key in its place',
    flows: {
      clientCredentials: {
        tokenUrl: '/api/v1/auth/token',
        scopes: Object.fromEntries(SCOPES.map((scope) => [scope, scope])),
      },
    },
  });

  const methodsOf = methodTable(app);
  app.notFound((c) => {
    const allowed = methodsOf(c.req.path);
    const failure =
      allowed.length > 0
        ? new DomainError('method_not_allowed', `${c.req.method} is not allowed here: ${allowed.join(', ')}`)
        : new DomainError('not_found', 'there is nothing at this path');
    if (allowed.length > 0) c.header('Allow', allowed.join(', '));
    return surfaceFor(c.req.path).renderError(failure, c);
  });
  return app;
}

/** Surfaces whose rooms are still empty: a caller already gets their envelope. */
const SURFACES_TO_COME: readonly Surface[] = [
  {
    name: 'qers',
    prefixes: [
      ...['health', 'runs', 'scenarios'].map((room) => `/v1/${room}`),
      ...['health', 'runs', 'projects', 'assets', 'design', 'sim', 'benchmarks', 'ai', 'reality-profiles'].map(
        (room) => `/api/${room}`,
      ),
      '/openapi.json',
      '/docs',
    ],
    rateLimitHeader: 'X-RateLimit',
    renderError: renderQersError,
  },
  {
    name: 'panthers',
    prefixes: ['challenge', 'verify', 'refresh', 'logout']
      .flatMap((verb) => [`/auth/${verb}`, `/v1/auth/${verb}`])
      .concat(['/deployments', '/v1/deployments', '/metrics', '/v1/metrics', '/ws', '/v1/ws']),
    rateLimitHeader: 'X-RateLimit',
    renderError: renderPanthersError,
  },
  {
    name: 'orchestrator',
    prefixes: [
      '/api/v1/sessions',
      '/api/v1/agents',
      '/api/v1/tasks',
      '/ws/sessions',
      '/ws/agents',
      '/ws/system',
      '/health',
      '/ready',
    ],
    rateLimitHeader: 'X-RateLimit',
    renderError: renderOrchestratorError,
  },
];

/** For paths that no document owns. */
const SYSTEM: Surface = { name: 'system', prefixes: [], rateLimitHeader: 'X-RateLimit', renderError: renderSigmaError };

/** The document of everything that was registered. */
export const describeApi = (app: OpenAPIHono<ApiEnv>, version: string, url: string): unknown =>
  app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Outrider',
      version,
      description: 'Offline-first edge and cloud control for robots in the field.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    servers: [{ url }],
    externalDocs: { description: 'The event bus and the live stream, as AsyncAPI 3.0', url: `${url}/asyncapi.json` },
  });

/** Which methods a path takes, for 405 and its Allow header. */
function methodTable(app: OpenAPIHono<ApiEnv>): (path: string) => string[] {
  const table = new TrieRouter<string>();
  for (const { method, path } of app.routes) if (method !== 'ALL') table.add('ALL', path, method);
  return (path) => {
    const methods = table.match('ALL', path)[0].map(([method]) => method);
    return [...new Set(methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])))];
  };
}
