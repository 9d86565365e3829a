import { outrider } from '@outrider/shared/messages';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import { Database, type Db, type Meta } from './database.ts';
import { type LaneStatements, prepareLane, ROWS_PER_INSERT, type ThinnableRow } from './lane-statements.ts';
import { Origins } from './origins.ts';
import {
  type GapSummary,
  gapRecord,
  isSoundRow,
  joinGaps,
  type LaneName,
  lossOf,
  type NewRecord,
  type Origin,
  type RowSpan,
  readGap,
  rowCrc,
  type StoredRecord,
  type StoredRow,
} from './records.ts';
import type { ThinnedBlock } from './thinning.ts';
import type { LaneStats } from './types.ts';

const { BODY_GAP } = outrider.v1.BodyKind;
const QUARANTINED_ROWS_MAX = 100;
/** Rows looked at in one go for what may be thinned, and for what may be evicted while some are spared. */
const [ROWS_LOOKED_AT_MAX, VICTIMS_LOOKED_AT_MAX] = [200, 2000];

/**
 * One lane: rows whose positions follow each other without a hole. What had to be dropped is a gap row in its
 * place.
 *
 * Positions on the wire are row numbers minus an offset. A new epoch only moves the offset, so that the oldest row
 * becomes position 1 again without rewriting the file.
 *
 * Methods that write expect the caller's transaction. After a rollback call `reload`.
 */
export class LaneTable {
  readonly lane: LaneName;
  readonly #meta: Meta;
  readonly #bootId: string;
  readonly #origins: Origins;
  readonly #sql: LaneStatements;
  #records = 0;
  #bytes = 0;
  #samples = 0;
  #maxRow = 0;
  #offset = 0;

  constructor(db: Db, meta: Meta, lane: LaneName, bootId: string) {
    this.lane = lane;
    this.#meta = meta;
    this.#bootId = bootId;
    this.#origins = new Origins(meta, lane);
    this.#sql = prepareLane(db, lane);
    db.exec(`DELETE FROM quarantine WHERE id <= (SELECT MAX(id) FROM quarantine) - ${QUARANTINED_ROWS_MAX}`);
    this.reload();
  }

  /** Reads the counters from the file again. */
  reload(): void {
    this.#ahead = undefined;
    this.#repairedFrom = undefined;
    const totals = this.#sql.totals.get();
    this.#records = totals?.records ?? 0;
    this.#bytes = totals?.bytes ?? 0;
    this.#samples = totals?.samples ?? 0;
    this.#maxRow = this.#sql.highest.get()?.seq ?? 0;
    this.#offset = this.#meta.getNumber(`offset.${this.lane}`);
    this.#origins.reload();
  }

  get maxSeq(): number {
    return this.#maxRow - this.#offset;
  }

  /** Lowest position still held; one past the highest when the lane is empty. */
  get oldestSeq(): number {
    return (this.#sql.oldest.get()?.seq ?? this.#maxRow + 1) - this.#offset;
  }

  stats(): LaneStats {
    return {
      records: this.#records,
      bytes: this.#bytes,
      samples: this.#samples,
      maxSeq: this.maxSeq,
      oldestMs: this.#sql.oldest.get()?.written_ms ?? 0,
    };
  }

  /** Appends a record of an earlier file at the end. Call `saveOrigins` after the last. */
  append(record: NewRecord, bootId: string, origin: Origin | undefined): void {
    this.#insertRows(this.#sql.append, [record], 0, 1, bootId);
    if (origin) this.#origins.add(this.#maxRow, origin);
  }

  saveOrigins(): void {
    this.#origins.save();
  }

  /** Appends at the end, in this order. */
  appendAll(records: readonly NewRecord[]): void {
    let done = 0;
    // Several rows in one statement: AUTOINCREMENT reads and writes its counter once per statement.
    for (; records.length - done >= ROWS_PER_INSERT; done += ROWS_PER_INSERT)
      this.#insertRows(this.#sql.appendMany, records, done, ROWS_PER_INSERT, this.#bootId);
    for (; done < records.length; done += 1) this.#insertRows(this.#sql.append, records, done, 1, this.#bootId);
  }

  /** Appends a gap for something that never got a position of its own, or lost it with a damaged file. */
  appendGap(gap: GapSummary): void {
    this.#maxRow += 1;
    this.#insertGap(this.#maxRow, this.#maxRow, gap, this.#bootId);
  }

  /**
   * Rows after a position, in order, until `bytesMax` is reached; at least one when there is one. Each body is
   * checked against its CRC: a damaged row is replaced by a gap and kept in quarantine, never returned as good. A
   * hole in the positions becomes a gap too, and a gap that begins at or before `afterSeq` is cut there: rows may be
   * evicted together of which the cloud has some, when a crash came before it was noted that they were sent.
   *
   * @returns `repaired` when rows must be replaced: `repair` does it, in a transaction that is committed before
   * sending.
   * @throws SqliteError with a corruption code when a repair was written and is damaged again.
   */
  next(afterSeq: number, bytesMax: number): { records: StoredRecord[]; repaired: GapSummary | 'cut' | undefined } {
    const records: StoredRecord[] = [];
    let repaired: GapSummary | undefined;
    let bytes = 0;
    let expected = afterSeq + this.#offset + 1;
    for (const row of this.#rowsAfter(afterSeq + this.#offset)) {
      if (row.seq !== expected) {
        if (this.#foundOverlap(row.seq, expected)) return { records: records.slice(0, -1), repaired: 'cut' };
        const hole = { reason: 'missing', records: row.seq - expected, samples: 0, fromMs: 0, toMs: 0 } as const;
        return { records, repaired: this.#pendingRepair(expected, row.seq - 1, hole) };
      }
      // What does not fit is judged when its turn comes. After damage it may be no buffer.
      const bodyBytes = Buffer.isBuffer(row.body) ? row.body.length : 0;
      if (records.length > 0 && bytes + bodyBytes > bytesMax) {
        this.#ahead = row;
        break;
      }
      if (!this.#isSound(row)) {
        if (row.seq === this.#repairedFrom)
          throw new Database.SqliteError('what was written does not come back as it was', 'SQLITE_CORRUPT');
        repaired = lossOf(row, 'checksum');
        return { records, repaired: this.#pendingRepair(row.seq, Math.max(row.seq, row.seq_to), repaired, row.body) };
      }
      bytes += bodyBytes;
      records.push(this.#toRecord(row));
      expected = Math.max(row.seq, row.seq_to) + 1;
    }
    return { records, repaired };
  }

  /** Rows after one, the one that the last batch had no room for without reading it again. */
  *#rowsAfter(row: number): Generator<StoredRow> {
    const ahead = this.#ahead?.seq === row + 1 ? this.#ahead : undefined;
    this.#ahead = undefined;
    if (ahead) yield ahead;
    yield* this.#sql.after.iterate(ahead ? ahead.seq : row);
  }

  /** Looks for a gap that reaches past a position which is wanted, or into the row after it. */
  #foundOverlap(rowSeq: number, expected: number): boolean {
    const gap = this.#sql.before.get(Math.min(rowSeq, expected));
    if (gap?.kind !== BODY_GAP || !this.#isSound(gap) || gap.seq_to < Math.min(rowSeq, expected)) return false;
    this.#repair = () => {
      if (rowSeq > expected) this.#cutGap(gap, expected - 1);
      // Nobody makes such a gap: its end is damaged, and what follows tells where it is.
      else this.#replace(gap.seq, rowSeq - 1, readGap(gap.body));
    };
    return true;
  }

  /** Read by the last `next` and not taken. Rows never change; what replaces or removes some forgets it. */
  #ahead: StoredRow | undefined;
  /** A repair that `next` found, to be made once its cursor is closed. */
  #repair: (() => void) | undefined;

  /** First row of the last repair, whose gap must be sound when it is read. */
  #repairedFrom: number | undefined;

  #pendingRepair(first: number, last: number, gap: GapSummary, body?: Uint8Array): GapSummary {
    this.#repair = () => {
      this.#repairedFrom = first;
      if (body) this.#sql.quarantine.run(this.lane, first - this.#offset, gap.reason, body);
      this.#replace(first, last, gap);
    };
    return gap;
  }

  /** Makes the repair that the last `next` reported. */
  repair(): void {
    this.#repair?.();
    this.#repair = undefined;
  }

  /**
   * Deletes what the cloud has, oldest first. A gap that reaches past `upto` keeps the part beyond it.
   *
   * @param rowsMax Most rows to delete in this call, so that a long backlog does not hold up the agent.
   * @returns How many rows and samples went, and whether there is more to delete.
   */
  removeUpto(upto: number, rowsMax: number): { records: number; samples: number; more: boolean } {
    const limit = Math.min(upto + this.#offset, this.#maxRow);
    const nth = this.#sql.nth.get(limit, rowsMax - 1)?.seq;
    const row = nth ?? limit;
    const last = this.#sql.before.get(row + 1);
    if (!last) return { records: 0, samples: 0, more: false };
    this.#cutIfBeyond(last, limit);
    if (this.#ahead && this.#ahead.seq <= row) this.#ahead = undefined;
    const covered = this.#sql.range.get(0, row) ?? { records: 0, bytes: 0, samples: 0 };
    this.#sql.remove.run(0, row);
    this.#count(-covered.records, -(covered.bytes ?? 0), -(covered.samples ?? 0));
    return { records: covered.records, samples: covered.samples ?? 0, more: nth !== undefined && nth < limit };
  }

  /** Cuts a gap that reaches past a position in two. */
  cutGapAfter(upto: number): void {
    const row = upto + this.#offset;
    this.#cutIfBeyond(this.#sql.before.get(row + 1), row);
  }

  /**
   * Replaces the oldest records by gaps, merged with gaps before them.
   *
   * @param bytesToFree Stops once the bodies that went had this many.
   * @param protectedUpto Nothing up to here is touched: it is in flight, and what was sent must not change.
   * @param maybeSentUpto Up to here the cloud may hold records already, so their gaps stay one record wide: its
   *   watermark may end at any of them.
   * @param isSpared Which records only go when all others are gone.
   */
  evict(
    recordsMax: number,
    bytesToFree: number,
    protectedUpto: number,
    maybeSentUpto: number,
    isSpared?: (row: RowSpan) => boolean,
  ): GapSummary | undefined {
    const all = this.#sql.victims.all(protectedUpto + this.#offset, isSpared ? VICTIMS_LOOKED_AT_MAX : recordsMax);
    const free = isSpared ? all.filter((row) => !isSpared(row)) : all;
    const rows = (free.length > 0 ? free : all).slice(0, recordsMax);
    const boundary = maybeSentUpto + this.#offset;
    let total: GapSummary | undefined;
    let run: { first: number; last: number; gap: GapSummary } | undefined;
    let freed = 0;
    for (const row of rows) {
      if (freed >= bytesToFree) break;
      freed += row.bytes;
      const gap = lossOf(row, 'evicted');
      total = total ? joinGaps(total, gap) : gap;
      if (run && row.seq === run.last + 1 && run.first > boundary) {
        run = { first: run.first, last: row.seq, gap: joinGaps(run.gap, gap) };
        continue;
      }
      if (run) this.#replaceMerged(run, boundary);
      run = { first: row.seq, last: row.seq, gap };
    }
    if (run) this.#replaceMerged(run, boundary);
    return total;
  }

  /**
   * Blocks that may be replaced by thinner ones, oldest first.
   *
   * @param sentUpto None up to this position: what was sent must not change.
   * @param lookedAt Row up to which they have been offered before.
   * @param keepNewest Share of the lane's rows, the newest, that stays as it is.
   * @returns The blocks, the row up to which they were looked for, and whether there are rows beyond it.
   */
  thinnable(
    sentUpto: number,
    lookedAt: number,
    { keepNewest, samplesMin, recordsMax }: { keepNewest: number; samplesMin: number; recordsMax: number },
  ): { rows: ThinnableRow[]; lookedAt: number; more: boolean } {
    const first = Math.max(sentUpto + this.#offset, lookedAt, (this.#sql.oldest.get()?.seq ?? 0) - 1) + 1;
    const end = this.#maxRow - Math.ceil(this.#records * keepNewest);
    const last = Math.min(end, first + ROWS_LOOKED_AT_MAX - 1);
    if (last < first) return { rows: [], lookedAt, more: false };
    const rows = this.#sql.thinnable.all(first, last, samplesMin, recordsMax);
    const reached = rows.length < recordsMax ? last : (rows.at(-1)?.seq ?? last);
    // What was there under another epoch may be stored, and is known again by its content only.
    const isFree = (row: ThinnableRow): boolean => this.#origins.of(row.seq) === undefined && this.#isSound(row);
    return { rows: rows.filter(isFree), lookedAt: reached, more: reached < end };
  }

  /** Puts thinner blocks in the place of some, at their positions and with their times. */
  thin(blocks: readonly { readonly row: ThinnableRow; readonly block: ThinnedBlock }[]): void {
    this.#ahead = undefined;
    // All go before the first comes back: only pages that become empty are given up at once.
    for (const { row } of blocks) this.#sql.remove.run(row.seq, row.seq);
    for (const { row, block } of blocks) {
      const { samples, thinned, body } = block;
      const crc = rowCrc({ ...row, samples, thinned }, bodyCrc(body));
      this.#sql.putBack.run({ ...row, crc, samples, thinned, body });
      this.#count(0, body.length - row.body.length, samples - row.samples);
    }
  }

  /** Replaces one record that the cloud will not take by a gap. */
  refuse(seq: number): GapSummary | undefined {
    const row = this.#sql.before.get(seq + this.#offset + 1);
    if (!row || row.seq !== seq + this.#offset || row.kind === BODY_GAP) return undefined;
    const gap = lossOf(row, 'refused');
    this.#sql.quarantine.run(this.lane, seq, gap.reason, row.body);
    this.#replace(row.seq, row.seq, gap);
    return gap;
  }

  /** Lets positions start again at 1 with the oldest record, because an epoch ends. */
  renumber(endedEpoch: string): void {
    this.#ahead = undefined;
    const before = (this.#sql.oldest.get()?.seq ?? this.#maxRow + 1) - 1;
    this.#origins.endEpoch(endedEpoch, this.#offset, before + 1, this.#maxRow);
    this.#offset = before;
    this.#meta.set(`offset.${this.lane}`, this.#offset);
  }

  #replaceMerged(run: { first: number; last: number; gap: GapSummary }, boundary: number): void {
    const before = this.#sql.before.get(run.first);
    const mergeable =
      before?.kind === BODY_GAP && before.seq > boundary && before.seq_to === run.first - 1 && this.#isSound(before);
    const gap = mergeable ? readGap(before.body) : undefined;
    if (before && gap && gap.reason === run.gap.reason) this.#replace(before.seq, run.last, joinGaps(gap, run.gap));
    else this.#replace(run.first, run.last, run.gap);
  }

  #replace(first: number, last: number, gap: GapSummary): void {
    this.#ahead = undefined;
    const replaced = this.#sql.range.get(first, last);
    this.#sql.remove.run(first, last);
    this.#count(-(replaced?.records ?? 0), -(replaced?.bytes ?? 0), -(replaced?.samples ?? 0));
    this.#insertGap(first, last, gap, this.#bootId);
  }

  #cutIfBeyond(row: StoredRow | undefined, at: number): void {
    if (row?.kind === BODY_GAP && this.#isSound(row) && row.seq_to > at) this.#cutGap(row, at);
  }

  /** Makes two gaps of one: up to and including a row, and beyond it. Its samples are shared out by positions. */
  #cutGap(row: StoredRow, at: number): void {
    this.#ahead = undefined;
    const gap = readGap(row.body);
    const records = row.seq_to - at;
    const samples = Math.round((gap.samples * records) / (row.seq_to - row.seq + 1));
    this.#sql.remove.run(row.seq, row.seq);
    this.#count(-1, -row.body.length, -row.samples);
    this.#insertGap(row.seq, at, { ...gap, records: at - row.seq + 1, samples: gap.samples - samples }, row.boot_id);
    this.#insertGap(at + 1, row.seq_to, { ...gap, records, samples }, row.boot_id);
  }

  /** The samples of a gap are gone, so its row counts none; its body says how many there were. */
  #insertGap(first: number, last: number, gap: GapSummary, bootId: string): void {
    const { crc: crcOfBody, kind, body, fromMs, toMs } = gapRecord(gap);
    const row = { seq: first, seq_to: last, kind, samples: 0, from_ms: fromMs, to_ms: toMs, boot_id: bootId };
    this.#sql.insert.run(first, last, rowCrc(row, crcOfBody), bootId, kind, 0, fromMs, toMs, body);
    this.#count(1, body.length, 0);
  }

  #insertRows(
    statement: LaneStatements['append'],
    records: readonly NewRecord[],
    from: number,
    count: number,
    bootId: string,
  ): void {
    const values: unknown[] = [];
    let bytes = 0;
    let samples = 0;
    for (let i = from; i < from + count; i += 1) {
      const record = records[i] as NewRecord;
      const { kind, samples: inside, fromMs, toMs, thinned = 0, body } = record;
      // The counter of AUTOINCREMENT gives the row after the highest; if its damage gives another, the CRC tells.
      const seq = this.#maxRow + 1 + i - from;
      const row = { seq, seq_to: 0, kind, samples: inside, from_ms: fromMs, to_ms: toMs, boot_id: bootId, thinned };
      values.push(rowCrc(row, record.crc), kind, inside, fromMs, toMs, thinned, body);
      bytes += body.length;
      samples += inside;
    }
    this.#maxRow = Number(statement.run({ boot_id: bootId }, values).lastInsertRowid);
    this.#count(count, bytes, samples);
  }

  #isSound(row: StoredRow): boolean {
    return isSoundRow(row, this.lane);
  }

  #toRecord(row: StoredRow): StoredRecord {
    const origin = row.kind === BODY_GAP ? undefined : this.#origins.of(row.seq);
    return {
      ...(origin && { origin }),
      seq: row.seq - this.#offset,
      seqTo: row.seq_to === 0 ? 0 : row.seq_to - this.#offset,
      // Of the body alone, as it was when it was written: the row's own has been checked.
      crc: rowCrc(row, row.crc),
      bootId: row.boot_id,
      kind: row.kind,
      body: row.body,
      samples: row.samples,
      fromMs: row.from_ms,
      toMs: row.to_ms,
      ...(row.thinned ? { thinned: row.thinned } : {}),
    };
  }

  #count(records: number, bytes: number, samples: number): void {
    this.#records += records;
    this.#bytes += bytes;
    this.#samples += samples;
  }
}
