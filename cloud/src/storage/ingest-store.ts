import { outrider } from '@outrider/shared/messages';
import type { IngestStore, LaneOutcome, LaneWork, StrayBody } from '../telemetry/ingest-ports.ts';
import type { EventLaneRecord, LaneRecord, TelemetryRecord } from '../telemetry/record.ts';
import { advance, equalBytes, type LaneCursor, type LaneVerdict } from '../telemetry/watermark.ts';
import type { Database, Tx } from './database.ts';
import { addEnergy } from './energy-rows.ts';
import { type OnInvalidEvent, storeLaneEvents, storeTelemetryEvents } from './ingest-events.ts';
import { originOf, settleOrigins } from './ingest-origins.ts';
import {
  insertBlocks,
  insertEvents,
  insertGaps,
  insertQuarantined,
  longestPerStart,
  type Placed,
  upsertLatest,
  upsertStates,
} from './ingest-rows.ts';

const { Lane } = outrider.v1;

/** A lane in the middle of a commit. */
interface OpenLane {
  readonly work: LaneWork;
  readonly verdict: LaneVerdict<LaneRecord>;
  readonly isResent: boolean;
}

type LanePlace = Pick<LaneWork, 'robot' | 'epoch' | 'lane'>;

const NO_CURSOR: LaneCursor & { readonly isResent: boolean } = { upto: 0, ahead: [], isResent: false };

const laneKey = (robotPk: number, epoch: string, lane: number): string => `${robotPk}/${epoch}/${lane}`;

/** Stores batches of many robots, each position once. */
export class SqlIngestStore implements IngestStore {
  readonly #database: Database;
  readonly #onInvalidEvent: OnInvalidEvent;

  constructor(database: Database, onInvalidEvent: OnInvalidEvent = () => undefined) {
    this.#database = database;
    this.#onInvalidEvent = onInvalidEvent;
  }

  async commit(work: readonly LaneWork[], nowMs: number): Promise<LaneOutcome[]> {
    if (work.length === 0) return [];
    return await this.#database.transaction(async (tx) => {
      const cursors = await lockCursors(tx, work, nowMs);
      const lanes = work.map((entry): OpenLane => {
        const cursor = cursors.get(laneKey(entry.robot.robotPk, entry.epoch, entry.lane)) ?? NO_CURSOR;
        return { work: entry, verdict: advance(cursor, entry.records), isResent: cursor.isResent };
      });
      const clashes = await compareWithStored(tx, lanes);
      const fresh = lanes.flatMap(({ work, verdict, isResent }) =>
        verdict.fresh.map((record) => ({ ...work, record, isResent })),
      );
      const known = await settleOrigins(tx, fresh, nowMs);
      const unknown = fresh.filter(({ record }) => !known.has(record));
      await allOf([storeFresh(tx, unknown, nowMs, this.#onInvalidEvent), moveCursors(tx, lanes, nowMs)]);
      return lanes.map((lane) => outcome(lane, clashes, known));
    });
  }

  async quarantine(stray: StrayBody, nowMs: number): Promise<void> {
    await insertQuarantined(this.#database, [{ ...stray, epoch: null, lane: null, seq: null }], nowMs);
  }

  async watermarks(robotPk: number, epoch: string): Promise<{ lane: number; upto: number }[]> {
    return await this.#database.query<{ lane: number; upto: number }>(
      'select lane, upto from ingest_cursor where robot_pk = $1 and epoch = $2',
      [robotPk, epoch],
    );
  }

  async acceptForgotten(robotPk: number, epoch: string, lane: number, oldestSeq: number, nowMs: number): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const robot = { robotPk, tenantId: '', robotId: '' };
      const cursors = await lockCursors(tx, [{ robot, epoch, lane, records: [] }], nowMs);
      const cursor = cursors.get(laneKey(robotPk, epoch, lane)) ?? NO_CURSOR;
      if (cursor.upto >= oldestSeq - 1) return;
      const gap: LaneRecord = {
        kind: 'gap',
        seq: cursor.upto + 1,
        seqTo: oldestSeq - 1,
        hash: new Uint8Array(0),
        bootId: '',
        reason: 'acknowledged before, unknown to this database',
        samples: 0,
        fromMs: nowMs,
        toMs: nowMs,
      };
      const work = { robot, epoch, lane, records: [gap] };
      await storeFresh(tx, [{ ...work, record: gap }], nowMs, this.#onInvalidEvent);
      await moveCursors(tx, [{ work, verdict: advance(cursor, [gap]), isResent: false }], nowMs);
    });
  }
}

/** The lanes of the work, and those that its records were in before: they must not be filled meanwhile. */
function placesOf(work: readonly LaneWork[]): Map<string, LanePlace & { isResent: boolean }> {
  const places = new Map<string, LanePlace & { isResent: boolean }>();
  for (const { robot, epoch, lane, records } of work) {
    const key = laneKey(robot.robotPk, epoch, lane);
    if (!places.has(key)) places.set(key, { robot, epoch, lane, isResent: false });
    for (const record of records) {
      const origin = originOf(epoch, record);
      if (!origin) continue;
      places.set(laneKey(robot.robotPk, origin.epoch, lane), { robot, epoch: origin.epoch, lane, isResent: true });
    }
  }
  return places;
}

/** Creates and locks the cursor rows, in one order for everybody, so that replicas wait and never deadlock. */
async function lockCursors(
  tx: Tx,
  work: readonly LaneWork[],
  nowMs: number,
): Promise<Map<string, LaneCursor & { readonly isResent: boolean }>> {
  const places = [...placesOf(work).values()];
  const keys = [
    places.map(({ robot }) => robot.robotPk),
    places.map(({ epoch }) => epoch),
    places.map(({ lane }) => lane),
  ];
  const rows = await tx.query<{
    robot_pk: number;
    epoch: string;
    lane: number;
    upto: number;
    max_seen: number;
    is_resent: boolean;
  }>(
    `insert into ingest_cursor (robot_pk, epoch, lane, is_resent, updated_at)
     select robot_pk, epoch, lane, is_resent = 1, to_timestamp($5::float8 / 1000)
       from unnest($1::int8[], $2::text[], $3::int4[], $4::int4[]) as u (robot_pk, epoch, lane, is_resent)
      order by robot_pk, epoch, lane
     on conflict (robot_pk, epoch, lane) do update
        set updated_at = excluded.updated_at, is_resent = ingest_cursor.is_resent or excluded.is_resent
     returning robot_pk, epoch, lane, upto, max_seen, is_resent`,
    [...keys, places.map(({ isResent }) => (isResent ? 1 : 0)), nowMs],
  );
  const ahead = new Map<string, { from: number; to: number; hash: Uint8Array }[]>();
  if (rows.some((row) => row.max_seen > row.upto)) {
    const ranges = await tx.query<{
      robot_pk: number;
      epoch: string;
      lane: number;
      seq_from: number;
      seq_to: number;
      content_hash: Uint8Array;
    }>(
      `select robot_pk, epoch, lane, seq_from, seq_to, content_hash
         from ingest_ahead join unnest($1::int8[], $2::text[], $3::int4[]) as u (robot_pk, epoch, lane)
        using (robot_pk, epoch, lane)`,
      keys,
    );
    for (const row of ranges) {
      const key = laneKey(row.robot_pk, row.epoch, row.lane);
      const list = ahead.get(key) ?? [];
      list.push({ from: row.seq_from, to: row.seq_to, hash: row.content_hash });
      ahead.set(key, list);
    }
  }
  return new Map(
    rows.map((row) => {
      const key = laneKey(row.robot_pk, row.epoch, row.lane);
      return [key, { upto: row.upto, ahead: ahead.get(key) ?? [], isResent: row.is_resent }];
    }),
  );
}

/** Records that the watermark has passed and whose stored content is another one. */
async function compareWithStored(tx: Tx, lanes: readonly OpenLane[]): Promise<Set<LaneRecord>> {
  const clashes = new Set<LaneRecord>();
  for (const [kind, table, lane] of [
    ['telemetry', 'telemetry_block', Lane.LANE_TELEMETRY],
    ['event', 'robot_event', Lane.LANE_EVENT],
  ] as const) {
    const passed = lanes.flatMap(({ work, verdict }) =>
      verdict.passed
        .filter((record): record is TelemetryRecord | EventLaneRecord => record.kind === kind)
        .map((record) => ({ robotPk: work.robot.robotPk, epoch: work.epoch, record })),
    );
    if (passed.length === 0) continue;
    const rows = await tx.query<{ robot_pk: number; epoch: string; seq: number; content_hash: Uint8Array }>(
      `with u as (select * from unnest($1::int8[], $2::text[], $3::int8[]) as u (robot_pk, epoch, seq))
       select t.robot_pk, t.epoch, t.seq, t.content_hash from ${table} t join u using (robot_pk, epoch, seq)
       union all
       select o.robot_pk, o.epoch, o.seq, o.content_hash
         from ingest_origin o join u using (robot_pk, epoch, seq) where o.lane = $4`,
      [
        passed.map((entry) => entry.robotPk),
        passed.map((entry) => entry.epoch),
        passed.map((entry) => entry.record.seq),
        lane,
      ],
    );
    const stored = new Map(rows.map((row) => [laneKey(row.robot_pk, row.epoch, row.seq), row.content_hash]));
    for (const { robotPk, epoch, record } of passed) {
      const hash = stored.get(laneKey(robotPk, epoch, record.seq));
      if (hash && !equalBytes(hash, record.hash)) clashes.add(record);
    }
  }
  return clashes;
}

/** What PostgreSQL answers to whatever follows a statement that failed. */
const TRANSACTION_ABORTED = '25P02';

/**
 * Statements that need nothing of each other, sent without waiting for the answers between them. All have ended when it
 * returns: one that came late would find the transaction over.
 *
 * @throws what failed first, not what failed because of it.
 */
async function allOf(statements: readonly Promise<void>[]): Promise<void> {
  const ends = await Promise.allSettled(statements);
  const errors = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as { code?: unknown }] : []));
  if (errors.length > 0) throw errors.find(({ code }) => code !== TRANSACTION_ABORTED) ?? errors[0];
}

async function storeFresh(
  tx: Tx,
  fresh: readonly Placed<LaneRecord>[],
  nowMs: number,
  onInvalidEvent: OnInvalidEvent,
): Promise<void> {
  const ofKind = <K extends LaneRecord['kind']>(kind: K) =>
    fresh.filter(
      (entry): entry is typeof entry & { record: Extract<LaneRecord, { kind: K }> } => entry.record.kind === kind,
    );
  const telemetry = ofKind('telemetry');
  const events = ofKind('event');
  const poison = ofKind('poison').map(({ robot, epoch, lane, record }) => ({
    robotPk: robot.robotPk,
    topic: '',
    epoch,
    lane,
    seq: record.seq,
    reason: record.reason,
    body: record.body,
  }));
  await allOf([
    insertBlocks(tx, telemetry, nowMs),
    upsertLatest(tx, telemetry, nowMs),
    addEnergy(tx, telemetry, nowMs),
    storeTelemetryEvents(tx, telemetry, nowMs),
    insertEvents(tx, events, nowMs),
    storeLaneEvents(tx, events, nowMs, onInvalidEvent),
    upsertStates(tx, ofKind('state'), nowMs),
    insertGaps(tx, ofKind('gap'), nowMs),
    insertQuarantined(tx, poison, nowMs),
  ]);
}

async function moveCursors(tx: Tx, lanes: readonly OpenLane[], nowMs: number): Promise<void> {
  const moved = lanes.filter(({ verdict }) => verdict.fresh.length > 0);
  if (moved.length === 0) return;
  const keys = [
    moved.map(({ work }) => work.robot.robotPk),
    moved.map(({ work }) => work.epoch),
    moved.map(({ work }) => work.lane),
  ];
  await tx.query(
    `update ingest_cursor c
        set upto = u.upto, max_seen = greatest(c.max_seen, u.max_seen), updated_at = to_timestamp($6::float8 / 1000)
       from unnest($1::int8[], $2::text[], $3::int4[], $4::int8[], $5::int8[]) as u (robot_pk, epoch, lane, upto, max_seen)
      where (c.robot_pk, c.epoch, c.lane) = (u.robot_pk, u.epoch, u.lane)`,
    [...keys, moved.map(({ verdict }) => verdict.upto), moved.map(({ verdict }) => verdict.maxSeen), nowMs],
  );
  const held = moved.filter(({ verdict }) => verdict.hadAhead);
  if (held.length > 0) {
    await tx.query(
      `delete from ingest_ahead a
        using unnest($1::int8[], $2::text[], $3::int4[], $4::int8[]) as u (robot_pk, epoch, lane, upto)
        where (a.robot_pk, a.epoch, a.lane) = (u.robot_pk, u.epoch, u.lane) and a.seq_to <= u.upto`,
      [
        held.map(({ work }) => work.robot.robotPk),
        held.map(({ work }) => work.epoch),
        held.map(({ work }) => work.lane),
        held.map(({ verdict }) => verdict.upto),
      ],
    );
  }
  const ahead = longestPerStart(
    moved.flatMap(({ work, verdict }) => verdict.ahead.map((record) => ({ ...work, record }))),
  );
  if (ahead.length === 0) return;
  await tx.query(
    `insert into ingest_ahead (robot_pk, epoch, lane, seq_from, seq_to, content_hash)
     select robot_pk, epoch, lane, seq_from, seq_to, decode(hash, 'hex')
       from unnest($1::int8[], $2::text[], $3::int4[], $4::int8[], $5::int8[], $6::text[])
         as u (robot_pk, epoch, lane, seq_from, seq_to, hash)
     on conflict (robot_pk, epoch, lane, seq_from)
     do update set seq_to = greatest(ingest_ahead.seq_to, excluded.seq_to), content_hash = excluded.content_hash`,
    [
      ahead.map(({ robot }) => robot.robotPk),
      ahead.map(({ epoch }) => epoch),
      ahead.map(({ lane }) => lane),
      ahead.map(({ record }) => record.seq),
      ahead.map(({ record }) => record.seqTo),
      ahead.map(({ record }) => Buffer.from(record.hash).toString('hex')),
    ],
  );
}

function outcome(
  { work, verdict }: OpenLane,
  clashes: ReadonlySet<LaneRecord>,
  known: ReadonlySet<LaneRecord>,
): LaneOutcome {
  const stored = verdict.fresh.filter((record) => !known.has(record));
  const again = verdict.duplicates.length + verdict.fresh.length - stored.length;
  const passed = verdict.passed.filter((record) => clashes.has(record));
  const colliding = [...verdict.collisions, ...passed];
  const firstCollision = colliding.reduce((min, record) => Math.min(min, record.seq), Number.POSITIVE_INFINITY);
  return {
    robot: work.robot,
    epoch: work.epoch,
    lane: work.lane,
    upto: Math.min(verdict.upto, firstCollision - 1),
    collision: colliding.length > 0,
    stored,
    duplicates: again + verdict.passed.length - passed.length,
    collisions: colliding.length,
    deferred: verdict.deferred.length,
  };
}
