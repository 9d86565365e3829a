import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { link, mkdir, readFile, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DomainError } from '@outrider/shared/errors';

const PREFIX = 'box1.';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const SECRET_CHARACTERS_MIN = 32;

/** Encrypts what must not be readable in the database, with AES-256-GCM under one key of the installation. */
export class SecretBox {
  readonly #key: Uint8Array;

  /** @param secret At least 32 characters of high entropy. */
  constructor(secret: string) {
    if (secret.length < SECRET_CHARACTERS_MIN)
      throw new DomainError('invalid', `OUTRIDER_SECRET_KEY must have at least ${SECRET_CHARACTERS_MIN} characters`);
    this.#key = new Uint8Array(hkdfSync('sha256', secret, 'outrider', 'secrets at rest v1', 32));
  }

  /** @param name What the secret is for. It is authenticated, so that one row cannot be put in another's place. */
  seal(name: string, text: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(name));
    const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return PREFIX + sealed.toString('base64url');
  }

  /** @throws DomainError `internal` when the text was sealed under another key or name, or was changed. */
  open(name: string, sealed: string): string {
    try {
      if (!sealed.startsWith(PREFIX)) throw new Error('not a sealed text');
      const bytes = Buffer.from(sealed.slice(PREFIX.length), 'base64url');
      const decipher = createDecipheriv('aes-256-gcm', this.#key, bytes.subarray(0, NONCE_BYTES))
        .setAAD(Buffer.from(name))
        .setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
      const body = bytes.subarray(NONCE_BYTES, bytes.length - TAG_BYTES);
      return Buffer.concat([decipher.update(body), decipher.final()]).toString('utf8');
    } catch (cause) {
      const message = `the stored secret "${name}" does not open: is OUTRIDER_SECRET_KEY the one it was stored under?`;
      throw new DomainError('internal', message, { cause });
    }
  }
}

/**
 * The installation's box: under `secretKey` when there is one, else under a key that is made once and kept in
 * `<dataDir>/secret.key`, readable by its owner only.
 */
export async function openSecretBox(secretKey: string | undefined, dataDir: string): Promise<SecretBox> {
  if (secretKey !== undefined) return new SecretBox(secretKey);
  if (dataDir === 'memory://') return new SecretBox(randomBytes(32).toString('base64url'));
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const path = join(dataDir, 'secret.key');
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  await writeFile(draft, `${randomBytes(32).toString('base64url')}\n`, { mode: 0o600, flag: 'wx', flush: true });
  try {
    // A link appears whole or not at all, and fails when the file is there: two starters agree on one key.
    await link(draft, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await unlink(draft);
  }
  return new SecretBox((await readFile(path, 'utf8')).trim());
}
