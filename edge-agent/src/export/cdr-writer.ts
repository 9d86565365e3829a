const ENCAPSULATION = [0x00, 0x01, 0x00, 0x00]; // CDR_LE, no options
const BYTES_FIRST = 512;

/** Writes XCDR1 little endian, as `CdrReader` and every ROS 2 reader takes it. */
export class CdrWriter {
  #bytes = Buffer.alloc(BYTES_FIRST);
  #size = ENCAPSULATION.length;

  constructor() {
    this.#bytes.set(ENCAPSULATION);
  }

  uint8(value: number): this {
    const at = this.#reserve(1, 1);
    this.#bytes.writeUInt8(value & 0xff, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#reserve(4, 4);
    this.#bytes.writeInt32LE(value, at);
    return this;
  }

  uint32(value: number): this {
    const at = this.#reserve(4, 4);
    this.#bytes.writeUInt32LE(value, at);
    return this;
  }

  float32(value: number): this {
    const at = this.#reserve(4, 4);
    this.#bytes.writeFloatLE(value, at);
    return this;
  }

  string(text: string): this {
    const bytes = Buffer.byteLength(text);
    this.uint32(bytes + 1);
    const at = this.#reserve(bytes + 1, 1);
    this.#bytes.write(text, at);
    this.#bytes[at + bytes] = 0;
    return this;
  }

  strings(texts: readonly string[]): this {
    this.uint32(texts.length);
    for (const text of texts) this.string(text);
    return this;
  }

  /** Doubles one after the other, bit by bit, without a count before them. */
  float64s(values: Float64Array): this {
    // Some readers pad before the first element only, so that an empty run has no padding.
    if (values.length === 0) return this;
    const at = this.#reserve(8 * values.length, 8);
    Buffer.from(values.buffer, values.byteOffset, values.byteLength).copy(this.#bytes, at);
    if (!HOST_IS_LITTLE_ENDIAN) this.#bytes.subarray(at, at + values.byteLength).swap64();
    return this;
  }

  float64Sequence(values: Float64Array): this {
    return this.uint32(values.length).float64s(values);
  }

  float32Sequence(values: ArrayLike<number>): this {
    this.uint32(values.length);
    for (let i = 0; i < values.length; i += 1) this.float32(values[i] as number);
    return this;
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return Uint8Array.from(this.#bytes.subarray(0, this.#size));
  }

  #reserve(byteCount: number, alignment: number): number {
    const misalignment = (this.#size - ENCAPSULATION.length) & (alignment - 1);
    const at = misalignment === 0 ? this.#size : this.#size + alignment - misalignment;
    if (at + byteCount > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(2 * this.#bytes.length, at + byteCount));
      this.#bytes.copy(grown, 0, 0, this.#size);
      this.#bytes = grown;
    }
    this.#bytes.fill(0, this.#size, at);
    this.#size = at + byteCount;
    return at;
  }
}

const HOST_IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
