import { DomainError } from '@outrider/shared/errors';

const FRAME_MAGIC = 0x184d2204;
const MATCH_BYTES_MIN = 4;

/**
 * Unpacks one LZ4 frame, as MCAP writers make them. Checksums are skipped: MCAP has its own over the result.
 *
 * @param sizeBytes How long the result must be; nothing beyond it is written.
 * @throws DomainError `invalid`
 */
export function decompressLz4(data: Uint8Array, sizeBytes: number): Uint8Array {
  const input = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (input.length < 7 || input.readUInt32LE(0) !== FRAME_MAGIC) throw broken('no frame');
  const flags = input[4] as number;
  if (flags >> 6 !== 1) throw broken('unknown version');
  const hasBlockChecksum = (flags & 0x10) !== 0;
  // Descriptor: flags, block size, [content size], [dictionary id], header checksum.
  let at = 4 + 2 + ((flags & 0x08) === 0 ? 0 : 8) + ((flags & 0x01) === 0 ? 0 : 4) + 1;
  const output = Buffer.alloc(sizeBytes);
  let written = 0;
  for (;;) {
    if (at + 4 > input.length) throw broken('no end mark');
    const word = input.readUInt32LE(at);
    at += 4;
    if (word === 0) break;
    const blockBytes = word & 0x7fff_ffff;
    if (at + blockBytes > input.length) throw broken('a block is cut');
    const block = input.subarray(at, at + blockBytes);
    if (word >>> 31 === 1) {
      if (written + blockBytes > sizeBytes) throw broken('more data than stated');
      written += block.copy(output, written);
    } else written = unpackBlock(block, output, written);
    at += blockBytes + (hasBlockChecksum ? 4 : 0);
  }
  if (written !== sizeBytes) throw broken(`${written} bytes instead of ${sizeBytes}`);
  return output;
}

/** One block: runs of literals, each followed by a copy of what was written before (LZ4 block format). */
function unpackBlock(block: Buffer, output: Buffer, start: number): number {
  let from = 0;
  let to = start;
  const runLength = (nibble: number): number => {
    let length = nibble;
    if (nibble !== 15) return length;
    for (;;) {
      const more = block[from];
      if (more === undefined) throw broken('a length is cut');
      from += 1;
      length += more;
      if (more !== 255) return length;
    }
  };
  while (from < block.length) {
    const token = block[from] as number;
    from += 1;
    const literals = runLength(token >> 4);
    if (from + literals > block.length || to + literals > output.length) throw broken('literals run over');
    block.copy(output, to, from, from + literals);
    from += literals;
    to += literals;
    if (from === block.length) return to; // The last run has no match.
    if (from + 2 > block.length) throw broken('an offset is cut');
    const distance = block.readUInt16LE(from);
    from += 2;
    const matched = runLength(token & 15) + MATCH_BYTES_MIN;
    if (distance === 0 || distance > to || to + matched > output.length) throw broken('a match runs over');
    // Byte by byte when it overlaps what it writes: that is how LZ4 repeats a pattern.
    if (distance >= matched) output.copyWithin(to, to - distance, to - distance + matched);
    else for (let i = 0; i < matched; i += 1) output[to + i] = output[to + i - distance] as number;
    to += matched;
  }
  return to;
}

const broken = (reason: string): DomainError => new DomainError('invalid', `LZ4: ${reason}`);
