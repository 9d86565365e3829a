import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { DomainError } from '../errors.ts';
import {
  type Field,
  type Sample,
  STREAM_KINDS,
  type StreamKind,
  type StreamLayout,
  sameLayout,
  valueCount,
} from '../telemetry.ts';
import { outrider } from './messages.ts';

const { Encoding, Layout, TelemetryBlock } = outrider.v1;

/** Most samples in one block. Past this the gain in size is gone and a lost block loses more. */
export const BLOCK_SAMPLES_MAX = 100;
/** Columns before the values: stamp, received, received_mono, flags. */
const HEAD_COLUMNS = 4;
/** Most values in one sample: 256 joints × 4 fields, with room. */
const VALUES_PER_SAMPLE_MAX = 4096;
const TEXT_CHARACTERS_MAX = 65_536;
/** A peer's block may claim more than we would write, up to here. */
const DECODED_SAMPLES_MAX = 10_000;
const DECODED_BYTES_MAX = 32 * 1024 * 1024;
/** Least that zlib takes. */
const INFLATE_CHUNK_BYTES_MIN = 64;
/** Layouts that are known again by their bytes. Past this many all are forgotten, and those in use come back. */
const KEPT_LAYOUTS_MAX = 1024;
const KEPT_LAYOUT_BYTES_MAX = 8192;

const layoutsByBytes = new Map<string, StreamLayout>();
const packedLayouts = new WeakMap<StreamLayout, Uint8Array>();

/** Samples of one stream, column by column. All arrays have `count` elements. */
export interface DecodedBlock {
  readonly layout: StreamLayout;
  readonly count: number;
  /** The source's own stamps, 0 where it gave none. [ns since 1970] */
  readonly stampNs: BigInt64Array;
  /** Wall clock at reception. [ns since 1970] */
  readonly receivedNs: BigInt64Array;
  /** Monotonic clock at reception. [ns] */
  readonly receivedMonoNs: BigInt64Array;
  /** Bits of SAMPLE_FLAGS. */
  readonly flags: Uint32Array;
  /** The values, one column after the other: that of a column and a row stands at `column * count + row`. */
  readonly cells: Float64Array;
  /** One per sample, or empty when no sample has text. */
  readonly texts: readonly string[];
  /** How many samples it held before some were left out for want of room. Absent when it holds all. */
  readonly thinnedFrom?: number;
}

/**
 * Packs samples that share a layout. Lossless: every value comes back with the bits it had.
 *
 * @param samples 1 to BLOCK_SAMPLES_MAX of them, in order of reception.
 * @param thinnedFrom How many there were before some were left out. 0: these are all.
 */
export function encodeBlock(samples: readonly Sample[], thinnedFrom = 0): Uint8Array {
  const first = samples[0];
  if (!first || samples.length > BLOCK_SAMPLES_MAX)
    throw new RangeError(`a block holds 1 to ${BLOCK_SAMPLES_MAX} samples`);
  const width = valueCount(first.layout);
  const count = samples.length;
  const plain = new Uint8Array((HEAD_COLUMNS + width) * count * 8);
  const times = new BigInt64Array(plain.buffer, 0, 3 * count);
  const flags = new Uint32Array(plain.buffer, 3 * count * 8, 2 * count);
  const values = new Float64Array(plain.buffer, HEAD_COLUMNS * count * 8);
  let hasText = false;
  samples.forEach((sample, row) => {
    if (!sameLayout(sample.layout, first.layout)) throw new RangeError('samples of a block share one layout');
    if (sample.values.length !== width) throw new RangeError(`a sample of ${first.layout.stream} has ${width} values`);
    times[row] = sample.stampNs;
    times[count + row] = sample.receivedNs;
    times[2 * count + row] = sample.receivedMonoNs;
    flags[2 * row] = sample.flags;
    for (let column = 0; column < width; column += 1) values[column * count + row] = sample.values[column] as number;
    hasText ||= sample.text !== undefined && sample.text !== '';
  });
  return TelemetryBlock.encode({
    layout: packLayout(first.layout),
    count,
    encoding: Encoding.ENCODING_DELTA_PLANES_DEFLATE,
    columns: deflateRawSync(toPlanes(plain, count, HEAD_COLUMNS + width), { level: 6 }),
    texts: hasText ? samples.map((sample) => sample.text ?? '') : [],
    thinnedFrom,
  }).finish();
}

/**
 * Packs one sample as it is. For samples that are replaced soon: deflating one costs ten times what storing it does, and
 * saves little without neighbours.
 */
export function encodeSample(sample: Sample): Uint8Array {
  const { layout, values } = sample;
  const width = valueCount(layout);
  if (values.length !== width) throw new RangeError(`a sample of ${layout.stream} has ${width} values`);
  const plain = new Uint8Array((HEAD_COLUMNS + width) * 8);
  new BigInt64Array(plain.buffer, 0, 3).set([sample.stampNs, sample.receivedNs, sample.receivedMonoNs]);
  new Uint32Array(plain.buffer, 3 * 8, 2)[0] = sample.flags;
  new Float64Array(plain.buffer, HEAD_COLUMNS * 8).set(values);
  return TelemetryBlock.encode({
    layout: packLayout(layout),
    count: 1,
    encoding: Encoding.ENCODING_PLAIN,
    columns: plain,
    texts: sample.text === undefined || sample.text === '' ? [] : [sample.text],
  }).finish();
}

/**
 * Reads a block from a peer that may be broken or hostile.
 *
 * @throws DomainError `invalid` that says what is wrong; never allocates more than DECODED_BYTES_MAX.
 */
export function decodeBlock(bytes: Uint8Array): DecodedBlock {
  const message = decodeAs(TelemetryBlock, bytes);
  const layout = unpackLayout(message.layout);
  const count = message.count;
  const columnCount = HEAD_COLUMNS + valueCount(layout);
  if (count < 1 || count > DECODED_SAMPLES_MAX) throw refuse('count', `must be 1 to ${DECODED_SAMPLES_MAX}`);
  const { thinnedFrom } = message;
  if (thinnedFrom !== 0 && (thinnedFrom <= count || thinnedFrom > DECODED_SAMPLES_MAX))
    throw refuse('thinned_from', `must be 0, or more than count and at most ${DECODED_SAMPLES_MAX}`);
  const expectedBytes = columnCount * count * 8;
  if (expectedBytes > DECODED_BYTES_MAX)
    throw refuse('columns', `would unpack to more than ${DECODED_BYTES_MAX} bytes`);
  if (message.texts.length !== 0 && message.texts.length !== count) throw refuse('texts', 'one per sample or none');
  if (message.texts.some((text) => text.length > TEXT_CHARACTERS_MAX)) throw refuse('texts', 'a text is too long');
  const plain = unpackColumns(message.encoding, message.columns, count, columnCount, expectedBytes);
  const columnAt = (index: number): number => plain.byteOffset + index * count * 8;
  const flagWords = new Uint32Array(plain.buffer, columnAt(3), 2 * count);
  return {
    layout,
    count,
    stampNs: new BigInt64Array(plain.buffer, columnAt(0), count),
    receivedNs: new BigInt64Array(plain.buffer, columnAt(1), count),
    receivedMonoNs: new BigInt64Array(plain.buffer, columnAt(2), count),
    flags: everySecond(flagWords),
    cells: new Float64Array(plain.buffer, columnAt(HEAD_COLUMNS), (columnCount - HEAD_COLUMNS) * count),
    texts: message.texts,
    ...(thinnedFrom === 0 ? {} : { thinnedFrom }),
  };
}

/** The values of one column. Ninety of these cost more than the block. */
export const columnOf = ({ cells, count }: DecodedBlock, column: number): Float64Array =>
  cells.subarray(column * count, (column + 1) * count);

function everySecond(words: Uint32Array): Uint32Array {
  const found = new Uint32Array(words.length / 2);
  for (let at = 0; at < found.length; at += 1) found[at] = words[2 * at] as number;
  return found;
}

/** One row of a decoded block as the sample it was. */
export function sampleAt(block: DecodedBlock, row: number): Sample {
  const text = block.texts[row];
  const { cells, count } = block;
  const width = cells.length / count;
  const values = new Float64Array(width);
  // `Float64Array.from` with a function takes five times as long.
  for (let column = 0; column < width; column += 1) values[column] = cells[column * count + row] as number;
  return {
    layout: block.layout,
    stampNs: block.stampNs[row] as bigint,
    receivedNs: block.receivedNs[row] as bigint,
    receivedMonoNs: block.receivedMonoNs[row] as bigint,
    flags: block.flags[row] as number,
    values,
    ...(text === undefined || text === '' ? {} : { text }),
  };
}

/** A layout on the wire. Layouts do not change, so each is packed once. */
function packLayout(layout: StreamLayout): Uint8Array {
  const known = packedLayouts.get(layout);
  if (known) return known;
  const packed = Layout.encode({
    stream: layout.stream,
    kind: layout.kind,
    names: [...layout.names],
    fields: layout.fields.map((field) => ({ ...field })),
    tags: { ...layout.tags },
    declaredRateHz: layout.declaredRateHz,
  }).finish();
  packedLayouts.set(layout, packed);
  return packed;
}

/** The layout that these bytes say: of the same bytes mostly the same object. @throws DomainError `invalid` */
function unpackLayout(packed: Uint8Array): StreamLayout {
  const key = Buffer.from(packed.buffer, packed.byteOffset, packed.byteLength).toString('latin1');
  const known = layoutsByBytes.get(key);
  if (known) return known;
  const layout = Object.freeze(decodeLayout(decodeAs(Layout, packed)));
  if (packed.length > KEPT_LAYOUT_BYTES_MAX) return layout;
  if (layoutsByBytes.size >= KEPT_LAYOUTS_MAX) layoutsByBytes.clear();
  layoutsByBytes.set(key, layout);
  packedLayouts.set(layout, Uint8Array.from(packed));
  return layout;
}

function decodeLayout(message: outrider.v1.Layout): StreamLayout {
  const { stream, kind, names, fields, tags, declaredRateHz } = message;
  if (!stream || stream.length > 256) throw refuse('layout.stream', 'must have 1 to 256 characters');
  if (!isStreamKind(kind)) throw refuse('layout.kind', `must be one of ${STREAM_KINDS.join(', ')}`);
  const decoded: StreamLayout = {
    stream,
    kind,
    names,
    fields: fields.map((field): Field => ({ name: field.name ?? '', width: field.width ?? 0 })),
    tags,
    declaredRateHz,
  };
  if (valueCount(decoded) > VALUES_PER_SAMPLE_MAX)
    throw refuse('layout.fields', `more than ${VALUES_PER_SAMPLE_MAX} values`);
  if (decoded.names.length > VALUES_PER_SAMPLE_MAX)
    throw refuse('layout.names', `more than ${VALUES_PER_SAMPLE_MAX} names`);
  return decoded;
}

function decodeAs<T>(type: { decode(bytes: Uint8Array): T }, bytes: Uint8Array): T {
  try {
    return type.decode(bytes);
  } catch (cause) {
    throw new DomainError('invalid', 'not a telemetry block', { cause });
  }
}

function unpackColumns(
  encoding: outrider.v1.Encoding,
  packed: Uint8Array,
  count: number,
  columnCount: number,
  expectedBytes: number,
): Uint8Array {
  if (encoding === Encoding.ENCODING_PLAIN) {
    if (packed.length !== expectedBytes) throw refuse('columns', `must have ${expectedBytes} bytes`);
    return new Uint8Array(packed);
  }
  if (encoding !== Encoding.ENCODING_DELTA_PLANES_DEFLATE) throw refuse('encoding', 'is not known here');
  let planes: Uint8Array;
  try {
    // One piece of output, which needs no putting together.
    const chunkSize = Math.max(INFLATE_CHUNK_BYTES_MIN, expectedBytes + 1);
    planes = inflateRawSync(packed, { maxOutputLength: expectedBytes + 1, chunkSize });
  } catch (cause) {
    throw new DomainError('invalid', 'columns: not raw DEFLATE of the stated size', { cause });
  }
  if (planes.length !== expectedBytes) throw refuse('columns', `must unpack to ${expectedBytes} bytes`);
  return fromPlanes(planes, count, columnCount);
}

/**
 * Column-wise differences, then byte planes: neighbouring samples share sign, exponent and high mantissa bits, so
 * seven of eight planes come out nearly empty and DEFLATE removes them. Times (the first three columns) are
 * subtracted, all else XORed, which loses nothing even for NaN payloads.
 */
function toPlanes(plain: Uint8Array, count: number, columnCount: number): Uint8Array {
  const words = new Uint32Array(plain.buffer, plain.byteOffset, plain.byteLength / 4);
  const out = new Uint8Array(plain.length);
  for (let column = 0; column < columnCount; column += 1) {
    const base = column * count;
    let previousLow = 0;
    let previousHigh = 0;
    for (let row = 0; row < count; row += 1) {
      const low = words[2 * (base + row)] as number;
      const high = words[2 * (base + row) + 1] as number;
      let deltaLow: number;
      let deltaHigh: number;
      if (column < 3) {
        deltaLow = (low - previousLow) >>> 0;
        deltaHigh = (high - previousHigh - (low < previousLow ? 1 : 0)) >>> 0;
      } else {
        deltaLow = low ^ previousLow;
        deltaHigh = high ^ previousHigh;
      }
      const at = base * 8 + row;
      out[at] = deltaLow;
      out[at + count] = deltaLow >>> 8;
      out[at + 2 * count] = deltaLow >>> 16;
      out[at + 3 * count] = deltaLow >>> 24;
      out[at + 4 * count] = deltaHigh;
      out[at + 5 * count] = deltaHigh >>> 8;
      out[at + 6 * count] = deltaHigh >>> 16;
      out[at + 7 * count] = deltaHigh >>> 24;
      previousLow = low;
      previousHigh = high;
    }
  }
  return out;
}

function fromPlanes(planes: Uint8Array, count: number, columnCount: number): Uint8Array {
  const plain = new Uint8Array(planes.length);
  const words = new Uint32Array(plain.buffer);
  const byte = (index: number): number => planes[index] as number;
  for (let column = 0; column < columnCount; column += 1) {
    const base = column * count;
    let low = 0;
    let high = 0;
    for (let row = 0; row < count; row += 1) {
      const at = base * 8 + row;
      const deltaLow =
        (byte(at) | (byte(at + count) << 8) | (byte(at + 2 * count) << 16) | (byte(at + 3 * count) << 24)) >>> 0;
      const deltaHigh =
        (byte(at + 4 * count) |
          (byte(at + 5 * count) << 8) |
          (byte(at + 6 * count) << 16) |
          (byte(at + 7 * count) << 24)) >>>
        0;
      if (column < 3) {
        const sum = low + deltaLow;
        low = sum >>> 0;
        high = (high + deltaHigh + (sum > 0xffffffff ? 1 : 0)) >>> 0;
      } else {
        low = (low ^ deltaLow) >>> 0;
        high = (high ^ deltaHigh) >>> 0;
      }
      words[2 * (base + row)] = low;
      words[2 * (base + row) + 1] = high;
    }
  }
  return plain;
}

function isStreamKind(kind: string | null | undefined): kind is StreamKind {
  return (STREAM_KINDS as readonly string[]).includes(kind ?? '');
}

function refuse(field: string, reason: string): DomainError {
  return new DomainError('invalid', `telemetry block: ${field} ${reason}`, { problems: [{ field, reason }] });
}
