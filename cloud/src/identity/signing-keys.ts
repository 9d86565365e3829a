import { assert } from '@outrider/shared/assert';
import { newId } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import { type CryptoKey, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose';
import type { IdentityStore, SecretBox } from './ports.ts';

/** The one algorithm we sign and accept. Ed25519: small, fast to sign, nothing to choose wrongly. */
export const SIGNING_ALGORITHM = 'EdDSA';
const ROTATE_AFTER_MS = 90 * 24 * 3_600_000;
/** A retired key still verifies for a day, far longer than any token lives. */
const RETIRED_KEEP_MS = 24 * 3_600_000;
/** At most one look into the database per this time for a key id that we do not know. */
const RELOAD_MIN_MS = 10_000;

/** The keys that sign our tokens. They live in the database, so tokens outlive a restart and replicas agree. */
export class SigningKeys {
  readonly #store: IdentityStore;
  readonly #box: SecretBox;
  readonly #clock: Clock;
  #public = new Map<string, { jwk: JWK; key: CryptoKey }>();
  #current: { kid: string; key: CryptoKey; createdAtMs: number } | undefined;
  #loadedAtMs = Number.NEGATIVE_INFINITY;

  constructor(store: IdentityStore, box: SecretBox, clock: Clock) {
    this.#store = store;
    this.#box = box;
    this.#clock = clock;
  }

  /** Loads the keys, and makes the first or the next one when it is time. */
  async open(): Promise<void> {
    await this.#load();
    const current = this.#current;
    if (!current || this.#clock.epochMs() - current.createdAtMs > ROTATE_AFTER_MS) await this.rotate();
  }

  /** Makes a new signing key. Tokens of the one before stay good until they expire. */
  async rotate(): Promise<string> {
    const { publicKey, privateKey } = await generateKeyPair(SIGNING_ALGORITHM, { extractable: true });
    const kid = newId('key');
    const nowMs = this.#clock.epochMs();
    const publicJwk = { ...(await exportJWK(publicKey)), kid, alg: SIGNING_ALGORITHM, use: 'sig' };
    const sealedPrivateJwk = this.#box.seal(`token:${kid}`, JSON.stringify(await exportJWK(privateKey)));
    await this.#store.addSigningKey({ kid, publicJwk, sealedPrivateJwk, createdAtMs: nowMs });
    await this.#store.retireSigningKeysExcept(kid, nowMs);
    await this.#load();
    return kid;
  }

  /** The key to sign with. */
  signer(): { kid: string; key: CryptoKey } {
    assert(this.#current, 'signing keys are used before they are opened');
    return this.#current;
  }

  /** The public key of that id; looks into the database at most every 10 s for one that a replica may have made. */
  async verifier(kid: string): Promise<CryptoKey | undefined> {
    const known = this.#public.get(kid);
    if (known) return known.key;
    if (this.#clock.monotonicMs() - this.#loadedAtMs < RELOAD_MIN_MS) return undefined;
    await this.#load();
    return this.#public.get(kid)?.key;
  }

  /** The public keys for `/.well-known/jwks.json`. */
  jwks(): { keys: JWK[] } {
    return { keys: [...this.#public.values()].map(({ jwk }) => jwk) };
  }

  async #load(): Promise<void> {
    this.#loadedAtMs = this.#clock.monotonicMs();
    const nowMs = this.#clock.epochMs();
    const rows = (await this.#store.signingKeys()).filter(
      (row) => row.retiredAtMs === undefined || nowMs - row.retiredAtMs < RETIRED_KEEP_MS,
    );
    const keys = new Map<string, { jwk: JWK; key: CryptoKey }>();
    for (const row of rows) keys.set(row.kid, { jwk: row.publicJwk, key: await importEd25519(row.publicJwk) });
    this.#public = keys;
    const newest = rows
      .filter((row) => row.retiredAtMs === undefined)
      .sort((a, b) => b.createdAtMs - a.createdAtMs || b.kid.localeCompare(a.kid))[0];
    if (!newest || newest.kid === this.#current?.kid) return;
    const privateJwk = JSON.parse(this.#box.open(`token:${newest.kid}`, newest.sealedPrivateJwk)) as JWK;
    this.#current = { kid: newest.kid, key: await importEd25519(privateJwk), createdAtMs: newest.createdAtMs };
  }
}

async function importEd25519(jwk: JWK): Promise<CryptoKey> {
  const key = await importJWK(jwk, SIGNING_ALGORITHM);
  assert(!(key instanceof Uint8Array), 'an Ed25519 key is never symmetric');
  return key;
}
