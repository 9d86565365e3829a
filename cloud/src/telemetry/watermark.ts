/** Positions `from`..`to` of a lane, both inclusive. */
export interface SeqRange {
  readonly from: number;
  readonly to: number;
}

/** A record as far as positions go. */
export interface Positioned {
  readonly seq: number;
  /** Last position a gap covers; `seq` for everything else. */
  readonly seqTo: number;
  /** First bytes of the content's SHA-256; empty for a gap, which collides with nothing. */
  readonly hash: Uint8Array;
}

/** Where a lane stands. */
export interface LaneCursor {
  /** Every position up to here is stored or explained. */
  readonly upto: number;
  readonly ahead: readonly (SeqRange & { readonly hash: Uint8Array })[];
}

export interface LaneVerdict<R extends Positioned> {
  readonly upto: number;
  readonly maxSeen: number;
  /** To be stored, by position. */
  readonly fresh: readonly R[];
  /** At or below the old watermark: the caller compares contents with what is stored. */
  readonly passed: readonly R[];
  /** Known from beyond the watermark or from this very batch, with the same content. */
  readonly duplicates: readonly R[];
  /** Known with other content. */
  readonly collisions: readonly R[];
  /** Too far beyond a hole to be remembered. Not stored, so that the edge sends them again. */
  readonly deferred: readonly R[];
  /** Of the fresh ones, those still beyond the watermark. */
  readonly ahead: readonly R[];
  /** Whether the lane had ranges beyond its watermark before. */
  readonly hadAhead: boolean;
}

/** Most ranges that a lane may have beyond a hole. */
export const AHEAD_RANGES_MAX = 4096;

/**
 * Decides what a batch means for its lane. Pure: storing is the caller's task, in the transaction that holds the
 * lane's cursor row.
 */
export function advance<R extends Positioned>(
  cursor: LaneCursor,
  records: readonly R[],
  aheadRangesMax: number = AHEAD_RANGES_MAX,
): LaneVerdict<R> {
  const fresh: R[] = [];
  const ahead: R[] = [];
  const passed: R[] = [];
  const duplicates: R[] = [];
  const collisions: R[] = [];
  const deferred: R[] = [];
  const known = new KnownPositions(cursor.ahead);
  const waiting = cursor.ahead.toSorted((a, b) => a.from - b.from);
  let absorbed = 0;
  let upto = cursor.upto;
  const absorb = (): void => {
    for (let next = waiting[absorbed]; next !== undefined && next.from <= upto + 1; next = waiting[absorbed]) {
      upto = Math.max(upto, next.to);
      absorbed += 1;
    }
  };
  absorb();
  for (const record of records.toSorted((a, b) => a.seq - b.seq)) {
    const meeting = record.seqTo <= cursor.upto ? 'passed' : known.meet(record);
    if (meeting === 'passed') passed.push(record);
    else if (meeting === 'same') duplicates.push(record);
    else if (meeting === 'other') collisions.push(record);
    else if (record.seq <= upto + 1) {
      fresh.push(record);
      known.add({ from: record.seq, to: record.seqTo, hash: record.hash });
      upto = Math.max(upto, record.seqTo);
      absorb();
    } else if (waiting.length - absorbed + ahead.length < aheadRangesMax) {
      fresh.push(record);
      ahead.push(record);
      known.add({ from: record.seq, to: record.seqTo, hash: record.hash });
    } else deferred.push(record);
  }
  const maxSeen = known.maxTo(cursor.upto);
  return { upto, maxSeen, fresh, passed, duplicates, collisions, deferred, ahead, hadAhead: waiting.length > 0 };
}

/** Positions beyond the old watermark that are stored, or about to be. */
class KnownPositions {
  readonly #hashes = new Map<number, Uint8Array>();
  readonly #spans: SeqRange[] = [];
  #maxTo = 0;

  constructor(ranges: LaneCursor['ahead']) {
    for (const range of ranges) this.add(range);
  }

  add(range: LaneCursor['ahead'][number]): void {
    this.#maxTo = Math.max(this.#maxTo, range.to);
    if (range.hash.length > 0) this.#hashes.set(range.from, range.hash);
    else this.#spans.push(range);
  }

  meet(record: Positioned): 'new' | 'same' | 'other' {
    const hash = record.seq === record.seqTo ? this.#hashes.get(record.seq) : undefined;
    if (hash) return record.hash.length === 0 || equalBytes(hash, record.hash) ? 'same' : 'other';
    return this.#spans.some((span) => span.from <= record.seq && span.to >= record.seqTo) ? 'same' : 'new';
  }

  maxTo(floor: number): number {
    return Math.max(this.#maxTo, floor);
  }
}

/** Whether two byte strings are the same. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
