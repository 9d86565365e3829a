import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { DEFAULT_TENANT_ID } from '../../identity/bootstrap.ts';
import { parseScopes, SCOPES } from '../../identity/principal.ts';
import type { Core } from '../core.ts';
import { type Router, remoteAddress } from '../router.ts';
import type { ApiContext } from '../surface.ts';
import { sigmaErrors } from './responses.ts';
import { TokenReply, TokenRequest } from './schemas.ts';

/** POST /api/v1/auth/token (OAuth 2 client credentials), /auth/revoke and /auth/ticket. */
export function registerAuth(router: Router, core: Core): void {
  router.addPublic(
    {
      method: 'post',
      path: '/api/v1/auth/token',
      operationId: 'issueToken',
      summary: 'Issue an access token for client credentials',
      tag: 'SigmaPrompt',
      access: 'public',
      throttle: 'auth',
      body: TokenRequest,
      takesForm: true,
      responses: { 200: { description: 'A token', schema: TokenReply }, ...sigmaErrors([400, 401, 413, 429, 503]) },
    },
    async ({ body }, c) => {
      const { clientId, clientSecret } = clientOf(c, body);
      const asked = parseScopes(body.scope ?? '');
      const token = await core.throttle.guardSecret(clientId, remoteAddress(c), () =>
        core.accounts.grantClientToken(clientId, clientSecret, asked),
      );
      return c.json({
        access_token: token.accessToken,
        token_type: 'Bearer',
        expires_in: token.expiresInS,
        // RFC 6749 §5.1: said when it is not what was asked for.
        ...(asked.length > 0 ? {} : { scope: token.scopes.join(' ') }),
      });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/api/v1/auth/revoke',
      operationId: 'revokeToken',
      summary: 'Take back the token of this request',
      tag: 'SigmaPrompt',
      access: SCOPES,
      throttle: 'tier',
      responses: {
        200: { description: 'Revoked', schema: z.object({ revoked: z.boolean() }) },
        ...sigmaErrors([401, 429, 503]),
      },
    },
    async ({ principal }, c) => {
      await core.tokens.revoke(principal);
      return c.json({ revoked: principal.tokenId !== undefined });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/api/v1/auth/keys/rotate',
      operationId: 'rotateTokenKey',
      summary: 'Make the next key that signs tokens; tokens of the one before stay good until they expire',
      tag: 'SigmaPrompt',
      access: ['robot:admin'],
      throttle: 'tier',
      responses: {
        200: { description: 'The new key', schema: z.object({ key_id: z.string(), keys: z.array(z.string()) }) },
        ...sigmaErrors([401, 403, 429, 503]),
      },
    },
    async ({ principal }, c) => {
      // One key signs for every tenant, so only the installation's own may change it.
      if (principal.tenantId !== DEFAULT_TENANT_ID || principal.robotIds !== undefined)
        throw new DomainError('forbidden', `only an administrator of the tenant '${DEFAULT_TENANT_ID}' may do this`);
      const keyId = await core.signingKeys.rotate();
      core.log.warn({ keyId, subject: principal.sub, requestId: c.get('requestId') }, 'token_key.rotated');
      return c.json({ key_id: keyId, keys: core.signingKeys.jwks().keys.map((key) => key.kid ?? '') });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/api/v1/auth/ticket',
      operationId: 'issueStreamTicket',
      summary: 'Issue a single-use ticket for a stream, for browsers that cannot send headers',
      tag: 'SigmaPrompt',
      access: ['telemetry:read'],
      throttle: 'tier',
      responses: {
        200: { description: 'A ticket', schema: z.object({ ticket: z.string(), expires_in: z.int() }) },
        ...sigmaErrors([401, 403, 429, 503]),
      },
    },
    ({ principal }, c) => {
      const { ticket, expiresInS } = core.tickets.issue(
        principal,
        c.req.header('authorization')?.replace(/^bearer +/i, ''),
      );
      return c.json({ ticket, expires_in: expiresInS });
    },
  );
}

/** The client's own credentials: in the body, or by HTTP Basic as RFC 6749 §2.3.1 asks of every server. */
function clientOf(c: ApiContext, body: z.output<typeof TokenRequest>): { clientId: string; clientSecret: string } {
  const basic = /^basic +([A-Za-z0-9+/=]+)$/i.exec(c.req.header('authorization') ?? '')?.[1];
  if (basic !== undefined && body.client_secret === undefined) {
    const [id, ...rest] = Buffer.from(basic, 'base64').toString('utf8').split(':');
    try {
      return { clientId: decodeURIComponent(id ?? ''), clientSecret: decodeURIComponent(rest.join(':')) };
    } catch {
      throw new DomainError('unauthenticated', 'the Basic credentials are not form-encoded');
    }
  }
  const missing = (['client_id', 'client_secret'] as const).filter((field) => body[field] === undefined);
  if (body.client_id === undefined || body.client_secret === undefined) {
    throw new DomainError('invalid', `${missing[0]} is required`, {
      problems: missing.map((field) => ({ field, reason: 'missing' })),
    });
  }
  return { clientId: body.client_id, clientSecret: body.client_secret };
}
