import { DomainError } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/messages';

export type GuardFrame = outrider.v1.GuardFrame.$Properties;

/** A frame is a few kilobytes; anything larger is not one of ours. */
export const FRAME_BYTES_MAX = 256 * 1024;
const LENGTH_BYTES = 4;

/** One frame as it goes over the socket: its length as uint32 little endian, then the message. */
export function encodeFrame(frame: GuardFrame): Buffer {
  const body = outrider.v1.GuardFrame.encode(frame).finish();
  const bytes = Buffer.allocUnsafe(LENGTH_BYTES + body.length);
  bytes.writeUInt32LE(body.length, 0);
  bytes.set(body, LENGTH_BYTES);
  return bytes;
}

/** Cuts a stream of bytes into frames, however it was split. */
export class FrameReader {
  #waiting = Buffer.alloc(0);

  /** @throws DomainError `invalid` when the bytes cannot be frames; the connection is of no use any more. */
  push(bytes: Uint8Array): GuardFrame[] {
    this.#waiting = this.#waiting.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#waiting, bytes]);
    const frames: GuardFrame[] = [];
    while (this.#waiting.length >= LENGTH_BYTES) {
      const length = this.#waiting.readUInt32LE(0);
      if (length > FRAME_BYTES_MAX) throw new DomainError('invalid', `guard frame: ${length} bytes are too many`);
      if (this.#waiting.length < LENGTH_BYTES + length) break;
      frames.push(decode(this.#waiting.subarray(LENGTH_BYTES, LENGTH_BYTES + length)));
      this.#waiting = this.#waiting.subarray(LENGTH_BYTES + length);
    }
    return frames;
  }
}

function decode(body: Uint8Array): GuardFrame {
  try {
    return outrider.v1.GuardFrame.decode(body);
  } catch (cause) {
    throw new DomainError('invalid', 'guard frame: not a valid message', { cause });
  }
}
