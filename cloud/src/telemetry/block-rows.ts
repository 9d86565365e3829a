import type { DecodedBlock } from '@outrider/shared/protocol/block';
import { rowTimes } from './recorded-time.ts';

/**
 * The rows of a block that were recorded in a range, as a block.
 *
 * @param ingestedAtMs What "now" was when the block was stored: it decides which stamps were sane.
 * @param limit Most rows to keep: the first ones, or the last ones when `keepLast`.
 * @returns The same block when all its rows are wanted; `undefined` when none is.
 */
export function selectRows(
  block: DecodedBlock,
  fromMs: number,
  toMs: number,
  ingestedAtMs: number,
  limit: number,
  keepLast = false,
): DecodedBlock | undefined {
  let rows: number[] = [];
  const recordedAt = rowTimes(block, ingestedAtMs);
  for (let row = 0; row < block.count; row += 1) {
    const at = recordedAt(row);
    if (at >= fromMs && at <= toMs) rows.push(row);
  }
  if (rows.length > limit) rows = keepLast ? rows.slice(-limit) : rows.slice(0, limit);
  if (rows.length === 0) return undefined;
  if (rows.length === block.count) return block;
  const times = (column: BigInt64Array): BigInt64Array => BigInt64Array.from(rows, (row) => column[row] as bigint);
  const { cells, count, texts } = block;
  const kept = new Float64Array((cells.length / count) * rows.length);
  for (let column = 0, at = 0; column < cells.length; column += count)
    for (const row of rows) kept[at++] = cells[column + row] as number;
  return {
    layout: block.layout,
    count: rows.length,
    stampNs: times(block.stampNs),
    receivedNs: times(block.receivedNs),
    receivedMonoNs: times(block.receivedMonoNs),
    flags: Uint32Array.from(rows, (row) => block.flags[row] as number),
    cells: kept,
    texts: texts.length === 0 ? [] : rows.map((row) => texts[row] ?? ''),
  };
}
