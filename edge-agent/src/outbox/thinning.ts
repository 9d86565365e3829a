import { DomainError } from '@outrider/shared/errors';
import { type DecodedBlock, decodeBlock, encodeBlock, sampleAt } from '@outrider/shared/protocol/block';
import { SAMPLE_FLAGS } from '@outrider/shared/telemetry';
import type { RowSpan } from './records.ts';

/** Of samples that nothing speaks for, one in so many stays. */
const KEEP_EVERY = 10;
/** Shorter blocks are mostly ends and extremes. */
export const THINNABLE_SAMPLES_MIN = 16;
/** A block that would keep more than this share of its samples or bytes stays whole: it would lose more than it saves. */
const KEPT_SHARE_MAX = 0.75;
/** Say how a whole source or boot is, not that this sample is odd: only where they change does a sample matter. */
const LASTING_FLAGS = SAMPLE_FLAGS.replayed | SAMPLE_FLAGS.clockUnsure | SAMPLE_FLAGS.noStamp;
/** Around a failsafe's transition nothing is thinned, so far before it and after it. */
export const TRANSITION_MARGIN_MS = 10_000;
/** Stretches kept in mind; of more the oldest are forgotten. */
const SPANS_MAX = 64;
const NS_PER_MS = 1e6;

/** A stretch of time by the wall clock at reception. [ms since 1970] */
export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** What a block is replaced by. */
export interface ThinnedBlock {
  readonly body: Uint8Array;
  /** Samples that it still has. */
  readonly samples: number;
  /** Samples that were left out. */
  readonly thinned: number;
}

/**
 * A block without the samples that matter least: see `keptRows`. What is left is to the bit what it was, and the body
 * says how many samples there were.
 *
 * @returns `undefined` when it is not worth it, or when the block cannot be read.
 */
export function thinBlock(body: Uint8Array, spans: readonly Span[]): ThinnedBlock | undefined {
  let block: DecodedBlock;
  try {
    block = decodeBlock(body);
  } catch (error) {
    if (error instanceof DomainError) return undefined;
    throw error;
  }
  const rows = keptRows(block, spans);
  if (rows.length > block.count * KEPT_SHARE_MAX) return undefined;
  const before = block.thinnedFrom ?? block.count;
  const thinner = encodeBlock(
    rows.map((row) => sampleAt(block, row)),
    before,
  );
  if (thinner.length > body.length * KEPT_SHARE_MAX) return undefined;
  return { body: thinner, samples: rows.length, thinned: before - rows.length };
}

/**
 * Rows of a block that stay: the first and the last, every tenth, the least and the greatest of each value, every one
 * that is flagged as odd, that a lasting flag or a text changes with, and every one received in a protected stretch.
 */
export function keptRows(block: DecodedBlock, spans: readonly Span[]): number[] {
  const { cells, count, flags, texts, receivedNs } = block;
  const kept = new Uint8Array(count);
  kept[count - 1] = 1;
  for (let row = 0; row < count; row += 1) {
    const own = flags[row] as number;
    const isOdd = (own & ~LASTING_FLAGS) !== 0;
    const isChange = row > 0 && (own !== flags[row - 1] || texts[row] !== texts[row - 1]);
    if (row % KEEP_EVERY === 0 || isOdd || isChange || isWithin(receivedNs[row] as bigint, spans)) kept[row] = 1;
  }
  for (let start = 0; start < cells.length; start += count) {
    const column = cells.subarray(start, start + count);
    let [least, greatest] = [-1, -1];
    for (let row = 0; row < count; row += 1) {
      const value = column[row] as number;
      // Comparisons with NaN are false: it is neither, and flagged as odd by its source.
      if (least === -1 ? !Number.isNaN(value) : value < (column[least] as number)) least = row;
      if (greatest === -1 ? !Number.isNaN(value) : value > (column[greatest] as number)) greatest = row;
    }
    if (least !== -1) kept[least] = 1;
    if (greatest !== -1) kept[greatest] = 1;
  }
  return Array.from(kept.keys()).filter((row) => kept[row] === 1);
}

function isWithin(receivedNs: bigint, spans: readonly Span[]): boolean {
  if (spans.length === 0) return false;
  const at = Number(receivedNs) / NS_PER_MS;
  return spans.some(({ fromMs, toMs }) => at >= fromMs && at <= toMs);
}

/** Stretches of time that matter most, such as around a stop. Their blocks are not thinned, and are evicted last. */
export class ProtectedSpans {
  #spans: Span[];
  #text: string;

  /** @param text What `text` gave in an earlier run. */
  constructor(text: string | undefined) {
    this.#spans = parseSpans(text);
    this.#text = textOf(this.#spans);
  }

  get all(): readonly Span[] {
    return this.#spans;
  }

  get text(): string {
    return this.#text;
  }

  add(fromMs: number, toMs: number): void {
    const isApart = (span: Span): boolean => span.toMs < fromMs || span.fromMs > toMs;
    if (this.#spans.some((span) => span.fromMs <= fromMs && span.toMs >= toMs)) return;
    const joined = this.#spans
      .filter((span) => !isApart(span))
      .reduce((a, b) => ({ fromMs: Math.min(a.fromMs, b.fromMs), toMs: Math.max(a.toMs, b.toMs) }), { fromMs, toMs });
    this.#spans = [...this.#spans.filter(isApart), joined].slice(-SPANS_MAX);
    this.#text = textOf(this.#spans);
  }

  /** Whether a record lies in one stretch from its first to its last sample. */
  covers({ from_ms: fromMs, to_ms: toMs }: RowSpan): boolean {
    return this.#spans.some((span) => span.fromMs <= fromMs && span.toMs >= toMs);
  }
}

const textOf = (spans: readonly Span[]): string => JSON.stringify(spans.map(({ fromMs, toMs }) => [fromMs, toMs]));

/** What is damaged is forgotten: then these samples are as good as others. */
function parseSpans(text: string | undefined): Span[] {
  try {
    const pairs: unknown = JSON.parse(text ?? '[]');
    if (!Array.isArray(pairs)) return [];
    return pairs
      .filter(
        (pair): pair is [number, number] => Array.isArray(pair) && pair.length === 2 && pair.every(Number.isFinite),
      )
      .map(([fromMs, toMs]) => ({ fromMs, toMs }))
      .slice(-SPANS_MAX);
  } catch {
    return [];
  }
}
