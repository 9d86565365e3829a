import { cobsDecode } from './cobs.ts';
import { DELIMITER, decodeFrame, ENCODED_BYTES_MAX, type Frame } from './frame.ts';

/** What a line has shown since the parser was made. Counters only grow. */
export interface ParserStats {
  bytesReceived: number;
  framesOk: number;
  /** The CRC was wrong. */
  crcBad: number;
  /** Between two delimiters stood something that is no COBS. */
  cobsBad: number;
  /** More bytes without a delimiter than the largest frame has; thrown away up to the next delimiter. */
  oversize: number;
  /** The CRC was right, the header's length was not; or too few bytes for a header. */
  lengthBad: number;
  /** The CRC was right, the protocol version another. */
  otherVersion: number;
  /** Frames that never came, by the holes in the sequence numbers. */
  lost: number;
  /** The sequence went backwards or repeated: a restarted or doubled sender. */
  sequenceRestarts: number;
}

/** A hole wider than this is a restarted sender, not a loss. [FB-8] */
const LOST_AT_ONCE_MAX = 1 << 16;

/**
 * Cuts a byte stream into frames. Whatever arrives, it never throws, keeps at most ENCODED_BYTES_MAX bytes, and
 * finds the next good frame after the next delimiter. [FB-2] [FB-7]
 */
export class FrameParser {
  readonly stats: ParserStats = {
    bytesReceived: 0,
    framesOk: 0,
    crcBad: 0,
    cobsBad: 0,
    oversize: 0,
    lengthBad: 0,
    otherVersion: 0,
    lost: 0,
    sequenceRestarts: 0,
  };
  readonly #onFrame: (frame: Frame) => void;
  readonly #onOtherVersion: (version: number, type: number) => void;
  readonly #pending = new Uint8Array(ENCODED_BYTES_MAX);
  #pendingBytes = 0;
  #skipping = false;
  #nextSequence: number | undefined;

  /**
   * @param onFrame Called in order of arrival. The payload is the callee's to keep.
   * @param onOtherVersion Called for a whole frame of a protocol version that is not ours.
   */
  constructor(onFrame: (frame: Frame) => void, onOtherVersion: (version: number, type: number) => void = () => {}) {
    this.#onFrame = onFrame;
    this.#onOtherVersion = onOtherVersion;
  }

  /** Takes the next bytes of the line, in pieces of any size. */
  push(bytes: Uint8Array): void {
    this.stats.bytesReceived += bytes.length;
    let start = 0;
    while (start < bytes.length) {
      const end = bytes.indexOf(DELIMITER, start);
      this.#keep(bytes.subarray(start, end === -1 ? bytes.length : end));
      if (end === -1) return;
      this.#finish();
      start = end + 1;
    }
  }

  #keep(piece: Uint8Array): void {
    if (this.#skipping) return;
    if (this.#pendingBytes + piece.length > ENCODED_BYTES_MAX) {
      this.stats.oversize += 1;
      this.#skipping = true;
      this.#pendingBytes = 0;
      return;
    }
    this.#pending.set(piece, this.#pendingBytes);
    this.#pendingBytes += piece.length;
  }

  #finish(): void {
    const encoded = this.#pending.subarray(0, this.#pendingBytes);
    const wasSkipping = this.#skipping;
    this.#pendingBytes = 0;
    this.#skipping = false;
    if (wasSkipping || encoded.length === 0) return; // an empty frame is an idle line [FB-2]
    const plain = cobsDecode(encoded);
    if (plain === undefined) {
      this.stats.cobsBad += 1;
      return;
    }
    const outcome = decodeFrame(plain);
    switch (outcome.kind) {
      case 'frame':
        this.stats.framesOk += 1;
        this.#count(outcome.frame.sequence);
        this.#onFrame(outcome.frame);
        return;
      case 'other_version':
        this.stats.otherVersion += 1;
        this.#onOtherVersion(outcome.version, outcome.type);
        return;
      case 'bad':
        if (outcome.reason === 'crc') this.stats.crcBad += 1;
        else this.stats.lengthBad += 1;
    }
  }

  #count(sequence: number): void {
    if (this.#nextSequence !== undefined) {
      const hole = (sequence - this.#nextSequence) >>> 0;
      if (hole <= LOST_AT_ONCE_MAX) this.stats.lost += hole;
      else this.stats.sequenceRestarts += 1;
    }
    this.#nextSequence = (sequence + 1) >>> 0;
  }
}
