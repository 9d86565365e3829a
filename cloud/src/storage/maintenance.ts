import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { Database } from './database.ts';
import { createPartitions, removeTelemetryBefore } from './partitions.ts';

const INTERVAL_MS = 3_600_000;
const DAY_MS = 86_400_000;
const AGED_TABLES = [
  ['telemetry_gap', 'ingested_at'],
  ['quarantine', 'received_at'],
  ['ingest_origin', 'ingested_at'],
  ['robot_energy_hour', 'hour'],
] as const;

export interface MaintenanceOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Logger;
  /** How long telemetry, gaps, poison and energy by the hour are kept after they were stored. 0: for ever. Events stay. */
  readonly retentionDays: number;
}

/** Keeps the partitions ready and the disk from filling. */
export class Maintenance implements Service {
  readonly name = 'maintenance';
  readonly #options: MaintenanceOptions;

  constructor(options: MaintenanceOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(INTERVAL_MS, signal);
      if (signal.aborted) return;
      await this.maintain().catch((error: unknown) => this.#options.log.error({ err: error }, 'maintenance.failed'));
    }
  }

  /** One round. Call it once before the ingest starts, so that new rows find their partitions. */
  async maintain(): Promise<void> {
    const { clock, database, log, retentionDays } = this.#options;
    const now = clock.epochMs();
    await createPartitions(database, now, log);
    if (retentionDays === 0) return;
    const cutoff = now - retentionDays * DAY_MS;
    const removed = await removeTelemetryBefore(database, cutoff);
    for (const [table, column] of AGED_TABLES) {
      await database.query(`delete from ${table} where ${column} < to_timestamp($1::float8 / 1000)`, [cutoff]);
    }
    log.info({ ...removed, retentionDays }, 'maintenance.done');
  }
}
