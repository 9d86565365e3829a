import { DomainError } from '@outrider/shared/errors';
import { newId, newSecret, TENANT_ID_PATTERN } from '@outrider/shared/ids';
import type { IdentityStore, Tier } from './ports.ts';
import { type Principal, SCOPES, type Scope } from './principal.ts';
import { hashSecret, type SecretVerifier } from './secrets.ts';
import { grantScopes, type IssuedToken, type Tokens } from './tokens.ts';

const ACCOUNT_NAME = /^[A-Za-z0-9._@-]{1,64}$/;
const PASSWORD_CHARACTERS_MIN = 12;

/** Tenants, OAuth clients and people: making them, and letting them in. */
export class Accounts {
  readonly #store: IdentityStore;
  readonly #tokens: Tokens;
  readonly #secrets: SecretVerifier;

  constructor(store: IdentityStore, tokens: Tokens, secrets: SecretVerifier) {
    this.#store = store;
    this.#tokens = tokens;
    this.#secrets = secrets;
  }

  /** Client credentials for a token. Used by: POST /api/v1/auth/token. */
  async grantClientToken(
    clientId: string,
    secret: string,
    asked: readonly Scope[],
  ): Promise<IssuedToken & { scopes: readonly Scope[] }> {
    const client = await this.#store.client(clientId);
    const matches = await this.#secrets.matches(client?.secretHash, secret);
    if (!client || !matches || client.revoked)
      throw new DomainError('unauthenticated', 'the client id or client secret is wrong');
    const scopes = grantScopes(client.scopes, asked);
    const principal = { kind: 'client', sub: client.clientId, tenantId: client.tenantId, scopes } as const;
    return { ...(await this.#tokens.issue(principal)), scopes };
  }

  /** A password for a token. Used by: POST /v1/auth/login. */
  async login(
    username: string,
    password: string,
    asked: readonly Scope[],
  ): Promise<IssuedToken & { principal: Principal }> {
    const user = await this.#store.user(username);
    const matches = await this.#secrets.matches(user?.passwordHash, password);
    if (!user || !matches || user.disabled)
      throw new DomainError('unauthenticated', 'the username or password is wrong');
    const principal: Principal = {
      kind: 'user',
      sub: user.userId,
      tenantId: user.tenantId,
      scopes: grantScopes(user.scopes, asked),
      ...(user.robotIds === undefined ? {} : { robotIds: user.robotIds }),
    };
    return { ...(await this.#tokens.issue(principal)), principal };
  }

  /** @returns false when the tenant exists already. */
  async createTenant(tenantId: string, name: string, tier: Tier): Promise<boolean> {
    if (!TENANT_ID_PATTERN.test(tenantId)) throw invalid('tenant id', 'must be 1 to 20 of a-z, 0-9 and -');
    return this.#store.addTenant({ tenantId, name, tier });
  }

  /** @returns the secret, which cannot be read again; `undefined` when the client exists already. */
  async createClient(options: {
    clientId: string;
    tenantId: string;
    secret?: string | undefined;
    scopes?: readonly Scope[] | undefined;
  }): Promise<string | undefined> {
    if (!ACCOUNT_NAME.test(options.clientId))
      throw invalid('client id', 'must be 1 to 64 of A-Z, a-z, 0-9 and . _ @ -');
    await this.#requireTenant(options.tenantId);
    const secret = options.secret ?? newSecret('ocs_');
    if (secret.length < PASSWORD_CHARACTERS_MIN)
      throw invalid('client secret', `must have at least ${PASSWORD_CHARACTERS_MIN} characters`);
    const added = await this.#store.addClient({
      clientId: options.clientId,
      tenantId: options.tenantId,
      secretHash: await hashSecret(secret),
      scopes: options.scopes ?? SCOPES,
    });
    return added ? secret : undefined;
  }

  /** @returns the password; `undefined` when the user exists already. */
  async createUser(options: {
    username: string;
    tenantId: string;
    password?: string | undefined;
    scopes?: readonly Scope[] | undefined;
    robotIds?: readonly string[] | undefined;
  }): Promise<string | undefined> {
    if (!ACCOUNT_NAME.test(options.username)) throw invalid('username', 'must be 1 to 64 of A-Z, a-z, 0-9 and . _ @ -');
    await this.#requireTenant(options.tenantId);
    const password = options.password ?? newSecret('');
    if (password.length < PASSWORD_CHARACTERS_MIN)
      throw invalid('password', `must have at least ${PASSWORD_CHARACTERS_MIN} characters`);
    const added = await this.#store.addUser({
      userId: newId('usr'),
      tenantId: options.tenantId,
      username: options.username,
      passwordHash: await hashSecret(password),
      scopes: options.scopes ?? SCOPES,
      ...(options.robotIds === undefined ? {} : { robotIds: options.robotIds }),
    });
    return added ? password : undefined;
  }

  async hasClient(clientId: string): Promise<boolean> {
    return (await this.#store.client(clientId)) !== undefined;
  }

  async hasUser(username: string): Promise<boolean> {
    return (await this.#store.user(username)) !== undefined;
  }

  async #requireTenant(tenantId: string): Promise<void> {
    if (await this.#store.tenant(tenantId)) return;
    throw new DomainError(
      'not_found',
      `there is no tenant '${tenantId}': create it with 'outrider-cloud tenant create ${tenantId}'`,
    );
  }
}

const invalid = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `the ${field} ${reason}`, { problems: [{ field, reason }] });
