import { and, eq, gt, isNull, ne } from 'drizzle-orm';

import type { JWK } from 'jose';
import {
  type IdentityStore,
  type StoredClient,
  type StoredRobotKey,
  type StoredSigningKey,
  type StoredUser,
  type Tenant,
  TIERS,
} from '../identity/ports.ts';
import { isScope } from '../identity/principal.ts';
import { SIGNING_ALGORITHM } from '../identity/signing-keys.ts';
import type { Orm } from './database.ts';
import { appUser, oauthClient, revokedToken, robot, robotApiKey, signingKey, tenant } from './schema.ts';

/** Identity in PostgreSQL or PGlite. */
export class PgIdentityStore implements IdentityStore {
  readonly #orm: Orm;

  constructor(orm: Orm) {
    this.#orm = orm;
  }

  async tenant(tenantId: string): Promise<Tenant | undefined> {
    const [row] = await this.#orm.select().from(tenant).where(eq(tenant.tenantId, tenantId)).limit(1);
    return row && { tenantId: row.tenantId, name: row.name, tier: TIERS.find((tier) => tier === row.tier) ?? 'free' };
  }

  async addTenant(added: Tenant): Promise<boolean> {
    const rows = await this.#orm.insert(tenant).values(added).onConflictDoNothing().returning({ id: tenant.tenantId });
    return rows.length > 0;
  }

  async client(clientId: string): Promise<StoredClient | undefined> {
    const [row] = await this.#orm.select().from(oauthClient).where(eq(oauthClient.clientId, clientId)).limit(1);
    if (!row) return undefined;
    const { tenantId, secretHash, scopes, revokedAt } = row;
    return { clientId, tenantId, secretHash, scopes: scopes.filter(isScope), revoked: revokedAt !== null };
  }

  async addClient(client: Omit<StoredClient, 'revoked'>): Promise<boolean> {
    const rows = await this.#orm
      .insert(oauthClient)
      .values({ ...client, scopes: [...client.scopes] })
      .onConflictDoNothing()
      .returning({ id: oauthClient.clientId });
    return rows.length > 0;
  }

  async user(username: string): Promise<StoredUser | undefined> {
    const [row] = await this.#orm.select().from(appUser).where(eq(appUser.username, username)).limit(1);
    return (
      row && {
        userId: row.userId,
        tenantId: row.tenantId,
        username: row.username,
        passwordHash: row.passwordHash,
        scopes: row.scopes.filter(isScope),
        ...(row.robotIds === null ? {} : { robotIds: row.robotIds }),
        disabled: row.disabledAt !== null,
      }
    );
  }

  async addUser(user: Omit<StoredUser, 'disabled'>): Promise<boolean> {
    const rows = await this.#orm
      .insert(appUser)
      .values({ ...user, scopes: [...user.scopes], robotIds: user.robotIds === undefined ? null : [...user.robotIds] })
      .onConflictDoNothing()
      .returning({ id: appUser.userId });
    return rows.length > 0;
  }

  async signingKeys(): Promise<StoredSigningKey[]> {
    const rows = await this.#orm.select().from(signingKey);
    return rows.map((row) => ({
      kid: row.kid,
      publicJwk: row.publicJwk as JWK,
      sealedPrivateJwk: row.privateJwk,
      createdAtMs: row.createdAt.getTime(),
      ...(row.retiredAt === null ? {} : { retiredAtMs: row.retiredAt.getTime() }),
    }));
  }

  async addSigningKey(key: StoredSigningKey): Promise<void> {
    await this.#orm.insert(signingKey).values({
      kid: key.kid,
      algorithm: SIGNING_ALGORITHM,
      publicJwk: key.publicJwk,
      privateJwk: key.sealedPrivateJwk,
      createdAt: new Date(key.createdAtMs),
    });
  }

  async retireSigningKeysExcept(kid: string, atMs: number): Promise<void> {
    await this.#orm
      .update(signingKey)
      .set({ retiredAt: new Date(atMs) })
      .where(and(ne(signingKey.kid, kid), isNull(signingKey.retiredAt)));
  }

  async robotKey(keyHash: string): Promise<StoredRobotKey | undefined> {
    const [row] = await this.#orm
      .select({ tenantId: robot.tenantId, robotId: robot.robotId })
      .from(robotApiKey)
      .innerJoin(robot, eq(robot.robotPk, robotApiKey.robotPk))
      .where(and(eq(robotApiKey.keyHash, keyHash), isNull(robotApiKey.revokedAt), isNull(robot.deregisteredAt)))
      .limit(1);
    return row;
  }

  async revokeToken(tokenId: string, expiresAtMs: number): Promise<void> {
    await this.#orm
      .insert(revokedToken)
      .values({ tokenId, expiresAt: new Date(expiresAtMs) })
      .onConflictDoNothing();
  }

  async revokedTokens(nowMs: number): Promise<string[]> {
    const rows = await this.#orm
      .select({ tokenId: revokedToken.tokenId })
      .from(revokedToken)
      .where(gt(revokedToken.expiresAt, new Date(nowMs)));
    return rows.map((row) => row.tokenId);
  }
}
