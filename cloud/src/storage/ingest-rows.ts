import { outrider } from '@outrider/shared/messages';
import { encodeSample, sampleAt } from '@outrider/shared/protocol/block';
import type { LaneWork } from '../telemetry/ingest-ports.ts';
import {
  type EventLaneRecord,
  type GapLaneRecord,
  HASH_BYTES,
  type StateLaneRecord,
  type TelemetryRecord,
} from '../telemetry/record.ts';
import type { Queryable } from './database.ts';

/** A record with where it came from. */
export type Placed<R> = Pick<LaneWork, 'robot' | 'epoch' | 'lane'> & { readonly record: R };

export interface QuarantineRow {
  readonly robotPk: number;
  readonly topic: string;
  readonly epoch: string | null;
  readonly lane: number | null;
  readonly seq: number | null;
  readonly reason: string;
  readonly body: Uint8Array;
}

const QUARANTINE_BODY_BYTES_MAX = 64 * 1024;
/** Past this a robot's poison is counted and no longer kept: it would fill the disk. */
const QUARANTINE_ROWS_PER_ROBOT_MAX = 1000;

/**
 * Many byte strings as one parameter with offsets: text arrays of hexadecimal cost twice the time. In base64 because
 * postgres.js sends a bytea as hexadecimal, which takes five times the processor time here and twice the time in all.
 */
function pack(bodies: readonly Uint8Array[]): { base64: string; starts: number[]; lengths: number[] } {
  const starts: number[] = [];
  let at = 1;
  for (const body of bodies) {
    starts.push(at);
    at += body.length;
  }
  return { base64: base64(bodies), starts, lengths: bodies.map((body) => body.length) };
}

const base64 = (parts: readonly Uint8Array[]): string => Buffer.concat(parts).toString('base64');

/** The bytes behind a parameter. As a subquery, so that they are decoded once and not for each row. */
const bytesOf = (parameter: string): string => `(select decode(${parameter}::text, 'base64'))`;

export async function insertBlocks(
  tx: Queryable,
  rows: readonly Placed<TelemetryRecord>[],
  nowMs: number,
): Promise<void> {
  if (rows.length === 0) return;
  const bodies = pack(rows.map(({ record }) => record.body));
  await tx.query(
    `insert into telemetry_block (robot_pk, epoch, seq, recorded_at, recorded_until, ingested_at, stream, kind, boot_id,
                                  sample_count, content_hash, body, thinned_count)
     select robot_pk, epoch, seq, to_timestamp(first_ms / 1000), to_timestamp(last_ms / 1000),
            to_timestamp($14::float8 / 1000), stream, kind, boot_id, sample_count,
            substr(${bytesOf('$11')}, (position - 1)::int4 * ${HASH_BYTES} + 1, ${HASH_BYTES}),
            substr(${bytesOf('$12')}, start, length), thinned_count
       from unnest($1::int8[], $2::text[], $3::int8[], $4::float8[], $5::float8[], $6::text[], $7::text[], $8::text[],
                   $9::int4[], $10::int4[], $13::int4[], $15::int4[])
            with ordinality as u (robot_pk, epoch, seq, first_ms, last_ms, stream, kind, boot_id, sample_count, start,
                                  length, thinned_count, position)
     on conflict do nothing`,
    [
      rows.map(({ robot }) => robot.robotPk),
      rows.map(({ epoch }) => epoch),
      rows.map(({ record }) => record.seq),
      rows.map(({ record }) => record.span.firstMs),
      rows.map(({ record }) => record.span.lastMs),
      rows.map(({ record }) => record.block.layout.stream),
      rows.map(({ record }) => record.block.layout.kind),
      rows.map(({ record }) => record.bootId),
      rows.map(({ record }) => record.block.count),
      bodies.starts,
      base64(rows.map(({ record }) => record.hash)),
      bodies.base64,
      bodies.lengths,
      nowMs,
      rows.map(({ record: { block } }) => (block.thinnedFrom ?? block.count) - block.count),
    ],
  );
}

/** Keeps the newest sample of each stream. Older data that comes late changes nothing. */
export async function upsertLatest(
  tx: Queryable,
  rows: readonly Placed<TelemetryRecord>[],
  nowMs: number,
): Promise<void> {
  const newest = new Map<string, Placed<TelemetryRecord>>();
  for (const row of rows) {
    const key = `${row.robot.robotPk}/${row.record.block.layout.stream}`;
    const known = newest.get(key);
    if (!known || row.record.span.lastMs >= known.record.span.lastMs) newest.set(key, row);
  }
  if (newest.size === 0) return;
  const list = [...newest.values()];
  const bodies = pack(list.map(({ record }) => encodeSample(sampleAt(record.block, record.span.lastRow))));
  await tx.query(
    `insert into latest_sample (robot_pk, stream, kind, recorded_at, ingested_at, body)
     select robot_pk, stream, kind, to_timestamp(at_ms / 1000), to_timestamp($8::float8 / 1000),
            substr(${bytesOf('$7')}, start, length)
       from unnest($1::int8[], $2::text[], $3::text[], $4::float8[], $5::int4[], $6::int4[])
         as u (robot_pk, stream, kind, at_ms, start, length) order by robot_pk, stream
     on conflict (robot_pk, stream) do update
        set kind = excluded.kind, recorded_at = excluded.recorded_at, ingested_at = excluded.ingested_at, body = excluded.body
      where excluded.recorded_at >= latest_sample.recorded_at`,
    [
      list.map(({ robot }) => robot.robotPk),
      list.map(({ record }) => record.block.layout.stream),
      list.map(({ record }) => record.block.layout.kind),
      list.map(({ record }) => record.span.lastMs),
      bodies.starts,
      bodies.lengths,
      bodies.base64,
      nowMs,
    ],
  );
}

/** Stores events, and in the same breath that the alert rules have yet to look at them. */
export async function insertEvents(
  tx: Queryable,
  rows: readonly Placed<EventLaneRecord>[],
  nowMs: number,
): Promise<void> {
  if (rows.length === 0) return;
  await tx.query(
    `with stored as (insert into robot_event (robot_pk, epoch, seq, event_id, type, occurred_at, ingested_at, trace_id, content_hash, payload)
     select robot_pk, epoch, seq, event_id, type, to_timestamp(occurred_ms / 1000), to_timestamp($10::float8 / 1000),
            trace_id, decode(hash, 'hex'), payload::jsonb
       from unnest($1::int8[], $2::text[], $3::int8[], $4::text[], $5::text[], $6::float8[], $7::text[], $8::text[], $9::text[])
         as u (robot_pk, epoch, seq, event_id, type, occurred_ms, trace_id, hash, payload)
     on conflict do nothing returning robot_pk, epoch, seq)
     insert into alert_pending (robot_pk, epoch, seq) select robot_pk, epoch, seq from stored on conflict do nothing`,
    [
      rows.map(({ robot }) => robot.robotPk),
      rows.map(({ epoch }) => epoch),
      rows.map(({ record }) => record.seq),
      rows.map(({ record }) => record.eventId),
      rows.map(({ record }) => record.type),
      rows.map(({ record }) => record.occurredAtMs),
      rows.map(({ record }) => record.traceId),
      rows.map(({ record }) => Buffer.from(record.hash).toString('hex')),
      rows.map(({ record }) => record.payloadJson),
      nowMs,
    ],
  );
}

/** Keeps the newest value of each key. Older values that come late change nothing. */
export async function upsertStates(
  tx: Queryable,
  rows: readonly Placed<StateLaneRecord>[],
  nowMs: number,
): Promise<void> {
  const newest = new Map<string, Placed<StateLaneRecord>>();
  for (const row of rows) {
    const key = `${row.robot.robotPk}/${row.record.key}`;
    const known = newest.get(key);
    if (!known || row.record.atMs >= known.record.atMs) newest.set(key, row);
  }
  if (newest.size === 0) return;
  const list = [...newest.values()];
  await tx.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
     select robot_pk, key, to_timestamp(at_ms / 1000), to_timestamp($5::float8 / 1000), value::jsonb
       from unnest($1::int8[], $2::text[], $3::float8[], $4::text[]) as u (robot_pk, key, at_ms, value)
      order by robot_pk, key
     on conflict (robot_pk, key) do update
        set at = excluded.at, ingested_at = excluded.ingested_at, value = excluded.value
      where excluded.at >= robot_shadow.at`,
    [
      list.map(({ robot }) => robot.robotPk),
      list.map(({ record }) => record.key),
      list.map(({ record }) => record.atMs),
      list.map(({ record }) => record.valueJson),
      nowMs,
    ],
  );
}

/** One statement may touch a key once: of several ranges that start at one position, the longest. */
export function longestPerStart<R extends { readonly seq: number; readonly seqTo: number }>(
  rows: readonly Placed<R>[],
): Placed<R>[] {
  const longest = new Map<string, Placed<R>>();
  for (const row of rows) {
    const key = `${row.robot.robotPk}/${row.epoch}/${row.lane}/${row.record.seq}`;
    const known = longest.get(key);
    if (!known || row.record.seqTo > known.record.seqTo) longest.set(key, row);
  }
  return [...longest.values()];
}

/**
 * Stores gaps. One that grew before it was acknowledged replaces its shorter self. A robot cannot know what arrived beyond
 * a hole, so a gap may speak of records that are held here: those are not lost and not counted. Blocks of the same commit
 * must have been inserted before.
 */
export async function insertGaps(tx: Queryable, given: readonly Placed<GapLaneRecord>[], nowMs: number): Promise<void> {
  const rows = longestPerStart(given);
  if (rows.length === 0) return;
  await tx.query(
    `insert into telemetry_gap (robot_pk, epoch, lane, seq_from, seq_to, reason, sample_count, from_at, to_at, ingested_at)
     select robot_pk, epoch, lane, seq_from, seq_to, reason, greatest(0, samples - held), to_timestamp(from_ms / 1000),
            to_timestamp(to_ms / 1000), to_timestamp($10::float8 / 1000)
       from unnest($1::int8[], $2::text[], $3::int4[], $4::int8[], $5::int8[], $6::text[], $7::int8[], $8::float8[], $9::float8[])
         as u (robot_pk, epoch, lane, seq_from, seq_to, reason, samples, from_ms, to_ms),
            lateral (select coalesce(sum(b.sample_count + b.thinned_count), 0)::int8 as held from telemetry_block b
                      where u.lane = $11::int4 and b.robot_pk = u.robot_pk and b.epoch = u.epoch
                        and b.seq between u.seq_from and u.seq_to) as h
     on conflict (robot_pk, epoch, lane, seq_from) do update
        set seq_to = excluded.seq_to, reason = excluded.reason, sample_count = excluded.sample_count,
            from_at = excluded.from_at, to_at = excluded.to_at
      where excluded.seq_to > telemetry_gap.seq_to`,
    [
      rows.map(({ robot }) => robot.robotPk),
      rows.map(({ epoch }) => epoch),
      rows.map(({ lane }) => lane),
      rows.map(({ record }) => record.seq),
      rows.map(({ record }) => record.seqTo),
      rows.map(({ record }) => record.reason),
      rows.map(({ record }) => record.samples),
      rows.map(({ record }) => record.fromMs),
      rows.map(({ record }) => record.toMs),
      nowMs,
      outrider.v1.Lane.LANE_TELEMETRY,
    ],
  );
}

/** Keeps poison for a person to look at. */
export async function insertQuarantined(tx: Queryable, rows: readonly QuarantineRow[], nowMs: number): Promise<void> {
  for (const row of rows) {
    const body = row.body.subarray(0, QUARANTINE_BODY_BYTES_MAX);
    await tx.query(
      `insert into quarantine (robot_pk, topic, epoch, lane, seq, reason, body, body_bytes, received_at)
       select $1::int8, $2::text, $3::text, $4::int4, $5::int8, $6::text, $7::bytea, $8::int4, to_timestamp($9::float8 / 1000)
        where (select count(*) from (select 1 from quarantine where robot_pk = $1::int8 limit $10::int4) as q) < $10::int4`,
      [
        row.robotPk,
        row.topic,
        row.epoch,
        row.lane,
        row.seq,
        storableText(row.reason),
        body,
        row.body.length,
        nowMs,
        QUARANTINE_ROWS_PER_ROBOT_MAX,
      ],
    );
  }
}

/** Reasons quote what came, so they may hold what PostgreSQL does not take. */
const storableText = (text: string): string => Buffer.from(text.replaceAll('\0', '\ufffd')).toString('utf8');
