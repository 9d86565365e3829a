import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { newSecret } from '@outrider/shared/ids';
import type { Accounts } from './accounts.ts';

export const DEFAULT_TENANT_ID = 'default';
const FILE_NAME = 'bootstrap.json';

/** The first accounts of an installation, in clear: for the person who installs it. */
export interface BootstrapSecrets {
  readonly tenant_id: string;
  readonly client_id: string;
  readonly client_secret: string;
  readonly admin_user: string;
  readonly admin_password: string;
}

export interface BootstrapOptions {
  readonly clientId?: string | undefined;
  readonly clientSecret?: string | undefined;
  readonly adminUser?: string | undefined;
  readonly adminPassword?: string | undefined;
}

/**
 * Makes the default tenant, its administrator and its OAuth client when they do not exist. What is made is first
 * written to `bootstrap.json`, which only the owner can read, so that a crash in between cannot lose a password.
 * No account ever has a secret that is written in this code.
 *
 * @returns the file's path when this call made accounts.
 */
export async function bootstrap(
  accounts: Accounts,
  dataDir: string,
  options: BootstrapOptions,
): Promise<string | undefined> {
  const tenantId = DEFAULT_TENANT_ID;
  const clientId = options.clientId ?? 'fleet-console';
  const username = options.adminUser ?? 'admin';
  await accounts.createTenant(tenantId, 'Default', 'production');
  const needsClient = !(await accounts.hasClient(clientId));
  const needsUser = !(await accounts.hasUser(username));
  if (!needsClient && !needsUser) return undefined;
  const path = join(dataDir, FILE_NAME);
  const before = await readSecrets(path);
  const secret = options.clientSecret ?? before.client_secret ?? newSecret('ocs_');
  const password = options.adminPassword ?? before.admin_password ?? newSecret('');
  const made = {
    ...before,
    tenant_id: tenantId,
    ...(needsClient ? { client_id: clientId, client_secret: secret } : {}),
    ...(needsUser ? { admin_user: username, admin_password: password } : {}),
  };
  await writePrivate(path, `${JSON.stringify(made, null, 2)}\n`);
  if (needsClient) await accounts.createClient({ clientId, tenantId, secret });
  if (needsUser) await accounts.createUser({ username, tenantId, password });
  return path;
}

async function readSecrets(path: string): Promise<Partial<BootstrapSecrets>> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Partial<BootstrapSecrets>;
  } catch {
    return {};
  }
}

/** Writes a file that only the owner can read, whole or not at all. */
export async function writePrivate(path: string, text: string): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`;
  await rm(draft, { force: true });
  const file = await open(draft, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
}
