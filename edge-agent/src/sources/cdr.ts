import { endianness } from 'node:os';
import { DomainError } from '@outrider/shared/errors';

const HOST_IS_LITTLE_ENDIAN = endianness() === 'LE';
/** Bytes before the message: representation and options. Alignment counts from behind them. */
const ENCAPSULATION_BYTES = 4;
const CDR_BIG_ENDIAN = 0x0000;
const CDR_LITTLE_ENDIAN = 0x0001;
/**
 * Most bytes that may be left behind a message: padding up to a word, and the NUL that rclnodejs puts behind raw
 * messages.
 */
const TRAILING_BYTES_MAX = 4;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Reads one XCDR1 message (OMG DDS-XTypes, "PLAIN_CDR"), as every ROS 2 middleware writes them. Every length is held
 * against the bytes that are there before anything is allocated.
 *
 * All methods throw DomainError `invalid` when the message cannot hold what is asked for.
 */
export class CdrReader {
  readonly bytes: Buffer;
  readonly isLittleEndian: boolean;
  #offset = ENCAPSULATION_BYTES;

  constructor(payload: Uint8Array) {
    this.bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    if (payload.length < ENCAPSULATION_BYTES) throw broken(`${payload.length} bytes are too few for an encapsulation`);
    const representation = this.bytes.readUInt16BE(0);
    if (representation !== CDR_LITTLE_ENDIAN && representation !== CDR_BIG_ENDIAN)
      throw broken(`encapsulation 0x${representation.toString(16).padStart(4, '0')} is not plain CDR (XCDR1)`);
    this.isLittleEndian = representation === CDR_LITTLE_ENDIAN;
  }

  /** Where the next value would be looked for, before alignment. */
  get offset(): number {
    return this.#offset;
  }

  /** Goes on behind bytes that the caller knows already. */
  skipTo(offset: number): void {
    if (offset < this.#offset || offset > this.bytes.length) throw broken(`no offset ${offset}`);
    this.#offset = offset;
  }

  uint8(): number {
    return this.bytes[this.#take(1, 1)] as number;
  }

  int32(): number {
    const at = this.#take(4, 4);
    return this.isLittleEndian ? this.bytes.readInt32LE(at) : this.bytes.readInt32BE(at);
  }

  uint32(): number {
    const at = this.#take(4, 4);
    return this.isLittleEndian ? this.bytes.readUInt32LE(at) : this.bytes.readUInt32BE(at);
  }

  float32(): number {
    const at = this.#take(4, 4);
    return this.isLittleEndian ? this.bytes.readFloatLE(at) : this.bytes.readFloatBE(at);
  }

  /** A string without its terminating NUL. Refuses bytes that are not UTF-8, and NUL inside: no ROS string has one. */
  string(): string {
    const length = this.uint32();
    if (length === 0) return ''; // Some writers leave the terminator of an empty string away.
    const start = this.#take(length, 1);
    const end = start + length - 1;
    if (this.bytes[end] !== 0) throw broken(`the string at byte ${start} has no end`);
    if (end === start) return '';
    if (this.bytes.subarray(start, end).includes(0)) throw broken(`the string at byte ${start} holds a NUL`);
    try {
      return utf8.decode(this.bytes.subarray(start, end));
    } catch (cause) {
      throw broken(`the string at byte ${start} is not UTF-8`, cause);
    }
  }

  /**
   * How many elements a sequence claims.
   *
   * @param elementBytesMin The least that one element takes, so that a hostile count is refused before it is believed.
   */
  sequenceLength(elementBytesMin: number): number {
    const length = this.uint32();
    if (length * elementBytesMin > this.bytes.length - this.#offset)
      throw broken(`a sequence claims ${length} elements in ${this.bytes.length - this.#offset} bytes`);
    return length;
  }

  /** Moves past `count` doubles and says where they were. An empty run has no padding before it. */
  skipFloat64s(count: number): number {
    return count === 0 ? this.#offset : this.#take(count * 8, 8);
  }

  /** Copies doubles that `skipFloat64s` found to `target[start]` and on, bit by bit, NaN payloads included. */
  float64sAt(from: number, count: number, target: Float64Array, start: number): void {
    if (count === 0) return;
    const to = Buffer.from(target.buffer, target.byteOffset + start * 8, count * 8);
    this.bytes.copy(to, 0, from, from + count * 8);
    if (this.isLittleEndian !== HOST_IS_LITTLE_ENDIAN) to.swap64();
  }

  /** Refuses a message that goes on: then it is of another type, or of another version of it. */
  end(): void {
    const left = this.bytes.length - this.#offset;
    if (left > TRAILING_BYTES_MAX) throw broken(`${left} bytes are left behind the message`);
  }

  /** Aligns, checks and moves on. */
  #take(byteCount: number, alignment: number): number {
    const misalignment = (this.#offset - ENCAPSULATION_BYTES) & (alignment - 1);
    const start = misalignment === 0 ? this.#offset : this.#offset + alignment - misalignment;
    if (start + byteCount > this.bytes.length)
      throw broken(`needs ${byteCount} bytes at ${start}, the message has ${this.bytes.length}`);
    this.#offset = start + byteCount;
    return start;
  }
}

const broken = (reason: string, cause?: unknown): DomainError =>
  new DomainError('invalid', `CDR: ${reason}`, { cause, subject: 'message' });
