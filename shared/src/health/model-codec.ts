import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib';
import { DomainError } from '../errors.ts';
import type { Classifier } from './boost.ts';
import type { RobotModel } from './robot-analyser.ts';
import type { StreamModel } from './stream-model.ts';
import { VIEWS, type View } from './stream-model.ts';
import type { Tail } from './tail.ts';
import { FEATURES_PER_SIGNAL, TIMING_FEATURES, type WindowOptions } from './windows.ts';

/** First line: what it is and its version, then the checksum of all that follows. */
const MAGIC = 'OUTRIDER-HEALTH-2';
const HEAD_BYTES = MAGIC.length + 1 + 8 + 1;
const INFLATED_BYTES_MAX = 64 * 1024 * 1024;

/** A model as bytes for a file or a table. */
export function encodeModel(model: RobotModel): Uint8Array {
  const streams = [...model].map(([stream, learnt]) => ({
    stream,
    ...learnt,
    floors: pack(learnt.floors),
    centers: pack(learnt.centers),
    scales: pack(learnt.scales),
    wanders: [...learnt.wanders],
    groups: learnt.groups.map(({ members, precision }) => ({ members, precision: pack(precision) })),
    prototypes: learnt.prototypes.map(pack),
    classifier: learnt.classifier ?? null,
  }));
  const body = deflateRawSync(JSON.stringify({ streams }));
  return Buffer.concat([Buffer.from(`${MAGIC} ${checksum(body)}\n`), body]);
}

/** @throws DomainError `invalid` for anything that is not a whole model of this version. */
export function decodeModel(bytes: Uint8Array): RobotModel {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const head = buffer.toString('latin1', 0, HEAD_BYTES);
  if (!head.startsWith(`${MAGIC} `)) throw refuse(`does not begin with ${MAGIC}`);
  const body = buffer.subarray(HEAD_BYTES);
  if (head !== `${MAGIC} ${checksum(body)}\n`) throw refuse('is damaged: its checksum is another');
  try {
    const text = inflateRawSync(body, { maxOutputLength: INFLATED_BYTES_MAX }).toString('utf8');
    const { streams } = JSON.parse(text) as { streams: readonly StoredStream[] };
    return new Map(streams.map((stored) => [stored.stream, restore(stored)]));
  } catch (cause) {
    throw refuse(`cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

interface StoredStream {
  readonly stream: string;
  readonly signals: readonly string[];
  readonly windowMs: number;
  readonly floors: string;
  readonly centers: string;
  readonly scales: string;
  readonly wanders: readonly number[];
  readonly groups: readonly { readonly members: readonly number[]; readonly precision: string }[];
  readonly prototypes: readonly string[];
  readonly tails: Readonly<Partial<Record<View, Tail>>>;
  readonly alarm: StreamModel['alarm'];
  readonly classifier: Classifier | null;
  readonly windows?: WindowOptions;
}

function restore(stored: StoredStream): StreamModel {
  const { signals, windowMs, tails, alarm, classifier, windows } = stored;
  const width = signals.length * FEATURES_PER_SIGNAL + TIMING_FEATURES.length;
  const features = (text: string): Float64Array => expect(Float64Array.from(unpack(text)), width);
  if (!(windowMs > 0) || !(alarm.windows > 0 && alarm.excess > 0)) throw new Error('its alarm level is no number');
  if (windows && !(windows.hopMs > 0 && windows.hops > 0)) throw new Error('its windows are no numbers');
  if (stored.wanders.length !== signals.length) throw new Error('its signals do not agree');
  return {
    signals,
    windowMs,
    floors: features(stored.floors),
    centers: features(stored.centers),
    scales: features(stored.scales),
    wanders: Uint8Array.from(stored.wanders),
    groups: stored.groups.map(({ members, precision }) => ({
      members,
      precision: expect(unpack(precision), (2 * members.length) ** 2),
    })),
    prototypes: stored.prototypes.map((text) => expect(unpack(text), 2 * signals.length)),
    tails: Object.fromEntries(VIEWS.flatMap((view) => (tails[view] ? [[view, tails[view]]] : []))),
    alarm,
    classifier: classifier ?? undefined,
    ...(windows && { windows }),
  };
}

/** Single precision is far finer than what a model knows. */
const pack = (values: ArrayLike<number>): string => Buffer.from(Float32Array.from(values).buffer).toString('base64');

function unpack(text: string): Float32Array {
  const bytes = Buffer.from(text, 'base64');
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

function expect<A extends ArrayLike<number>>(values: A, length: number): A {
  if (values.length !== length) throw new Error(`a list has ${values.length} values instead of ${length}`);
  return values;
}

const checksum = (bytes: Uint8Array): string => (crc32(bytes) >>> 0).toString(16).padStart(8, '0');

const refuse = (problem: string, cause?: unknown): DomainError =>
  new DomainError('invalid', `the health model ${problem}`, { cause });
