import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { outrider } from './messages.ts';

/** What the cloud may order a robot to do. */
export const INSTRUCTION_VERBS = ['trigger', 'recover', 'command', 'cancel'] as const;
export type InstructionVerb = (typeof INSTRUCTION_VERBS)[number];

/** How an instruction ended. Only `done` means that the robot did what was asked. */
export const COMMAND_OUTCOMES = [
  'done',
  'refused',
  'unmet',
  'conflict',
  'stale',
  'expired',
  'unauthentic',
  'unknown',
  'failed',
  'cancelled',
] as const;
export type CommandOutcome = (typeof COMMAND_OUTCOMES)[number];

/** Longest id, name or reason in an instruction. [characters] */
export const INSTRUCTION_TEXT_MAX = 1024;

const INSTRUCTION_CONTEXT = Buffer.from('outrider instruction v1\0');
const KEY_LIST_CONTEXT = Buffer.from('outrider instruction keys v1\0');
/** DER of an Ed25519 SubjectPublicKeyInfo up to its 32 bytes (RFC 8410). */
const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex');
const ED25519_KEY_BYTES = 32;

/** What of an instruction is signed: the context keeps a signature from being taken for one over something else. */
export const instructionBytes = (payload: Uint8Array): Uint8Array => Buffer.concat([INSTRUCTION_CONTEXT, payload]);

/** What of a key list is signed, by the authority. */
export const keyListBytes = (payload: Uint8Array): Uint8Array => Buffer.concat([KEY_LIST_CONTEXT, payload]);

/** Signs an instruction. @returns An encoded SignedInstruction. */
export function signInstruction(
  instruction: outrider.v1.Instruction.$Properties,
  keyId: string,
  privateKey: KeyObject,
): Uint8Array {
  const payload = outrider.v1.Instruction.encode(instruction).finish();
  const signature = sign(null, instructionBytes(payload), privateKey);
  return outrider.v1.SignedInstruction.encode({ payload, signature, keyId }).finish();
}

/** The 32 bytes of an Ed25519 public key. */
export function rawPublicKey(key: KeyObject): Uint8Array {
  return key.export({ format: 'der', type: 'spki' }).subarray(ED25519_SPKI.length);
}

/** An Ed25519 key of 32 bytes; `undefined` for anything else. */
export function publicKeyOf(raw: Uint8Array): KeyObject | undefined {
  if (raw.length !== ED25519_KEY_BYTES) return undefined;
  try {
    return createPublicKey({ key: Buffer.concat([ED25519_SPKI, raw]), format: 'der', type: 'spki' });
  } catch {
    return undefined;
  }
}

/** Whether the authority signed this key list. @param caPem The authority's certificate, as the robot pinned it. */
export function isKeyListSigned(list: outrider.v1.SignedKeyList, caPem: string): boolean {
  try {
    const key = { key: createPublicKey(caPem), dsaEncoding: 'ieee-p1363' } as const;
    return verify('sha256', keyListBytes(list.payload), key, list.signature);
  } catch {
    return false;
  }
}
