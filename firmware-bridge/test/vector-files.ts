import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Message } from '../src/messages.ts';

/** Root of the workspace, from the compiled file. */
export const WORKSPACE = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
export const VECTORS = join(WORKSPACE, 'test', 'vectors');
export const FIRMWARE = join(WORKSPACE, 'firmware');

/** What stands in a vector's `.json`. The C tests read the same keys. */
export interface StreamVector {
  readonly description: string;
  /** Whether the frames, encoded again, give exactly the bytes. */
  readonly canonical: boolean;
  readonly stats: {
    readonly frames_ok: number;
    readonly crc_bad: number;
    readonly cobs_bad: number;
    readonly oversize: number;
    readonly length_bad: number;
    readonly other_version: number;
    readonly lost: number;
  };
  readonly frames: readonly FrameVector[];
}

export interface FrameVector {
  readonly type: number;
  readonly sequence: number;
  readonly payload: string;
  /** Fields in JSON, or why there are none: `unknown_type`, `malformed`. */
  readonly message: unknown;
}

export interface DialogueVector {
  readonly description: string;
  readonly messages: readonly { readonly at_us: number; readonly from: 'host' | 'mcu'; readonly message: unknown }[];
}

/** JSON has no NaN, no infinity and no negative zero; here they are texts. */
export function toJson(message: Message): unknown {
  const plain = (value: unknown): unknown => {
    if (value instanceof Float64Array) return Array.from(value, plain);
    if (typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0))) {
      return Object.is(value, -0) ? '-0' : String(value);
    }
    return value;
  };
  return Object.fromEntries(Object.entries(message).map(([key, value]) => [key, plain(value)]));
}

/** Names of the vectors, without ending. */
export const vectorNames = (): string[] =>
  readdirSync(VECTORS)
    .filter((file) => file.endsWith('.hex'))
    .map((file) => file.slice(0, -4))
    .sort();

export const readHex = (name: string): string => readFileSync(join(VECTORS, `${name}.hex`), 'utf8');
export const readVector = <T>(name: string): T => JSON.parse(readFileSync(join(VECTORS, `${name}.json`), 'utf8')) as T;

/** The bytes of a `.hex` file. */
export const bytesOfHex = (text: string): Uint8Array =>
  Uint8Array.from(Buffer.from(text.replace(/#.*$/gm, '').replace(/\s/g, ''), 'hex'));

export interface DialogueLine {
  readonly atUs: number;
  readonly from: 'host' | 'mcu';
  readonly bytes: Uint8Array;
}

/** The lines with bytes of a `dialogue-….hex`. */
export function dialogueLines(text: string): DialogueLine[] {
  return [...text.matchAll(/^@(\d+) ([<>]) ([0-9a-f]+)$/gm)].map(([, atUs, mark, hex]) => ({
    atUs: Number(atUs),
    from: mark === '>' ? 'host' : 'mcu',
    bytes: Uint8Array.from(Buffer.from(hex ?? '', 'hex')),
  }));
}
