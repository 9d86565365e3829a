import type { DecodedBlock } from '@outrider/shared/protocol/block';

const SANE_FROM_MS = Date.UTC(2000, 0, 1);
/** How far ahead of ours a robot's clock may be before we do not believe it. */
const AHEAD_MS_MAX = 5 * 60_000;

/** Whether a time can be when something was recorded. Old recordings are: they keep their own stamps. */
export const isSaneTime = (atMs: number, nowMs: number): boolean =>
  atMs >= SANE_FROM_MS && atMs <= nowMs + AHEAD_MS_MAX;

/** The given time when it is sane, else the time of ingest. */
export const saneTimeOr = (atMs: number, nowMs: number): number => (isSaneTime(atMs, nowMs) ? atMs : nowMs);

/**
 * When each row of a block was recorded: its stamp if that is sane, else its receive time, else now. Makes no big integers,
 * of which a block has two a row. [ms since 1970]
 */
export function rowTimes({ stampNs, receivedNs }: DecodedBlock, nowMs: number): (row: number) => number {
  const [stamps, received] = [wordsOf(stampNs), wordsOf(receivedNs)];
  return (row) => {
    const stampMs = msAt(stamps, row);
    return isSaneTime(stampMs, nowMs) ? stampMs : saneTimeOr(msAt(received, row), nowMs);
  };
}

const wordsOf = (column: BigInt64Array): Uint32Array =>
  new Uint32Array(column.buffer, column.byteOffset, 2 * column.length);

/** Whole milliseconds of the nanoseconds in two words: 2³² ns are 4294 ms and 967,296 ns. */
function msAt(words: Uint32Array, row: number): number {
  const high = (words[2 * row + 1] as number) | 0;
  return high * 4294 + Math.floor((high * 967_296 + (words[2 * row] as number)) / 1_000_000);
}

export interface BlockSpan {
  readonly firstMs: number;
  readonly lastMs: number;
  /** Row of the newest sample; of several, the last received. */
  readonly lastRow: number;
}

/** What time a block covers. Its rows are in order of reception, which need not be the order of their stamps. */
export function blockSpan(block: DecodedBlock, nowMs: number): BlockSpan {
  let firstMs = Number.POSITIVE_INFINITY;
  let lastMs = Number.NEGATIVE_INFINITY;
  let lastRow = 0;
  const recordedAt = rowTimes(block, nowMs);
  for (let row = 0; row < block.count; row += 1) {
    const at = recordedAt(row);
    if (at < firstMs) firstMs = at;
    if (at >= lastMs) {
      lastMs = at;
      lastRow = row;
    }
  }
  return { firstMs, lastMs, lastRow };
}
