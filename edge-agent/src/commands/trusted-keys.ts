import { type KeyObject, verify } from 'node:crypto';
import { DomainError } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/messages';
import { decodeWire } from '@outrider/shared/protocol/codec';
import { instructionBytes, isKeyListSigned, publicKeyOf } from '@outrider/shared/protocol/instruction';

const { InstructionKeyList, SignedKeyList } = outrider.v1;
const KEYS_MAX = 8;

/** Where the list of accepted keys is kept: beside the robot's own identity. */
export interface KeyListStore {
  loadInstructionKeys(): Uint8Array | undefined;
  saveInstructionKeys(bytes: Uint8Array): void;
}

interface KnownList {
  readonly serial: number;
  readonly keys: ReadonlyMap<string, KeyObject>;
}

/** What is wrong with a signature; `undefined`: nothing. */
export type SignatureProblem = 'no_keys' | 'unknown_key' | 'bad_signature' | undefined;

/**
 * The keys whose instructions this robot believes. They come as a list that the pinned authority signs, so that they
 * can be exchanged over any line, a broker's included.
 */
export class TrustedKeys {
  readonly #store: KeyListStore;
  readonly #ca: () => string | undefined;
  #known: { readonly list: KnownList; readonly ca: string } | undefined;

  /** @param ca The pinned authority, PEM; `undefined` while the robot is not enrolled. */
  constructor(store: KeyListStore, ca: () => string | undefined) {
    this.#store = store;
    this.#ca = ca;
  }

  /**
   * Takes a list that is newer than the known one, and keeps it. The same list again is welcome and changes nothing.
   *
   * @throws DomainError `unauthenticated` when the authority did not sign it, `bad_state` when it is an older one: a key
   *   that was taken out must not come back.
   */
  accept(bytes: Uint8Array): void {
    const ca = this.#ca();
    if (ca === undefined) throw new DomainError('bad_state', 'the robot is not enrolled');
    const list = readKeyList(bytes, ca);
    const known = this.#current(ca);
    if (known && list.serial < known.serial)
      throw new DomainError(
        'bad_state',
        `instruction keys ${list.serial} are older than ${known.serial}, which are known`,
      );
    if (known?.serial === list.serial) return;
    this.#store.saveInstructionKeys(bytes);
    this.#known = { list, ca };
  }

  check(signed: outrider.v1.SignedInstruction): SignatureProblem {
    const ca = this.#ca();
    if (ca === undefined) return 'no_keys';
    const list = this.#current(ca);
    if (!list) return 'no_keys';
    const key = list.keys.get(signed.keyId);
    if (!key) return 'unknown_key';
    return verify(null, instructionBytes(signed.payload), key, signed.signature) ? undefined : 'bad_signature';
  }

  /** The list under this authority; one of an authority before it counts for nothing. */
  #current(ca: string): KnownList | undefined {
    if (this.#known?.ca === ca) return this.#known.list;
    const bytes = this.#store.loadInstructionKeys();
    if (!bytes) return undefined;
    try {
      const list = readKeyList(bytes, ca);
      this.#known = { list, ca };
      return list;
    } catch {
      return undefined;
    }
  }
}

function readKeyList(bytes: Uint8Array, ca: string): KnownList {
  const signed = decodeWire(SignedKeyList, bytes, 'instruction keys');
  if (!isKeyListSigned(signed, ca))
    throw new DomainError('unauthenticated', 'the list of instruction keys is not signed by the pinned authority');
  const { serial, keys } = decodeWire(InstructionKeyList, signed.payload, 'instruction keys');
  const known = new Map<string, KeyObject>();
  for (const { keyId, publicKey } of keys.slice(0, KEYS_MAX)) {
    const key = publicKeyOf(publicKey ?? new Uint8Array());
    if (key && keyId) known.set(keyId, key);
  }
  return { serial, keys: known };
}
