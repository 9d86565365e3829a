import { outrider } from '@outrider/shared/messages';
import type { Statement } from 'better-sqlite3';
import type { Db } from './database.ts';
import type { LaneName, StoredRow } from './records.ts';

const { BODY_GAP } = outrider.v1.BodyKind;
/** Most records in one batch, whatever their size: it bounds what one call of `next` holds in memory. */
const RECORDS_PER_BATCH_MAX = 2000;
/** More save little and bind slower. */
export const ROWS_PER_INSERT = 10;

type Victim = Omit<StoredRow, 'body' | 'crc' | 'boot_id'> & { readonly bytes: number };

/** A block that may be replaced by a thinner one. */
export interface ThinnableRow extends StoredRow {
  readonly written_ms: number;
}

/** The statements of a lane's table. */
export interface LaneStatements {
  readonly insert: Statement<[number, number, number, string, number, number, number, number, Uint8Array]>;
  readonly append: Statement<[{ readonly boot_id: string }, unknown[]]>;
  readonly appendMany: Statement<[{ readonly boot_id: string }, unknown[]]>;
  readonly after: Statement<[number], StoredRow>;
  readonly before: Statement<[number], StoredRow>;
  readonly victims: Statement<[number, number], Victim>;
  readonly thinnable: Statement<[number, number, number, number], ThinnableRow>;
  readonly putBack: Statement<[Required<Omit<ThinnableRow, 'body'>> & { readonly body: Uint8Array }]>;
  readonly remove: Statement<[number, number]>;
  readonly totals: Statement<[], { records: number; bytes: number | null; samples: number | null }>;
  readonly range: Statement<[number, number], { records: number; bytes: number | null; samples: number | null }>;
  readonly nth: Statement<[number, number], { seq: number }>;
  readonly oldest: Statement<[], { seq: number; written_ms: number }>;
  readonly highest: Statement<[], { seq: number | null }>;
  readonly quarantine: Statement<[string, number, string, Uint8Array]>;
}

export function prepareLane(db: Db, lane: LaneName): LaneStatements {
  const columns = 'seq_to, crc, boot_id, kind, samples, from_ms, to_ms, thinned, body';
  const totals = 'COUNT(*) AS records, SUM(LENGTH(body)) AS bytes, SUM(samples) AS samples';
  // Bound once for all rows of a statement; the rest row by row.
  const values = '(0, ?, @boot_id, ?, ?, ?, ?, ?, ?)';
  const many = Array.from({ length: ROWS_PER_INSERT }, () => values).join(', ');
  return {
    insert: db.prepare(`INSERT INTO ${lane} (seq, ${columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)`),
    append: db.prepare(`INSERT INTO ${lane} (${columns}) VALUES ${values}`),
    appendMany: db.prepare(`INSERT INTO ${lane} (${columns}) VALUES ${many}`),
    after: db.prepare(`SELECT * FROM ${lane} WHERE seq > ? ORDER BY seq LIMIT ${RECORDS_PER_BATCH_MAX}`),
    before: db.prepare(`SELECT * FROM ${lane} WHERE seq < ? ORDER BY seq DESC LIMIT 1`),
    victims: db.prepare(
      `SELECT seq, seq_to, kind, samples, from_ms, to_ms, thinned, LENGTH(body) AS bytes FROM ${lane}
       WHERE seq > ? AND kind <> ${BODY_GAP} ORDER BY seq LIMIT ?`,
    ),
    thinnable: db.prepare(
      `SELECT * FROM ${lane}
       WHERE seq BETWEEN ? AND ? AND kind <> ${BODY_GAP} AND thinned = 0 AND samples >= ? ORDER BY seq LIMIT ?`,
    ),
    putBack: db.prepare(
      `INSERT INTO ${lane} (seq, ${columns}, written_ms)
       VALUES (@seq, 0, @crc, @boot_id, @kind, @samples, @from_ms, @to_ms, @thinned, @body, @written_ms)`,
    ),
    remove: db.prepare(`DELETE FROM ${lane} WHERE seq BETWEEN ? AND ?`),
    totals: db.prepare(`SELECT ${totals} FROM ${lane}`),
    range: db.prepare(`SELECT ${totals} FROM ${lane} WHERE seq BETWEEN ? AND ?`),
    nth: db.prepare(`SELECT seq FROM ${lane} WHERE seq <= ? ORDER BY seq LIMIT 1 OFFSET ?`),
    oldest: db.prepare(`SELECT seq, written_ms FROM ${lane} ORDER BY seq LIMIT 1`),
    highest: db.prepare(
      // As SQLite decides it: by its counter, or by the rows when they are beyond it.
      `SELECT MAX(seq) AS seq FROM (SELECT seq FROM sqlite_sequence WHERE name = '${lane}' UNION ALL SELECT MAX(seq) FROM ${lane})`,
    ),
    quarantine: db.prepare('INSERT INTO quarantine (lane, seq, reason, body) VALUES (?, ?, ?, ?)'),
  };
}
