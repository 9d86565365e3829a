import { columnOf, type DecodedBlock } from '@outrider/shared/protocol/block';
import { fieldRange } from '@outrider/shared/telemetry';
import type { TelemetryRecord } from '../telemetry/record.ts';
import { rowTimes } from '../telemetry/recorded-time.ts';
import type { Queryable } from './database.ts';
import type { Placed } from './ingest-rows.ts';

const HOUR_MS = 3_600_000;
/** Between readings further apart than this nothing is known of the draw, so nothing is counted. */
const BRIDGED_MS_MAX = 10_000;

/** Energy of one stream in one hour, of the readings that came together. */
interface HourShare {
  readonly robotPk: number;
  readonly stream: string;
  readonly hourMs: number;
  readonly firstMs: number;
  readonly firstW: number;
  lastMs: number;
  lastW: number;
  energyJ: number;
  coveredS: number;
}

/** Draws over time, oldest first. A reading that is no number is left out. */
function drawsOf(block: DecodedBlock, nowMs: number): { atMs: number; w: number }[] {
  const range = fieldRange(block.layout, 'draw');
  const column = range?.width === 1 ? columnOf(block, range.start) : undefined;
  if (!column) return [];
  const recordedAt = rowTimes(block, nowMs);
  const draws: { atMs: number; w: number }[] = [];
  for (let row = 0; row < block.count; row += 1) {
    const w = column[row] as number;
    if (!Number.isFinite(w)) continue;
    draws.push({ atMs: recordedAt(row), w });
  }
  return draws.sort((a, b) => a.atMs - b.atMs);
}

function sharesOf(rows: readonly Placed<TelemetryRecord>[], nowMs: number): HourShare[] {
  const shares = new Map<string, HourShare>();
  const ordered = rows
    .filter(({ record }) => record.block.layout.kind === 'power')
    .toSorted((a, b) => a.record.span.firstMs - b.record.span.firstMs);
  for (const { robot, record } of ordered) {
    const { stream } = record.block.layout;
    for (const { atMs, w } of drawsOf(record.block, nowMs)) {
      const hourMs = Math.floor(atMs / HOUR_MS) * HOUR_MS;
      const key = `${robot.robotPk}/${hourMs}/${stream}`;
      const share = shares.get(key);
      if (!share) {
        const point = { firstMs: atMs, firstW: w, lastMs: atMs, lastW: w };
        shares.set(key, { robotPk: robot.robotPk, stream, hourMs, ...point, energyJ: 0, coveredS: 0 });
        continue;
      }
      const gapMs = atMs - share.lastMs;
      if (gapMs < 0) continue;
      if (gapMs <= BRIDGED_MS_MAX) {
        share.energyJ += ((share.lastW + w) / 2) * (gapMs / 1000);
        share.coveredS += gapMs / 1000;
      }
      share.lastMs = atMs;
      share.lastW = w;
    }
  }
  return [...shares.values()];
}

/**
 * Adds what power readings of a commit say to the robots' energy by the hour: the trapezoids between readings, and the
 * one from the newest reading stored before. Data that comes late counts in its own hour.
 */
export async function addEnergy(tx: Queryable, rows: readonly Placed<TelemetryRecord>[], nowMs: number): Promise<void> {
  const shares = sharesOf(rows, nowMs);
  if (shares.length === 0) return;
  const bridge = 'excluded.first_ms - e.last_ms';
  const isBridged = `${bridge} between 0 and ${BRIDGED_MS_MAX}`;
  await tx.query(
    `insert into robot_energy_hour as e
       (hour, robot_pk, stream, energy_j, covered_s, first_ms, first_w, last_ms, last_w)
     select to_timestamp(hour_ms / 1000), robot_pk, stream, energy_j, covered_s, first_ms, first_w, last_ms, last_w
       from unnest($1::float8[], $2::int8[], $3::text[], $4::float8[], $5::float8[], $6::float8[], $7::float8[],
                   $8::float8[], $9::float8[])
         as u (hour_ms, robot_pk, stream, energy_j, covered_s, first_ms, first_w, last_ms, last_w)
      order by hour_ms, robot_pk, stream
     on conflict (hour, robot_pk, stream) do update set
       energy_j = e.energy_j + excluded.energy_j
         + case when ${isBridged} then (e.last_w + excluded.first_w) / 2 * (${bridge}) / 1000 else 0 end,
       covered_s = e.covered_s + excluded.covered_s + case when ${isBridged} then (${bridge}) / 1000 else 0 end,
       last_ms = greatest(e.last_ms, excluded.last_ms),
       last_w = case when excluded.last_ms >= e.last_ms then excluded.last_w else e.last_w end`,
    [
      shares.map((share) => share.hourMs),
      shares.map((share) => share.robotPk),
      shares.map((share) => share.stream),
      shares.map((share) => share.energyJ),
      shares.map((share) => share.coveredS),
      shares.map((share) => share.firstMs),
      shares.map((share) => share.firstW),
      shares.map((share) => share.lastMs),
      shares.map((share) => share.lastW),
    ],
  );
}
