/** Bytes that COBS adds at most to `length` bytes, without the delimiter. [FB-3] */
export const cobsOverheadMax = (length: number): number => Math.floor(length / 254) + 1;

/** Encodes the bytes so that no 0x00 is left, without the delimiter. [FB-3] */
export function cobsEncode(plain: Uint8Array): Uint8Array {
  const out = new Uint8Array(plain.length + cobsOverheadMax(plain.length));
  let codeAt = 0;
  let code = 1;
  let at = 1;
  for (let i = 0; i < plain.length; i += 1) {
    const byte = plain[i] as number;
    if (byte !== 0) {
      out[at] = byte;
      at += 1;
      code += 1;
    }
    const isLast = i === plain.length - 1;
    // A full group of 254 non-zero bytes stands for no zero, so at the very end nothing follows it.
    if (byte === 0 || (code === 0xff && !isLast)) {
      out[codeAt] = code;
      codeAt = at;
      at += 1;
      code = 1;
    }
  }
  out[codeAt] = code;
  return out.subarray(0, at);
}

/**
 * Decodes what stood between two delimiters. [FB-3]
 *
 * @returns The plain bytes, or `undefined` when the bytes are no COBS: a 0x00 inside, or a group that runs past
 * the end.
 */
export function cobsDecode(encoded: Uint8Array): Uint8Array | undefined {
  if (encoded.length === 0) return undefined;
  const out = new Uint8Array(encoded.length);
  let at = 0;
  let length = 0;
  while (at < encoded.length) {
    const code = encoded[at] as number;
    const end = at + code;
    if (code === 0 || end > encoded.length) return undefined;
    for (let i = at + 1; i < end; i += 1) {
      const byte = encoded[i] as number;
      if (byte === 0) return undefined;
      out[length] = byte;
      length += 1;
    }
    at = end;
    if (code !== 0xff && at < encoded.length) length += 1; // `out` is zero already
  }
  return out.subarray(0, length);
}
