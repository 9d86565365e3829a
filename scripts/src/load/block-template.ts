import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { outrider } from '@outrider/shared/messages';
import { decodeBlock, encodeBlock } from '@outrider/shared/protocol/block';
import type { Sample, StreamLayout } from '@outrider/shared/telemetry';

const { TelemetryBlock } = outrider.v1;
/** Stamp, received, received_mono: the columns that differ from one sending to the next. */
const TIME_COLUMNS = 3;
const VALUE_BYTES = 8;
/** Head of a stored block of DEFLATE: not the last one, then its length twice (RFC 1951 §3.2.4). */
const STORED_HEAD_BYTES = 5;
const NS_PER_MS = 1_000_000n;
const HOT_C = 120;

export const LOAD_STREAM = 'mcu/joint_state';

export interface BlockShape {
  readonly joints: number;
  readonly rows: number;
  readonly rateHz: number;
}

/** Blocks that follow each other in a motion that repeats: this many, then from the first again. */
const TEMPLATES = 30;

export function blockTemplates(shape: BlockShape): BlockTemplate[] {
  return Array.from({ length: TEMPLATES }, (_, index) => new BlockTemplate(shape, index));
}

/**
 * A block of joint states that was encoded once and is sent many times with other times in it. The values are what the
 * encoder made of them; the columns of times stand before them in a stored block of the same DEFLATE stream, where they
 * can be overwritten. Whoever reads it does the work that any block of the size costs.
 */
export class BlockTemplate {
  readonly rows: number;
  readonly #body: Uint8Array;
  readonly #timesAt: number;
  readonly #spanNs: bigint;

  constructor(shape: BlockShape, index: number) {
    const { rows, rateHz } = shape;
    this.rows = rows;
    const periodNs = BigInt(Math.round(1e9 / rateHz));
    this.#spanNs = periodNs * BigInt(rows - 1);
    const block = TelemetryBlock.decode(encodeBlock(jointSamples(shape, periodNs, index)));
    const planes = inflateRawSync(block.columns);
    const timeBytes = TIME_COLUMNS * rows * VALUE_BYTES;
    const head = Buffer.alloc(STORED_HEAD_BYTES);
    head.writeUInt16LE(timeBytes, 1);
    head.writeUInt16LE(timeBytes ^ 0xffff, 3);
    const columns = Buffer.concat([
      head,
      planes.subarray(0, timeBytes),
      deflateRawSync(planes.subarray(timeBytes), { level: 6 }),
    ]);
    this.#body = TelemetryBlock.encode({ ...block, columns }).finish();
    this.#timesAt = Buffer.from(this.#body).indexOf(columns) + STORED_HEAD_BYTES;
    this.#check();
  }

  /** A block whose last sample was taken at this time. */
  at(lastMs: number): Uint8Array {
    const body = Uint8Array.from(this.#body);
    const firstNs = BigInt(Math.round(lastMs)) * NS_PER_MS - this.#spanNs;
    for (let column = 0; column < TIME_COLUMNS; column += 1) {
      // The first row of a column is held as a difference to zero, its bytes in eight planes.
      let left = firstNs + BigInt(column * 1000);
      for (let plane = 0; plane < VALUE_BYTES; plane += 1) {
        body[this.#timesAt + (column * VALUE_BYTES + plane) * this.rows] = Number(left & 0xffn);
        left >>= 8n;
      }
    }
    return body;
  }

  /** A load that the receiver reads as something else would prove nothing. */
  #check(): void {
    const lastMs = 1_763_640_000_123;
    const block = decodeBlock(this.at(lastMs));
    const last = block.stampNs[this.rows - 1];
    if (block.count !== this.rows || last !== BigInt(lastMs) * NS_PER_MS)
      throw new Error(`the block template is broken: ${block.count} samples, the last at ${last} ns`);
  }
}

/** A block of one sample of a motor that is too hot for any default. */
export function hotSample(takenMs: number): Uint8Array {
  const stampNs = BigInt(Math.round(takenMs)) * NS_PER_MS;
  const layout: StreamLayout = {
    stream: 'mcu/temperature',
    kind: 'temperature',
    names: ['motor_0'],
    fields: [{ name: 'temperature', width: 1 }],
    tags: {},
    declaredRateHz: 1,
  };
  const times = { stampNs, receivedNs: stampNs, receivedMonoNs: stampNs };
  return encodeBlock([{ layout, ...times, flags: 0, values: Float64Array.of(HOT_C) }]);
}

/** Smooth motion with noise in the last digits, as 32-bit sensors give it. */
function jointSamples({ joints, rows, rateHz }: BlockShape, periodNs: bigint, index: number): Sample[] {
  const layout: StreamLayout = {
    stream: LOAD_STREAM,
    kind: 'joint_state',
    names: Array.from({ length: joints }, (_, joint) => `joint_${joint}`),
    fields: ['position', 'velocity', 'effort', 'temperature'].map((name) => ({ name, width: joints })),
    tags: {},
    declaredRateHz: rateHz,
  };
  let state = index + 1;
  const angularRadps = (2 * Math.PI * rateHz) / (rows * TEMPLATES);
  const noise = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  return Array.from({ length: rows }, (_, row): Sample => {
    const values = new Float64Array(4 * joints);
    for (let joint = 0; joint < joints; joint += 1) {
      const phase = (angularRadps * (index * rows + row)) / rateHz + joint;
      values[joint] = Math.fround(0.5 * Math.sin(phase) + 1e-4 * noise());
      values[joints + joint] = Math.fround(0.5 * angularRadps * Math.cos(phase) + 1e-3 * noise());
      values[2 * joints + joint] = Math.fround(5 * Math.sin(phase) + 0.05 * noise());
      values[3 * joints + joint] = Math.fround(40 + Math.round(10 * noise()) / 10);
    }
    const at = BigInt(row) * periodNs;
    return { layout, stampNs: at, receivedNs: at, receivedMonoNs: at, flags: 0, values };
  });
}
