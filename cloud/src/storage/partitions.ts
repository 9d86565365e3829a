import type { Logger } from '@outrider/shared/log';
import { type Database, sqlState } from './database.ts';

const WEEK_MS = 7 * 86_400_000;
/** A Monday, so that partitions are named by theirs. */
const MONDAY_MS = Date.UTC(2024, 0, 1);
const WEEKS_BEHIND = 1;
const WEEKS_AHEAD = 4;
const NAME_PATTERN = /^telemetry_block_(\d{4})(\d{2})(\d{2})$/;
/** Replicas change the set of partitions one after the other. */
const PARTITION_LOCK = 'select pg_advisory_xact_lock(8032485094713745779)';
/** Class 23514: the default partition holds rows of the week already. */
const CHECK_VIOLATION = '23514';
/** Rows deleted at a time, so that no lock is held for long. */
const DELETE_ROWS = 20_000;

const weekOf = (atMs: number): number => MONDAY_MS + Math.floor((atMs - MONDAY_MS) / WEEK_MS) * WEEK_MS;
const nameOf = (weekMs: number): string =>
  `telemetry_block_${new Date(weekMs).toISOString().slice(0, 10).replaceAll('-', '')}`;

/**
 * Creates the weekly partitions around now. All other times, those of old recordings above all, are in the default
 * partition.
 */
export async function createPartitions(database: Database, nowMs: number, log: Logger): Promise<void> {
  for (let week = -WEEKS_BEHIND; week <= WEEKS_AHEAD; week += 1) {
    const from = weekOf(nowMs) + week * WEEK_MS;
    const [fromIso, toIso] = [new Date(from).toISOString(), new Date(from + WEEK_MS).toISOString()];
    try {
      await database.transaction(async (tx) => {
        await tx.query(PARTITION_LOCK);
        await tx.query(
          `create table if not exists ${nameOf(from)} partition of telemetry_block for values from ('${fromIso}') to ('${toIso}')`,
        );
      });
    } catch (error) {
      // Nothing is lost: the week stays in the default partition.
      if (sqlState(error) === CHECK_VIOLATION) log.debug({ week: fromIso }, 'partition.left_in_default');
      else throw error;
    }
  }
}

/**
 * Removes telemetry that was stored before the cutoff, whole partitions where that is possible. What counts is when
 * it came to us: a recording of 2019 that was replayed today is new.
 *
 * @returns Partitions dropped and rows deleted.
 */
export async function removeTelemetryBefore(
  database: Database,
  cutoffMs: number,
): Promise<{ partitions: number; rows: number }> {
  const tables = await database.query<{ name: string }>(
    `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'telemetry_block'::regclass order by c.relname`,
  );
  let partitions = 0;
  let rows = 0;
  for (const { name } of tables) {
    const match = NAME_PATTERN.exec(name);
    const isOver = match && Date.UTC(Number(match[1]), Number(match[2]) - 1, Number(match[3])) + WEEK_MS <= cutoffMs;
    if (isOver && !(await hasRowsSince(database, name, cutoffMs))) {
      await database.transaction(async (tx) => {
        await tx.query(PARTITION_LOCK);
        await tx.query(`drop table if exists ${name}`);
      });
      partitions += 1;
    } else rows += await deleteRows(database, name, cutoffMs);
  }
  return { partitions, rows };
}

async function hasRowsSince(database: Database, table: string, cutoffMs: number): Promise<boolean> {
  const found = await database.query(
    `select 1 from ${table} where ingested_at >= to_timestamp($1::float8 / 1000) limit 1`,
    [cutoffMs],
  );
  return found.length > 0;
}

async function deleteRows(database: Database, table: string, cutoffMs: number): Promise<number> {
  let total = 0;
  for (;;) {
    const deleted = await database.query(
      `delete from ${table} where ctid = any(array(
         select ctid from ${table} where ingested_at < to_timestamp($1::float8 / 1000) limit ${DELETE_ROWS}))
       returning 1`,
      [cutoffMs],
    );
    total += deleted.length;
    if (deleted.length < DELETE_ROWS) return total;
  }
}
