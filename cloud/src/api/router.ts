import { type OpenAPIHono, z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import type { Authenticator } from '../identity/authenticator.ts';
import { type Principal, requireScope, type Scope } from '../identity/principal.ts';
import { BODY_BYTES_MAX, fieldsOf, readBody } from './body.ts';
import { type ApiContext, type ApiEnv, nodeOf } from './surface.ts';
import type { Allowance, Throttle } from './throttle.ts';
import { validate } from './validation.ts';

export type Method = 'get' | 'post' | 'patch' | 'put' | 'delete';

/** What one status answers: `schema` is JSON unless `contentType` says otherwise. */
export interface ResponseSpec {
  readonly description: string;
  readonly schema?: z.ZodType;
  readonly contentType?: string;
}

/** One route. Nothing is reachable without an entry that says who may call it. */
export interface RouteSpec<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> {
  readonly method: Method;
  /** OpenAPI's spelling: `/v1/robots/{robot_id}`. */
  readonly path: string;
  readonly operationId: string;
  readonly summary: string;
  readonly tag: string;
  /** Any of these scopes lets the caller in. `public`: no token is asked for. */
  readonly access: readonly Scope[] | 'public';
  /** `tier`: the caller's requests per minute. `auth`: attempts to log in. `never`: must not be slowed. */
  readonly throttle: 'tier' | 'auth' | 'never';
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  /** Which branch of a union body the input is meant to be, so that errors speak of that one only. */
  readonly chooseBody?: (input: unknown) => z.ZodType<z.output<B>>;
  readonly bodyBytesMax?: number;
  readonly takesForm?: boolean;
  readonly responses: Readonly<Record<number, ResponseSpec>>;
}

export interface RouteInput<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, Who> {
  readonly principal: Who;
  readonly params: z.output<P>;
  readonly query: z.output<Q>;
  readonly body: z.output<B>;
}

type Handler<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, Who> = (
  input: RouteInput<P, Q, B, Who>,
  c: ApiContext,
) => Response | Promise<Response>;

const NOTHING = z.strictObject({});

/**
 * Adds routes to the server and to its OpenAPI document at once. A route's own entry decides who may call it, so a
 * path that is spelled oddly (`/api/v1/%72obots`) meets the same check as its plain form.
 */
export class Router {
  readonly #app: OpenAPIHono<ApiEnv>;
  readonly #authenticator: Authenticator;
  readonly #throttle: Throttle;

  constructor(app: OpenAPIHono<ApiEnv>, authenticator: Authenticator, throttle: Throttle) {
    this.#app = app;
    this.#authenticator = authenticator;
    this.#throttle = throttle;
  }

  /** A route that anybody may call. */
  addPublic<
    P extends z.ZodType = typeof NOTHING,
    Q extends z.ZodType = typeof NOTHING,
    B extends z.ZodType = typeof NOTHING,
  >(spec: RouteSpec<P, Q, B> & { readonly access: 'public' }, handler: Handler<P, Q, B, undefined>): void {
    this.#mount(spec, async (c) => handler({ principal: undefined, ...(await this.#decode(spec, c)) }, c));
  }

  /** A route that needs a token with one of the scopes. */
  add<P extends z.ZodType = typeof NOTHING, Q extends z.ZodType = typeof NOTHING, B extends z.ZodType = typeof NOTHING>(
    spec: RouteSpec<P, Q, B> & { readonly access: readonly Scope[] },
    handler: Handler<P, Q, B, Principal>,
  ): void {
    this.#mount(spec, async (c) => {
      const principal = await this.authenticate(c);
      requireScope(principal, spec.access);
      if (spec.throttle === 'tier') announce(c, await this.#throttle.takeRequest(principal));
      return handler({ principal, ...(await this.#decode(spec, c)) }, c);
    });
  }

  /** The caller, from the request's headers. @throws DomainError */
  async authenticate(c: ApiContext): Promise<Principal> {
    const principal = await this.#authenticator.authenticate({
      authorization: c.req.header('authorization'),
      apiKey: c.req.header('x-api-key'),
      tenantId: c.req.header('x-tenant-id'),
    });
    c.set('principal', principal);
    return principal;
  }

  #mount<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>(
    spec: RouteSpec<P, Q, B>,
    handle: (c: ApiContext) => Promise<Response>,
  ): void {
    const { access } = spec;
    this.#app.openAPIRegistry.registerPath({
      method: spec.method,
      path: spec.path,
      operationId: spec.operationId,
      summary: spec.summary,
      tags: [spec.tag],
      security: access === 'public' ? [] : [{ bearer: [...access] }],
      request: requestDoc(spec),
      responses: responsesDoc(spec),
    });
    this.#app.on(spec.method.toUpperCase(), honoPath(spec.path), async (c) => {
      c.set('routePath', spec.path);
      if (spec.throttle === 'auth') announce(c, await this.#throttle.takeAuthAttempt(remoteAddress(c)));
      return handle(c);
    });
  }

  async #decode<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>(
    spec: RouteSpec<P, Q, B>,
    c: ApiContext,
  ): Promise<{ params: z.output<P>; query: z.output<Q>; body: z.output<B> }> {
    const pathParams: Record<string, string> = c.req.param();
    if (pathParams['robot_id'] !== undefined) checkRobotHeader(c, pathParams['robot_id']);
    // The three generics default to NOTHING, whose output is the empty object these defaults have.
    const params = spec.params ? validate(spec.params, pathParams, 'path') : ({} as z.output<P>);
    const query = (spec.query ? validate(spec.query, fieldsOf(searchOf(c)), 'query') : {}) as z.output<Q>;
    if (!spec.body) {
      endEmptyBody(c);
      return { params, query, body: {} as z.output<B> };
    }
    const input = await readBody(c, spec.bodyBytesMax ?? BODY_BYTES_MAX, spec.takesForm === true);
    const body = validate(spec.chooseBody ? spec.chooseBody(input) : spec.body, input, 'body') as z.output<B>;
    return { params, query, body };
  }
}

/** The peer of the connection. Forwarded headers are not believed: there is no list of proxies to trust. */
export function remoteAddress(c: ApiContext): string {
  return nodeOf(c)?.incoming?.socket?.remoteAddress ?? 'unknown';
}

function searchOf(c: ApiContext): URLSearchParams {
  const at = c.req.url.indexOf('?');
  return at < 0 ? new URLSearchParams() : new URL(c.req.url).searchParams;
}

/** Marks a body that is not there as read: for one that is left unread the adapter sets timers. */
function endEmptyBody(c: ApiContext): void {
  const incoming = nodeOf(c)?.incoming;
  if (incoming?.httpVersionMajor !== 1) return;
  const { headers } = incoming;
  const isEmpty = headers['transfer-encoding'] === undefined && (headers['content-length'] ?? '0') === '0';
  if (isEmpty) incoming.resume();
}

/** `X-Robot-ID`, when given, must be the robot of the path. */
function checkRobotHeader(c: ApiContext, robotId: string): void {
  c.set('robotId', robotId);
  const header = c.req.header('x-robot-id');
  if (header === undefined || header === robotId) return;
  throw new DomainError('forbidden', 'X-Robot-ID names another robot than the path', {
    problems: [{ field: 'X-Robot-ID', reason: 'must be the robot of the path, or be left out' }],
  });
}

function announce(c: ApiContext, allowance: Allowance | undefined): void {
  if (allowance) c.set('allowance', allowance);
}

const honoPath = (path: string): string => path.replaceAll(/\{(\w+)\}/g, ':$1');

type RouteDoc = Parameters<OpenAPIHono['openAPIRegistry']['registerPath']>[0];

function requestDoc(spec: RouteSpec<z.ZodType, z.ZodType, z.ZodType>): NonNullable<RouteDoc['request']> {
  const content = spec.body && {
    'application/json': { schema: spec.body },
    ...(spec.takesForm === true ? { 'application/x-www-form-urlencoded': { schema: spec.body } } : {}),
  };
  return {
    ...(spec.params instanceof z.ZodObject ? { params: spec.params } : {}),
    ...(spec.query instanceof z.ZodObject ? { query: spec.query } : {}),
    ...(content ? { body: { required: true, content } } : {}),
  };
}

function responsesDoc(spec: RouteSpec<z.ZodType, z.ZodType, z.ZodType>): RouteDoc['responses'] {
  return Object.fromEntries(
    Object.entries(spec.responses).map(([status, { description, schema, contentType }]) => [
      status,
      schema === undefined && contentType === undefined
        ? { description }
        : { description, content: { [contentType ?? 'application/json']: { schema: schema ?? z.string() } } },
    ]),
  );
}
