import type { JWK } from 'jose';
import type { Scope } from './principal.ts';

/** Rate-limit tiers of WIA §9.4. */
export const TIERS = ['free', 'developer', 'production', 'enterprise'] as const;
export type Tier = (typeof TIERS)[number];

export interface Tenant {
  readonly tenantId: string;
  readonly name: string;
  readonly tier: Tier;
}

export interface StoredClient {
  readonly clientId: string;
  readonly tenantId: string;
  readonly secretHash: string;
  readonly scopes: readonly Scope[];
  readonly revoked: boolean;
}

export interface StoredUser {
  readonly userId: string;
  readonly tenantId: string;
  readonly username: string;
  readonly passwordHash: string;
  readonly scopes: readonly Scope[];
  readonly robotIds?: readonly string[];
  readonly disabled: boolean;
}

export interface StoredSigningKey {
  readonly kid: string;
  readonly publicJwk: JWK;
  /** The private JWK as text, sealed. */
  readonly sealedPrivateJwk: string;
  readonly createdAtMs: number;
  readonly retiredAtMs?: number;
}

/** A robot's API key, found by the SHA-256 of its text. */
export interface StoredRobotKey {
  readonly tenantId: string;
  readonly robotId: string;
}

/** What identity needs kept. */
export interface IdentityStore {
  tenant(tenantId: string): Promise<Tenant | undefined>;
  /** @returns false when it exists already. */
  addTenant(tenant: Tenant): Promise<boolean>;
  client(clientId: string): Promise<StoredClient | undefined>;
  addClient(client: Omit<StoredClient, 'revoked'>): Promise<boolean>;
  user(username: string): Promise<StoredUser | undefined>;
  addUser(user: Omit<StoredUser, 'disabled'>): Promise<boolean>;
  signingKeys(): Promise<StoredSigningKey[]>;
  addSigningKey(key: StoredSigningKey): Promise<void>;
  retireSigningKeysExcept(kid: string, atMs: number): Promise<void>;
  robotKey(keyHash: string): Promise<StoredRobotKey | undefined>;
  revokeToken(tokenId: string, expiresAtMs: number): Promise<void>;
  revokedTokens(nowMs: number): Promise<string[]>;
}

/** Seals secrets at rest under the installation's key. */
export interface SecretBox {
  /** @param name What the secret is for; it must be the same when it is opened. */
  seal(name: string, text: string): string;
  /** @throws DomainError when it was sealed under another key or name. */
  open(name: string, sealed: string): string;
}
