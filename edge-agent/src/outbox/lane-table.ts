import { outrider } from '@outrider/shared/messages';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import type { Statement } from 'better-sqlite3';
import type { Db, Meta } from './database.ts';
import {
  type GapSummary,
  gapRecord,
  joinGaps,
  LANE_BODY_KINDS,
  type LaneName,
  type NewRecord,
  readGap,
  type StoredRecord,
} from './records.ts';

const { BODY_GAP } = outrider.v1.BodyKind;
/** Most records in one batch, whatever their size: it bounds what one call of `next` holds in memory. */
const RECORDS_PER_BATCH_MAX = 2000;
const QUARANTINED_ROWS_MAX = 100;
/** More save little and bind slower. */
const ROWS_PER_INSERT = 10;

interface Row {
  readonly seq: number;
  readonly seq_to: number;
  readonly crc: number;
  readonly boot_id: string;
  readonly kind: number;
  readonly samples: number;
  readonly from_ms: number;
  readonly to_ms: number;
  readonly body: Buffer;
}

/** What a lane holds. */
export interface LaneStats {
  /** Rows waiting for the cloud's acknowledgement, gaps included. */
  readonly records: number;
  readonly bytes: number;
  readonly samples: number;
  /** Highest position ever given out; 0 when none was. */
  readonly maxSeq: number;
  /** When the oldest record began, by the wall clock; 0 when the lane is empty. */
  readonly oldestMs: number;
}

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
  readonly #insert: Statement<[number, number, number, string, number, number, number, number, Uint8Array]>;
  readonly #append: Statement<unknown[]>;
  readonly #appendMany: Statement<unknown[]>;
  readonly #after: Statement<[number], Row>;
  readonly #before: Statement<[number], Row>;
  readonly #victims: Statement<[number, number], Omit<Row, 'body' | 'crc' | 'boot_id'> & { bytes: number }>;
  readonly #remove: Statement<[number, number]>;
  readonly #totals: Statement<[], { records: number; bytes: number | null; samples: number | null }>;
  readonly #range: Statement<[number, number], { records: number; bytes: number | null; samples: number | null }>;
  readonly #nth: Statement<[number, number], { seq: number }>;
  readonly #oldest: Statement<[], { seq: number; from_ms: number }>;
  readonly #highest: Statement<[], { seq: number }>;
  readonly #quarantine: Statement<[string, number, string, Uint8Array]>;
  #records = 0;
  #bytes = 0;
  #samples = 0;
  #maxRow = 0;
  #offset = 0;

  constructor(db: Db, meta: Meta, lane: LaneName, bootId: string) {
    this.lane = lane;
    this.#meta = meta;
    this.#bootId = bootId;
    const columns = 'seq_to, crc, boot_id, kind, samples, from_ms, to_ms, body';
    const totals = 'COUNT(*) AS records, SUM(LENGTH(body)) AS bytes, SUM(samples) AS samples';
    this.#insert = db.prepare(`INSERT INTO ${lane} (seq, ${columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`);
    const values = '(0, ?, ?, ?, ?, ?, ?, ?)';
    const many = Array.from({ length: ROWS_PER_INSERT }, () => values).join(', ');
    this.#append = db.prepare(`INSERT INTO ${lane} (${columns}) VALUES ${values}`);
    this.#appendMany = db.prepare(`INSERT INTO ${lane} (${columns}) VALUES ${many}`);
    this.#after = db.prepare(`SELECT * FROM ${lane} WHERE seq > ? ORDER BY seq LIMIT ${RECORDS_PER_BATCH_MAX}`);
    this.#before = db.prepare(`SELECT * FROM ${lane} WHERE seq < ? ORDER BY seq DESC LIMIT 1`);
    this.#victims = db.prepare(
      `SELECT seq, seq_to, kind, samples, from_ms, to_ms, LENGTH(body) AS bytes FROM ${lane}
       WHERE seq > ? AND kind <> ${BODY_GAP} ORDER BY seq LIMIT ?`,
    );
    this.#remove = db.prepare(`DELETE FROM ${lane} WHERE seq BETWEEN ? AND ?`);
    this.#totals = db.prepare(`SELECT ${totals} FROM ${lane}`);
    this.#range = db.prepare(`SELECT ${totals} FROM ${lane} WHERE seq BETWEEN ? AND ?`);
    this.#nth = db.prepare(`SELECT seq FROM ${lane} WHERE seq <= ? ORDER BY seq LIMIT 1 OFFSET ?`);
    this.#oldest = db.prepare(`SELECT seq, from_ms FROM ${lane} ORDER BY seq LIMIT 1`);
    this.#highest = db.prepare(`SELECT seq FROM sqlite_sequence WHERE name = '${lane}'`);
    this.#quarantine = db.prepare('INSERT INTO quarantine (lane, seq, reason, body) VALUES (?, ?, ?, ?)');
    db.exec(`DELETE FROM quarantine WHERE id <= (SELECT MAX(id) FROM quarantine) - ${QUARANTINED_ROWS_MAX}`);
    this.reload();
  }

  /** Reads the counters from the file again. */
  reload(): void {
    const totals = this.#totals.get();
    this.#records = totals?.records ?? 0;
    this.#bytes = totals?.bytes ?? 0;
    this.#samples = totals?.samples ?? 0;
    this.#maxRow = this.#highest.get()?.seq ?? 0;
    this.#offset = this.#meta.getNumber(`offset.${this.lane}`);
  }

  get maxSeq(): number {
    return this.#maxRow - this.#offset;
  }

  /** Lowest position still held; one past the highest when the lane is empty. */
  get oldestSeq(): number {
    return (this.#oldest.get()?.seq ?? this.#maxRow + 1) - this.#offset;
  }

  stats(): LaneStats {
    return {
      records: this.#records,
      bytes: this.#bytes,
      samples: this.#samples,
      maxSeq: this.maxSeq,
      oldestMs: this.#oldest.get()?.from_ms ?? 0,
    };
  }

  /** Appends at the end. */
  append(record: NewRecord, bootId = this.#bootId): void {
    this.#insertRows(this.#append, [record], 0, 1, bootId);
  }

  /** Appends at the end, in this order. */
  appendAll(records: readonly NewRecord[]): void {
    let done = 0;
    // Several rows in one statement: AUTOINCREMENT reads and writes its counter once per statement.
    for (; records.length - done >= ROWS_PER_INSERT; done += ROWS_PER_INSERT)
      this.#insertRows(this.#appendMany, records, done, ROWS_PER_INSERT, this.#bootId);
    for (; done < records.length; done += 1) this.#insertRows(this.#append, records, done, 1, this.#bootId);
  }

  /** Appends a gap for something that never got a position of its own, or lost it with a damaged file. */
  appendGap(gap: GapSummary): void {
    this.#maxRow += 1;
    this.#insertGap(this.#maxRow, this.#maxRow, gap, this.#bootId);
  }

  /**
   * Rows after a position, in order, until `bytesMax` is reached; at least one when there is one. Each body is
   * checked against its CRC: a damaged row is replaced by a gap and kept in quarantine, never returned as good. A
   * hole in the positions becomes a gap too.
   *
   * @returns `repaired` when rows were replaced: the caller's transaction must then be committed before sending.
   */
  next(afterSeq: number, bytesMax: number): { records: StoredRecord[]; repaired: GapSummary | undefined } {
    const records: StoredRecord[] = [];
    let repaired: GapSummary | undefined;
    let bytes = 0;
    let expected = afterSeq + this.#offset + 1;
    for (const row of this.#after.iterate(afterSeq + this.#offset)) {
      if (row.seq !== expected) {
        const hole = { reason: 'missing', records: row.seq - expected, samples: 0, fromMs: 0, toMs: 0 } as const;
        return { records, repaired: this.#pendingRepair(expected, row.seq - 1, hole) };
      }
      if (!this.#isSound(row)) {
        const { samples, from_ms: fromMs, to_ms: toMs } = row;
        repaired = { reason: 'checksum', records: 1, samples, fromMs, toMs };
        return { records, repaired: this.#pendingRepair(row.seq, Math.max(row.seq, row.seq_to), repaired, row.body) };
      }
      if (records.length > 0 && bytes + row.body.length > bytesMax) break;
      bytes += row.body.length;
      records.push(this.#toRecord(row));
      expected = Math.max(row.seq, row.seq_to) + 1;
    }
    return { records, repaired };
  }

  /** A repair that `next` found, to be made once its cursor is closed. */
  #repair: (() => void) | undefined;

  #pendingRepair(first: number, last: number, gap: GapSummary, body?: Uint8Array): GapSummary {
    this.#repair = () => {
      if (body) this.#quarantine.run(this.lane, first - this.#offset, gap.reason, body);
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
    const nth = this.#nth.get(limit, rowsMax - 1)?.seq;
    const row = nth ?? limit;
    const covered = this.#range.get(0, row);
    if (!covered || covered.records === 0) return { records: 0, samples: 0, more: false };
    const last = this.#before.get(row + 1);
    this.#remove.run(0, row);
    this.#count(-covered.records, -(covered.bytes ?? 0), -(covered.samples ?? 0));
    if (last && last.kind === BODY_GAP && last.seq_to > limit) {
      const gap = readGap(last.body);
      const share = (last.seq_to - limit) / (last.seq_to - last.seq + 1);
      const rest = { ...gap, records: last.seq_to - limit, samples: Math.round(gap.samples * share) };
      this.#insertGap(limit + 1, last.seq_to, rest, last.boot_id);
    }
    return { records: covered.records, samples: covered.samples ?? 0, more: nth !== undefined && nth < limit };
  }

  /**
   * Replaces the oldest records by gaps, merged with gaps before them.
   *
   * @param bytesToFree Stops once the bodies that went had this many.
   * @param protectedUpto Nothing up to here is touched: it is in flight, and what was sent must not change.
   * @param maybeSentUpto Up to here the cloud may hold records already, so their gaps stay one record wide: its
   *   watermark may end at any of them.
   */
  evict(recordsMax: number, bytesToFree: number, protectedUpto: number, maybeSentUpto: number): GapSummary | undefined {
    const rows = this.#victims.all(protectedUpto + this.#offset, recordsMax);
    const boundary = maybeSentUpto + this.#offset;
    let total: GapSummary | undefined;
    let run: { first: number; last: number; gap: GapSummary } | undefined;
    let freed = 0;
    for (const row of rows) {
      if (freed >= bytesToFree) break;
      freed += row.bytes;
      const { samples, from_ms: fromMs, to_ms: toMs } = row;
      const gap: GapSummary = { reason: 'evicted', records: 1, samples, fromMs, toMs };
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

  /** Replaces one record that the cloud will not take by a gap. */
  refuse(seq: number): GapSummary | undefined {
    const row = this.#before.get(seq + this.#offset + 1);
    if (!row || row.seq !== seq + this.#offset || row.kind === BODY_GAP) return undefined;
    const { samples, from_ms: fromMs, to_ms: toMs } = row;
    const gap: GapSummary = { reason: 'refused', records: 1, samples, fromMs, toMs };
    this.#quarantine.run(this.lane, seq, gap.reason, row.body);
    this.#replace(row.seq, row.seq, gap);
    return gap;
  }

  /** Lets positions start again at 1 with the oldest record, for a new epoch. */
  renumber(): void {
    const oldest = this.#oldest.get();
    this.#offset = oldest ? oldest.seq - 1 : this.#maxRow;
    this.#meta.set(`offset.${this.lane}`, this.#offset);
  }

  #replaceMerged(run: { first: number; last: number; gap: GapSummary }, boundary: number): void {
    const before = this.#before.get(run.first);
    const mergeable =
      before?.kind === BODY_GAP &&
      before.seq > boundary &&
      before.seq_to === run.first - 1 &&
      before.crc === bodyCrc(before.body);
    const gap = mergeable ? readGap(before.body) : undefined;
    if (before && gap && gap.reason === run.gap.reason) this.#replace(before.seq, run.last, joinGaps(gap, run.gap));
    else this.#replace(run.first, run.last, run.gap);
  }

  #replace(first: number, last: number, gap: GapSummary): void {
    const replaced = this.#range.get(first, last);
    this.#remove.run(first, last);
    this.#count(-(replaced?.records ?? 0), -(replaced?.bytes ?? 0), -(replaced?.samples ?? 0));
    this.#insertGap(first, last, gap, this.#bootId);
  }

  /** The samples of a gap are gone, so its row counts none; its body says how many there were. */
  #insertGap(first: number, last: number, gap: GapSummary, bootId: string): void {
    const { crc, body, fromMs, toMs } = gapRecord(gap);
    this.#insert.run(first, last, crc, bootId, BODY_GAP, 0, fromMs, toMs, body);
    this.#count(1, body.length, 0);
  }

  #insertRows(
    statement: Statement<unknown[]>,
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
      values.push(record.crc, bootId, record.kind, record.samples, record.fromMs, record.toMs, record.body);
      bytes += record.body.length;
      samples += record.samples;
    }
    this.#maxRow = Number(statement.run(values).lastInsertRowid);
    this.#count(count, bytes, samples);
  }

  #isSound(row: Row): boolean {
    const kindFits = row.kind === BODY_GAP ? row.seq_to >= row.seq : row.kind === LANE_BODY_KINDS[this.lane];
    return kindFits && row.crc === bodyCrc(row.body);
  }

  #toRecord(row: Row): StoredRecord {
    return {
      seq: row.seq - this.#offset,
      seqTo: row.seq_to === 0 ? 0 : row.seq_to - this.#offset,
      crc: row.crc,
      bootId: row.boot_id,
      kind: row.kind,
      body: row.body,
      samples: row.samples,
      fromMs: row.from_ms,
      toMs: row.to_ms,
    };
  }

  #count(records: number, bytes: number, samples: number): void {
    this.#records += records;
    this.#bytes += bytes;
    this.#samples += samples;
  }
}
