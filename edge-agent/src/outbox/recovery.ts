import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import { Database, type Db, isIdentitySound, Meta, type RecentEvents } from './database.ts';
import type { LaneTable } from './lane-table.ts';
import { Origins } from './origins.ts';
import { isSoundRow, type LaneName, type NewRecord, type Origin, readGap, type StoredRow } from './records.ts';

const { BODY_EVENT, BODY_GAP } = outrider.v1.BodyKind;
/** Nobody else has the damaged file; if somebody has, waiting would only make the agent look stuck. */
const LOCK_TIMEOUT_MS = 100;
/** Facts that stay true when the rows move into a new database. */
const META_TO_KEEP = /^(position\.|protected_spans$)/;

/** The new database, where the copies go. */
interface Target {
  readonly meta: Meta;
  readonly lanes: Readonly<Record<LaneName, LaneTable>>;
  readonly recent: RecentEvents;
}

/**
 * Copies what can still be read, and whose CRC is right, from a damaged database into a new one. What cannot be
 * read becomes a gap, so that the loss shows.
 *
 * The copies are records of a new epoch that say where they were: the cloud may have stored some whose acknowledgement
 * had not arrived.
 */
export function salvage(path: string, db: Db, { meta, lanes, recent }: Target, log: Logger): void {
  let damaged: Db | undefined;
  try {
    damaged = new Database(path, { timeout: LOCK_TIMEOUT_MS });
    damaged.pragma('locking_mode = EXCLUSIVE');
    salvageMeta(damaged, meta);
  } catch (error) {
    log.warn({ path, reason: errorMessage(error) }, 'outbox.salvage_refused');
  }
  for (const lane of Object.values(lanes)) {
    const source = damaged;
    const counts = db.transaction(() =>
      source ? salvageLane(source, lane, recent) : { kept: 0, lost: 0, whole: false },
    )();
    log.warn({ lane: lane.lane, ...counts }, 'outbox.salvaged');
  }
  damaged?.close();
}

function salvageMeta(damaged: Db, meta: Meta): void {
  for (const { key, value } of damaged.prepare<[], { key: string; value: string }>('SELECT key, value FROM meta').all())
    if (META_TO_KEEP.test(key)) meta.set(key, value);
}

function salvageLane(
  damaged: Db,
  lane: LaneTable,
  recent: RecentEvents,
): { kept: number; lost: number; whole: boolean } {
  const originOf = originsIn(damaged, lane.lane);
  const eventIds: string[] = [];
  let kept = 0;
  let lost = 0;
  let expected: number | undefined;
  const hole = (records: number): void => {
    lost += records;
    lane.appendGap({ reason: 'corruption', records, samples: 0, fromMs: 0, toMs: 0 });
  };
  const keep = (row: StoredRow): void => {
    if (expected !== undefined && row.seq > expected) hole(row.seq - expected);
    expected = Math.max(row.seq, row.seq_to) + 1;
    if (!isSoundRow(row, lane.lane)) hole(1);
    else if (row.kind === BODY_GAP) lane.appendGap(readGap(row.body));
    else {
      lane.append(asRecord(row), row.boot_id, originOf(row.seq));
      if (row.kind === BODY_EVENT) eventIds.push(outrider.v1.EventRecord.decode(row.body).eventId);
      kept += 1;
    }
  };
  let whole = readUntilDamage(damaged, lane.lane, 'ASC', keep);
  if (!whole) {
    // The far end may hang from healthy pages: read it backwards, then keep it in order.
    const tail: StoredRow[] = [];
    const reached = expected ?? 1;
    readUntilDamage(damaged, lane.lane, 'DESC', (row) => row.seq >= reached && tail.push(row));
    for (const row of tail.reverse()) keep(row);
  }
  const highest = highestGiven(damaged, lane.lane);
  if (highest === undefined) whole = false;
  else if (highest >= (expected ?? highest + 1)) hole(highest - (expected ?? 0) + 1);
  // Nobody knows how many there were: a gap of 0 records says that there may have been some.
  if (!whole && lost === 0) hole(0);
  lane.saveOrigins();
  // Only of what is there: an event that the damage has taken may still be reported again.
  if (eventIds.length > 0) recent.add(eventIds);
  return { kept, lost, whole };
}

/** @returns Whether the whole lane could be read. */
function readUntilDamage(damaged: Db, lane: LaneName, order: 'ASC' | 'DESC', take: (row: StoredRow) => void): boolean {
  try {
    for (const row of damaged.prepare<[], StoredRow>(`SELECT * FROM ${lane} ORDER BY seq ${order}`).iterate())
      take(row);
    return true;
  } catch (error) {
    if (error instanceof Database.SqliteError) return false;
    throw error;
  }
}

/** Where rows of the damaged database were, as far as it still says so for certain. */
function originsIn(damaged: Db, lane: LaneName): (row: number) => Origin | undefined {
  try {
    const meta = new Meta(damaged);
    const earlier = new Origins(meta, lane);
    const epoch = isIdentitySound(meta) ? meta.get('epoch') : undefined;
    const offset = meta.getNumber(`offset.${lane}`);
    return (row) => earlier.of(row) ?? (epoch && row > offset ? { epoch, seq: row - offset } : undefined);
  } catch (error) {
    if (error instanceof Database.SqliteError) return () => undefined;
    throw error;
  }
}

function highestGiven(damaged: Db, lane: LaneName): number | undefined {
  try {
    return (
      damaged.prepare<[string], { seq: number }>('SELECT seq FROM sqlite_sequence WHERE name = ?').get(lane)?.seq ?? 0
    );
  } catch {
    return undefined;
  }
}

function asRecord(row: StoredRow): NewRecord {
  const { kind, body, samples, from_ms: fromMs, to_ms: toMs, thinned = 0 } = row;
  return { kind, crc: bodyCrc(body), body, samples, fromMs, toMs, thinned };
}
