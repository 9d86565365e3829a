import { outrider } from '@outrider/shared/messages';
import type { LaneRecord, Origin } from '../telemetry/record.ts';
import type { Queryable } from './database.ts';
import type { Placed } from './ingest-rows.ts';

const { LANE_EVENT, LANE_TELEMETRY } = outrider.v1.Lane;

/** A record to be stored, and whether records of its epoch have come under a later one. */
type FreshRow = Placed<LaneRecord> & { readonly isResent: boolean };

/** A record with the position that it is known by. */
type Claim = Placed<LaneRecord> & { readonly origin: Origin };

/**
 * Where a record was first, when that was in another epoch and its content can be compared. Of states the newest wins
 * whatever comes again, and gaps have no content.
 */
export function originOf(epoch: string, record: LaneRecord): Origin | undefined {
  if (record.kind !== 'telemetry' && record.kind !== 'event') return undefined;
  return record.origin && record.origin.epoch !== epoch ? record.origin : undefined;
}

/**
 * Finds records that are stored already under another epoch, and notes all that came from one. The caller holds the
 * cursors of both epochs.
 *
 * A position alone proves nothing, because a robot that was restored from an old copy gives positions out again: the
 * content must be the same.
 */
export async function settleOrigins(
  tx: Queryable,
  fresh: readonly FreshRow[],
  nowMs: number,
): Promise<Set<LaneRecord>> {
  const claims: Claim[] = [];
  const unclaimed: FreshRow[] = [];
  for (const row of fresh) {
    // Of an epoch that has ended a record may still arrive, after it came under the next one.
    const own = row.isResent ? { epoch: row.epoch, seq: row.record.seq } : undefined;
    const origin = originOf(row.epoch, row.record) ?? own;
    if (origin) claims.push({ ...row, origin });
    else unclaimed.push(row);
  }
  const known = new Set<LaneRecord>();
  if (claims.length === 0) return known;
  const contents = await contentsAt(tx, claims);
  for (const row of unclaimed) contents.add(contentKey(row, row.epoch, row.record.seq));
  for (const claim of claims) {
    const first = contentKey(claim, claim.origin.epoch, claim.origin.seq);
    if (contents.has(first)) known.add(claim.record);
    contents.add(first);
    contents.add(contentKey(claim, claim.epoch, claim.record.seq));
  }
  const noted = claims.filter(({ epoch, record }) => known.has(record) || originOf(epoch, record));
  await insertOrigins(tx, noted, nowMs);
  return known;
}

const contentKey = ({ robot, lane, record }: Placed<LaneRecord>, epoch: string, seq: number): string =>
  keyOf(robot.robotPk, epoch, lane, seq, record.hash);

const keyOf = (robotPk: number, epoch: string, lane: number, seq: number, hash: Uint8Array): string =>
  `${robotPk}/${epoch}/${lane}/${seq}/${Buffer.from(hash).toString('hex')}`;

/** What is held under the first positions, or came from them. */
async function contentsAt(tx: Queryable, claims: readonly Claim[]): Promise<Set<string>> {
  const rows = await tx.query<{
    robot_pk: number;
    epoch: string;
    lane: number;
    seq: number;
    content_hash: Uint8Array;
  }>(
    `with u as (
       select distinct * from unnest($1::int8[], $2::text[], $3::int4[], $4::int8[]) as u (robot_pk, epoch, lane, seq))
     select u.*, t.content_hash from u join telemetry_block t using (robot_pk, epoch, seq) where u.lane = $5
     union all
     select u.*, e.content_hash from u join robot_event e using (robot_pk, epoch, seq) where u.lane = $6
     union all
     select u.*, o.content_hash from u join ingest_origin o using (robot_pk, epoch, lane, seq)
     union all
     select u.*, o.content_hash from u join ingest_origin o
         on (o.robot_pk, o.orig_epoch, o.lane, o.orig_seq) = (u.robot_pk, u.epoch, u.lane, u.seq)`,
    [
      claims.map(({ robot }) => robot.robotPk),
      claims.map(({ origin }) => origin.epoch),
      claims.map(({ lane }) => lane),
      claims.map(({ origin }) => origin.seq),
      LANE_TELEMETRY,
      LANE_EVENT,
    ],
  );
  return new Set(rows.map((row) => keyOf(row.robot_pk, row.epoch, row.lane, row.seq, row.content_hash)));
}

async function insertOrigins(tx: Queryable, claims: readonly Claim[], nowMs: number): Promise<void> {
  if (claims.length === 0) return;
  await tx.query(
    `insert into ingest_origin (robot_pk, epoch, lane, seq, orig_epoch, orig_seq, content_hash, ingested_at)
     select robot_pk, epoch, lane, seq, orig_epoch, orig_seq, decode(hash, 'hex'), to_timestamp($8::float8 / 1000)
       from unnest($1::int8[], $2::text[], $3::int4[], $4::int8[], $5::text[], $6::int8[], $7::text[])
         as u (robot_pk, epoch, lane, seq, orig_epoch, orig_seq, hash)
     on conflict do nothing`,
    [
      claims.map(({ robot }) => robot.robotPk),
      claims.map(({ epoch }) => epoch),
      claims.map(({ lane }) => lane),
      claims.map(({ record }) => record.seq),
      claims.map(({ origin }) => origin.epoch),
      claims.map(({ origin }) => origin.seq),
      claims.map(({ record }) => Buffer.from(record.hash).toString('hex')),
      nowMs,
    ],
  );
}
