import { createHash, randomBytes, hash as sha256, timingSafeEqual } from 'node:crypto';
import { hash, verify } from '@node-rs/argon2';

/** OWASP's argon2id minimum: 19 MiB, two passes, one lane. About 20 ms here. */
const ARGON2ID = { memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const;
const CACHE_ENTRIES_MAX = 1_000;
const SECRET_CHARACTERS_MAX = 1_024;

/** Hashes a password or client secret for keeping. */
export const hashSecret = (secret: string): Promise<string> => hash(secret, ARGON2ID);

/** SHA-256 in hexadecimal. For secrets of 256 random bits and for cache keys, never for passwords. */
export const fingerprint = (text: string): string => sha256('sha256', text, 'hex');

/**
 * Checks secrets against argon2id hashes, and remembers which secret was right under a key that dies with the
 * process, so that a client that fetches a token each minute does not cost 20 ms each time.
 */
export class SecretVerifier {
  readonly #pepper = randomBytes(32);
  /** argon2 hash → keyed digest of the secret that matched it. */
  readonly #known = new Map<string, Buffer>();
  #decoy: Promise<string> | undefined;

  /** @param secretHash `undefined` for an account that does not exist: takes as long as one that does. */
  async matches(secretHash: string | undefined, secret: string): Promise<boolean> {
    if (secret.length > SECRET_CHARACTERS_MAX) return false;
    if (secretHash === undefined) {
      this.#decoy ??= hashSecret(randomBytes(16).toString('hex'));
      await verify(await this.#decoy, secret);
      return false;
    }
    const digest = createHash('sha256').update(this.#pepper).update(secretHash).update('\0').update(secret).digest();
    const known = this.#known.get(secretHash);
    if (known && timingSafeEqual(known, digest)) return true;
    if (!(await verify(secretHash, secret))) return false;
    if (this.#known.size >= CACHE_ENTRIES_MAX) this.#known.clear();
    this.#known.set(secretHash, digest);
    return true;
  }
}
