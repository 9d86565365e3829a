/** A payload that breaks the layout of its type. Caught by `decodeMessage`. */
export class WireError extends Error {
  override readonly name = 'WireError';
}

/** Reads little-endian values one after the other. Each read past the end throws a WireError. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Moves over `width` bytes. @returns The offset where they start. */
  take(width: number): number {
    const start = this.#at;
    if (start + width > this.#bytes.length) throw new WireError(`ends after ${this.#bytes.length} bytes`);
    this.#at = start + width;
    return start;
  }

  get view(): DataView {
    return this.#view;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** @throws WireError when bytes are left over. */
  end(): void {
    if (this.#at !== this.#bytes.length) throw new WireError(`has ${this.#bytes.length - this.#at} bytes too many`);
  }
}

/** Appends little-endian values to a growing payload. */
export class ByteWriter {
  #view = new DataView(new ArrayBuffer(256));
  #length = 0;

  /** Makes room for `width` bytes. @returns The offset where they start, valid in the present `view`. */
  grow(width: number): number {
    const start = this.#length;
    this.#length += width;
    if (this.#length > this.#view.byteLength) {
      const wider = new Uint8Array(2 * this.#length);
      wider.set(new Uint8Array(this.#view.buffer));
      this.#view = new DataView(wider.buffer);
    }
    return start;
  }

  get view(): DataView {
    return this.#view;
  }

  finish(): Uint8Array {
    return new Uint8Array(this.#view.buffer, 0, this.#length);
  }
}

/** How one kind of value stands in a payload. */
export interface Codec<T> {
  read(reader: ByteReader): T;
  write(writer: ByteWriter, value: T): void;
}

export const u8: Codec<number> = {
  read: (r) => r.view.getUint8(r.take(1)),
  write: (w, value) => {
    const at = w.grow(1);
    w.view.setUint8(at, value);
  },
};

export const u16: Codec<number> = {
  read: (r) => r.view.getUint16(r.take(2), true),
  write: (w, value) => {
    const at = w.grow(2);
    w.view.setUint16(at, value, true);
  },
};

export const u32: Codec<number> = {
  read: (r) => r.view.getUint32(r.take(4), true),
  write: (w, value) => {
    const at = w.grow(4);
    w.view.setUint32(at, value, true);
  },
};

/** An unsigned 64 bit value as a number; above 2^53 - 1 it is refused rather than rounded. [FB-9] */
export const u64: Codec<number> = {
  read: (r) => {
    const at = r.take(8);
    const value = r.view.getUint32(at + 4, true) * 2 ** 32 + r.view.getUint32(at, true);
    if (!Number.isSafeInteger(value)) throw new WireError('has a 64 bit value above 2^53 - 1');
    return value;
  },
  write: (w, value) => {
    if (!Number.isSafeInteger(value) || value < 0) throw new WireError(`${value} is not a whole number in 0..2^53 - 1`);
    const at = w.grow(8);
    w.view.setUint32(at, value % 2 ** 32, true);
    w.view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
  },
};

export const f32: Codec<number> = {
  read: (r) => r.view.getFloat32(r.take(4), true),
  write: (w, value) => {
    const at = w.grow(4);
    w.view.setFloat32(at, value, true);
  },
};

/** A byte that is 0 or 1; anything else is refused. */
export const bool: Codec<boolean> = {
  read: (r) => {
    const value = u8.read(r);
    if (value > 1) throw new WireError(`has ${value} where 0 or 1 belongs`);
    return value === 1;
  },
  write: (w, value) => u8.write(w, value ? 1 : 0),
};

/** One byte naming a member of a closed list. */
export function oneOf<const T extends string>(names: readonly T[]): Codec<T> {
  return {
    read: (r) => {
      const value = u8.read(r);
      const name = names[value];
      if (name === undefined) throw new WireError(`has ${value} where one of ${names.length} choices belongs`);
      return name;
    },
    write: (w, value) => u8.write(w, names.indexOf(value)),
  };
}

/** Exactly `count` float32 values, widened to float64 without change of value. */
export function floats(count: number): Codec<Float64Array> {
  return {
    read: (r) => {
      const out = new Float64Array(count);
      const at = r.take(4 * count);
      for (let i = 0; i < count; i += 1) out[i] = r.view.getFloat32(at + 4 * i, true);
      return out;
    },
    write: (w, values) => {
      if (values.length !== count) throw new WireError(`has ${values.length} values where ${count} belong`);
      const at = w.grow(4 * count);
      for (let i = 0; i < count; i += 1) w.view.setFloat32(at + 4 * i, values[i] as number, true);
    },
  };
}

/** A count in one byte, then as many float32 values. */
export const floatList: Codec<Float64Array> = {
  read: (r) => floats(u8.read(r)).read(r),
  write: (w, values) => {
    u8.write(w, values.length);
    floats(values.length).write(w, values);
  },
};

/** A length in one byte, then printable ASCII. Names are shown to people, so control characters are refused. */
export const text: Codec<string> = {
  read: (r) => {
    const length = u8.read(r);
    const at = r.take(length);
    const value = Buffer.from(r.bytes.buffer, r.bytes.byteOffset + at, length).toString('latin1');
    if (!/^[\x20-\x7e]*$/.test(value)) throw new WireError('has a name that is not printable ASCII');
    return value;
  },
  write: (w, value) => {
    if (value.length > 255 || !/^[\x20-\x7e]*$/.test(value)) throw new WireError('names are printable ASCII');
    u8.write(w, value.length);
    const at = w.grow(value.length);
    for (let i = 0; i < value.length; i += 1) w.view.setUint8(at + i, value.charCodeAt(i));
  },
};

/** A count in one byte, then as many texts. */
export const textList: Codec<readonly string[]> = {
  read: (r) => Array.from({ length: u8.read(r) }, () => text.read(r)),
  write: (w, values) => {
    u8.write(w, values.length);
    for (const value of values) text.write(w, value);
  },
};

export type ValueOf<C> = C extends Codec<infer T> ? T : never;

/** Fields one after the other, in the order of the object. */
export function struct<T extends object>(fields: { readonly [K in keyof T]: Codec<T[K]> }): Codec<Readonly<T>> {
  const entries = Object.entries(fields) as [keyof T & string, Codec<T[keyof T]>][];
  return {
    read: (r) => {
      const out: Record<string, unknown> = {};
      for (const [name, codec] of entries) out[name] = codec.read(r);
      return out as T;
    },
    write: (w, value) => {
      for (const [name, codec] of entries) codec.write(w, value[name]);
    },
  };
}
