import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { assert } from '@outrider/shared/assert';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { keyListBytes, rawPublicKey } from '@outrider/shared/protocol/instruction';
import type { Clock } from '@outrider/shared/time';
import type { InstructionStore, KeyBox, KeyListAuthority } from './ports.ts';

/** Keys that robots accept: the one that signs, and the one before it for what is still on its way. */
const ACCEPTED_MAX = 2;
const ROTATE_AFTER_MS = 365 * 24 * 3_600_000;

export interface InstructionKeysOptions {
  readonly store: InstructionStore;
  readonly secrets: KeyBox;
  readonly authority: KeyListAuthority;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Which keys robots accept, signed by the authority. */
export interface KeyList {
  readonly serial: number;
  /** An encoded SignedKeyList. */
  readonly bytes: Uint8Array;
}

interface Loaded {
  /** Its place in the database. */
  readonly serial: number;
  readonly keyId: string;
  readonly privateKey: KeyObject;
  readonly createdAtMs: number;
  readonly list: KeyList;
}

/**
 * The installation's instruction keys. They live in the database, so that replicas sign with the same one, and robots
 * learn them from a list that the authority signs: a new key needs no visit to a robot.
 */
export class InstructionKeys {
  readonly #options: InstructionKeysOptions;
  #loaded: Loaded | undefined;

  constructor(options: InstructionKeysOptions) {
    this.#options = options;
  }

  /** Loads the keys, and makes the first or the next one when it is time. Call it again to see other replicas' keys. */
  async open(): Promise<void> {
    await this.#load();
    const { clock } = this.#options;
    if (!this.#loaded || clock.epochMs() - this.#loaded.createdAtMs > ROTATE_AFTER_MS) await this.rotate();
  }

  /** Makes the next key and signs with it from now on. The key before the present one is not accepted any more. */
  async rotate(): Promise<string> {
    const { store, secrets, clock, log } = this.#options;
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const raw = rawPublicKey(publicKey);
    const keyId = `ik_${createHash('sha256').update(raw).digest('hex').slice(0, 16)}`;
    const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
    const key = { keyId, publicKey: raw, sealedPrivateKeyPem: secrets.seal(`instruction:${keyId}`, pem) };
    const createdAtMs = Math.max(clock.epochMs(), (this.#loaded?.createdAtMs ?? 0) + 1);
    await store.addInstructionKey({ ...key, createdAtMs }, this.#loaded?.serial ?? 0);
    await this.#load();
    log.info({ keyId: this.#current.keyId }, 'instruction_key.rotated');
    return this.#current.keyId;
  }

  /** The key to sign with. */
  get signer(): { readonly keyId: string; readonly privateKey: KeyObject } {
    return this.#current;
  }

  get list(): KeyList {
    return this.#current.list;
  }

  get #current(): Loaded {
    assert(this.#loaded, 'instruction keys are used before they are opened');
    return this.#loaded;
  }

  async #load(): Promise<void> {
    const { store, secrets, authority } = this.#options;
    const keys = await store.instructionKeys(ACCEPTED_MAX);
    const [newest] = keys;
    if (!newest || newest.serial === this.#loaded?.serial) return;
    const { serial, keyId, createdAtMs } = newest;
    const privateKey = createPrivateKey(secrets.open(`instruction:${keyId}`, newest.sealedPrivateKeyPem));
    // By time and not by place: robots refuse an older list, and a database restored from a copy gives places again.
    const payload = outrider.v1.InstructionKeyList.encode({
      serial: createdAtMs,
      keys: keys.map((key) => ({ keyId: key.keyId, publicKey: key.publicKey })),
    }).finish();
    const signature = await authority.signStatement(keyListBytes(payload));
    const bytes = outrider.v1.SignedKeyList.encode({ payload, signature }).finish();
    this.#loaded = { serial, keyId, privateKey, createdAtMs, list: { serial: createdAtMs, bytes } };
  }
}
