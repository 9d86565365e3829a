import { DomainError } from '@outrider/shared/errors';
import { type StreamLayout, sameLayout } from '@outrider/shared/telemetry';
import type { HistoryBlock } from '../../telemetry/ports.ts';

const words = new BigUint64Array(1);
const doubles = new Float64Array(words.buffer);
const CANONICAL_NAN = 0x7ff8000000000000n;
const CURSOR_PATTERN = /^(\d{1,16})\.([0-9a-f]{16})\.(\d{1,16})\.(\d{1,6})$/;

/** Where an export stopped: the sample after which to go on. */
interface Cursor {
  readonly recordedAt: number;
  readonly epoch: string;
  readonly seq: number;
  readonly row: number;
}

/**
 * A double as JSON that gives the same bits back. JSON has no word for NaN and the infinities, so they are strings;
 * a NaN with a payload carries its bits: `"NaN:7ff8000000000001"`.
 */
export function exactNumber(value: number): string {
  if (Object.is(value, -0)) return '-0';
  if (Number.isFinite(value)) return String(value);
  if (!Number.isNaN(value)) return value > 0 ? '"Infinity"' : '"-Infinity"';
  doubles[0] = value;
  const bits = words[0] ?? CANONICAL_NAN;
  return bits === CANONICAL_NAN ? '"NaN"' : `"NaN:${bits.toString(16).padStart(16, '0')}"`;
}

/**
 * Lines of an export, several to a chunk: `{"layout":…}` before the samples of each shape, then per sample
 * `{"stamp_ns":"…","received_ns":"…","received_mono_ns":"…","flags":0,"values":[…]}`, and at the end
 * `{"end":true,"samples":n,"cursor":…}`, so that a download that was cut short shows. The cursor is null when all was
 * sent; it goes on where it stopped under the same stream and times.
 */
export async function* exportLines(
  blocks: AsyncIterable<HistoryBlock>,
  options: { limit: number; cursor: string | undefined },
): AsyncGenerator<string> {
  const after = options.cursor === undefined ? undefined : parseCursor(options.cursor);
  let hasPassed = after === undefined;
  let layout: StreamLayout | undefined;
  let samples = 0;
  let last: Cursor | undefined;
  for await (const block of blocks) {
    let from = 0;
    if (!hasPassed && after) {
      const order = compare(block, after);
      if (order < 0) continue;
      if (order === 0) from = after.row + 1;
      hasPassed = true;
    }
    let text = '';
    for (let row = from; row < block.count; row += 1) {
      if (samples >= options.limit) {
        if (text !== '') yield text;
        return yield endLine(samples, last);
      }
      if (!layout || !sameLayout(layout, block.layout)) {
        layout = block.layout;
        text += `${JSON.stringify({ layout })}\n`;
      }
      text += sampleLine(block, row);
      samples += 1;
      last = { recordedAt: block.recordedAt, epoch: block.epoch, seq: block.seq, row };
    }
    if (text !== '') yield text;
  }
  return yield endLine(samples, undefined);
}

/** The order that blocks come in. */
const compare = (block: HistoryBlock, after: Cursor): number =>
  block.recordedAt - after.recordedAt ||
  (block.epoch < after.epoch ? -1 : block.epoch > after.epoch ? 1 : block.seq - after.seq);

function sampleLine(block: HistoryBlock, row: number): string {
  const { cells, count } = block;
  const values: string[] = [];
  for (let at = row; at < cells.length; at += count) values.push(exactNumber(cells[at] as number));
  const text = block.texts[row];
  return `{"stamp_ns":"${block.stampNs[row]}","received_ns":"${block.receivedNs[row]}","received_mono_ns":"${block.receivedMonoNs[row]}","flags":${block.flags[row]},"values":[${values.join()}]${text ? `,"text":${JSON.stringify(text)}` : ''}}\n`;
}

function endLine(samples: number, cursor: Cursor | undefined): string {
  const text = cursor && `${cursor.recordedAt}.${cursor.epoch}.${cursor.seq}.${cursor.row}`;
  return `${JSON.stringify({ end: true, samples, cursor: text ?? null })}\n`;
}

function parseCursor(text: string): Cursor {
  const [, recordedAt, epoch, seq, row] = CURSOR_PATTERN.exec(text) ?? [];
  if (recordedAt === undefined || epoch === undefined) {
    throw new DomainError('invalid', 'cursor is not one of ours', {
      problems: [{ field: 'cursor', reason: 'must be the cursor of an earlier end line' }],
    });
  }
  return { recordedAt: Number(recordedAt), epoch, seq: Number(seq), row: Number(row) };
}
