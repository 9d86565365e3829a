import { cobsEncode, cobsOverheadMax } from './cobs.ts';
import { crc32 } from './crc.ts';

/** The only version of the protocol that this code speaks. First byte of each frame. [FB-5] */
export const PROTOCOL_VERSION = 1;
export const HEADER_BYTES = 8;
export const CRC_BYTES = 4;
/** Largest payload. A JOINTS frame of 64 joints takes 1,033 bytes, their HELLO at most 1,900. [FB-4] */
export const PAYLOAD_BYTES_MAX = 2048;
export const FRAME_BYTES_MAX = HEADER_BYTES + PAYLOAD_BYTES_MAX + CRC_BYTES;
/** Largest frame as it stands on the line, without its delimiter. */
export const ENCODED_BYTES_MAX = FRAME_BYTES_MAX + cobsOverheadMax(FRAME_BYTES_MAX);
/** Ends each frame on the line. [FB-2] */
export const DELIMITER = 0x00;

/** One frame whose CRC was right. */
export interface Frame {
  /** A value of `MESSAGE_TYPES`, or one that this program does not know. */
  readonly type: number;
  /** Counts the frames of its direction, modulo 2^32. [FB-8] */
  readonly sequence: number;
  readonly payload: Uint8Array;
}

export type FrameOutcome =
  | { readonly kind: 'frame'; readonly frame: Frame }
  | { readonly kind: 'bad'; readonly reason: 'length' | 'crc' }
  | { readonly kind: 'other_version'; readonly version: number; readonly type: number };

/**
 * Builds a frame as it goes onto the line, delimiter included. [FB-2] to [FB-6]
 *
 * @throws RangeError when the payload is longer than PAYLOAD_BYTES_MAX.
 */
export function encodeFrame(frame: Frame): Uint8Array {
  const { type, sequence, payload } = frame;
  if (payload.length > PAYLOAD_BYTES_MAX) {
    throw new RangeError(`a payload has at most ${PAYLOAD_BYTES_MAX} bytes, this one ${payload.length}`);
  }
  const plain = new Uint8Array(HEADER_BYTES + payload.length + CRC_BYTES);
  const view = new DataView(plain.buffer);
  view.setUint8(0, PROTOCOL_VERSION);
  view.setUint8(1, type);
  view.setUint16(2, payload.length, true);
  view.setUint32(4, sequence, true);
  plain.set(payload, HEADER_BYTES);
  const body = plain.subarray(0, HEADER_BYTES + payload.length);
  view.setUint32(body.length, crc32(body), true);
  const encoded = cobsEncode(plain);
  const line = new Uint8Array(encoded.length + 1);
  line.set(encoded);
  line[encoded.length] = DELIMITER;
  return line;
}

/** Judges what COBS gave back. The CRC is checked before anything else is believed. [FB-4] to [FB-6] */
export function decodeFrame(plain: Uint8Array): FrameOutcome {
  if (plain.length < HEADER_BYTES + CRC_BYTES || plain.length > FRAME_BYTES_MAX)
    return { kind: 'bad', reason: 'length' };
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const bodyBytes = plain.length - CRC_BYTES;
  if (view.getUint32(bodyBytes, true) !== crc32(plain.subarray(0, bodyBytes))) return { kind: 'bad', reason: 'crc' };
  const version = view.getUint8(0);
  const type = view.getUint8(1);
  if (version !== PROTOCOL_VERSION) return { kind: 'other_version', version, type };
  if (view.getUint16(2, true) !== bodyBytes - HEADER_BYTES) return { kind: 'bad', reason: 'length' };
  const payload = plain.subarray(HEADER_BYTES, bodyBytes);
  return { kind: 'frame', frame: { type, sequence: view.getUint32(4, true), payload } };
}
