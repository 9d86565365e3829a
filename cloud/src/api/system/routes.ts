import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { requireScope } from '../../identity/principal.ts';
import type { Core } from '../core.ts';
import { type Router, remoteAddress } from '../router.ts';
import type { ApiContext } from '../surface.ts';
import { registerMessageDocs } from './message-docs.ts';

const HEALTH_PATHS = [
  { path: '/health', operationId: 'health' },
  { path: '/v1/health', operationId: 'healthV1' },
  { path: '/api/health', operationId: 'healthApi' },
  { path: '/api/v1/health', operationId: 'healthApiV1' },
] as const;

const Checks = z.record(z.string(), z.object({ status: z.enum(['ok', 'failed']), reason: z.string().optional() }));
const Health = z
  .object({
    status: z.enum(['healthy', 'unhealthy']),
    version: z.string(),
    uptime: z.number(),
    deployments_active: z.int(),
    checks: Checks,
  })
  .openapi('Health');

/** Health, readiness, metrics, keys, and the documentation. */
export function registerSystem(
  router: Router,
  core: Core,
  options: { version: string; startedMs: number; document: (url: string) => unknown },
): void {
  const plain = { tag: 'System', access: 'public', throttle: 'never' } as const;
  for (const { path, operationId } of HEALTH_PATHS) {
    router.addPublic(
      {
        ...plain,
        method: 'get',
        path,
        operationId,
        summary: 'Whether the server works',
        responses: {
          200: { description: 'It does', schema: Health },
          503: { description: 'It does not', schema: Health },
        },
      },
      async (_input, c) => {
        const { isReady, checks } = await core.readiness.report();
        const uptime = Math.round(core.clock.monotonicMs() - options.startedMs) / 1000;
        const status = isReady ? 'healthy' : 'unhealthy';
        return c.json({ status, version: options.version, uptime, deployments_active: 0, checks }, isReady ? 200 : 503);
      },
    );
  }
  const Ready = z.object({ ready: z.boolean(), reasons: z.array(z.string()), checks: Checks }).openapi('Ready');
  router.addPublic(
    {
      ...plain,
      method: 'get',
      path: '/ready',
      operationId: 'ready',
      summary: 'Whether the server wants requests now, and if not, why',
      responses: { 200: { description: 'Ready', schema: Ready }, 503: { description: 'Not ready', schema: Ready } },
    },
    async (_input, c) => {
      const { isReady, checks } = await core.readiness.report();
      const reasons = Object.entries(checks).flatMap(([name, { reason }]) =>
        reason === undefined ? [] : [`${name}: ${reason}`],
      );
      return c.json({ ready: isReady, reasons, checks }, isReady ? 200 : 503);
    },
  );
  router.addPublic(
    {
      ...plain,
      method: 'get',
      path: '/metrics',
      operationId: 'metrics',
      summary: 'Prometheus metrics, for callers on this machine or with robot:admin',
      responses: {
        200: { description: 'Metrics', contentType: 'text/plain' },
        401: { description: 'Not from here without a token' },
      },
    },
    async (_input, c) => {
      if (!isLoopback(remoteAddress(c))) requireScope(await router.authenticate(c), ['robot:admin']);
      c.header('Content-Type', core.metrics.registry.contentType);
      return c.body(await core.metrics.registry.metrics());
    },
  );
  router.addPublic(
    {
      ...plain,
      method: 'get',
      path: '/.well-known/jwks.json',
      operationId: 'jwks',
      summary: 'Public keys of the tokens',
      responses: {
        200: { description: 'JWK set', schema: z.object({ keys: z.array(z.record(z.string(), z.unknown())) }) },
      },
    },
    (_input, c) => c.json(core.signingKeys.jwks()),
  );
  let document: string | undefined;
  router.addPublic(
    {
      ...plain,
      method: 'get',
      path: '/openapi.json',
      operationId: 'openapi',
      summary: 'This API as OpenAPI 3.1',
      responses: { 200: { description: 'The document', schema: z.record(z.string(), z.unknown()) } },
    },
    (_input, c) => {
      document ??= JSON.stringify(options.document(core.urls().http));
      c.header('Content-Type', 'application/json');
      return c.body(document);
    },
  );
  registerMessageDocs(router, core.urls, options.version);
  registerDocs(router);
}

/** Only these of swagger-ui-dist are served; its package also has a tracking script that must not run. */
const DOC_FILES: Readonly<Record<string, string>> = {
  'swagger-ui.css': 'text/css',
  'swagger-ui-bundle.js': 'text/javascript',
  'favicon-32x32.png': 'image/png',
};

const PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Outrider API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css"><link rel="icon" href="/docs/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>
`;
const START = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#swagger-ui', deepLinking: true, persistAuthorization: false });\n`;

function registerDocs(router: Router): void {
  const folder = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));
  const cache = new Map<string, Promise<Buffer>>();
  const base = { method: 'get', tag: 'System', access: 'public', throttle: 'never' } as const;
  router.addPublic(
    {
      ...base,
      path: '/docs',
      operationId: 'docs',
      summary: 'This API to read and to try',
      responses: { 200: { description: 'A page', contentType: 'text/html' } },
    },
    (_input, c) => page(c, 'text/html; charset=utf-8', PAGE),
  );
  router.addPublic(
    {
      ...base,
      path: '/docs/{file}',
      operationId: 'docsFile',
      summary: 'Parts of the documentation page',
      params: z.object({ file: z.string() }),
      responses: {
        200: { description: 'A file', contentType: 'application/octet-stream' },
        404: {
          description: 'No such file',
          schema: z.object({
            detail: z.string(),
            error: z.object({ code: z.string(), message: z.string(), request_id: z.string() }),
          }),
        },
      },
    },
    async ({ params: { file } }, c) => {
      if (file === 'start.js') return page(c, 'text/javascript; charset=utf-8', START);
      const type = Object.hasOwn(DOC_FILES, file) ? DOC_FILES[file] : undefined;
      if (type === undefined) throw new DomainError('not_found', 'there is no such file');
      let content = cache.get(file);
      if (!content) {
        content = readFile(join(folder, file));
        cache.set(file, content);
      }
      return page(c, type, await content);
    },
  );
}

function page(c: ApiContext, type: string, content: string | Buffer): Response {
  c.header('Content-Type', type);
  // Nothing from elsewhere, no inline script. Swagger UI sets styles from its script and draws its icons as data.
  c.header(
    'Content-Security-Policy',
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  );
  c.header('Referrer-Policy', 'no-referrer');
  return c.body(typeof content === 'string' ? content : new Uint8Array(content));
}

const isLoopback = (address: string): boolean =>
  address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
