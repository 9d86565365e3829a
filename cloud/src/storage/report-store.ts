import type { EpochMs } from '@outrider/shared/time';
import type { RobotRef } from '../telemetry/ports.ts';
import type { ReportRecords, ReportStore } from '../telemetry/report-ingest.ts';
import type { Database } from './database.ts';
import { addEnergy } from './energy-rows.ts';
import { storeTelemetryEvents } from './ingest-events.ts';
import { insertBlocks, upsertLatest } from './ingest-rows.ts';

const TELEMETRY_LANE = 3;

/** Stores reports. Their key names their content, so what is there already is left as it is. */
export class SqlReportStore implements ReportStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async store(
    robot: RobotRef,
    reports: readonly ReportRecords[],
    traceId: string,
    nowMs: number,
  ): Promise<Map<string, EpochMs>> {
    return await this.#database.transaction(async (tx) => {
      const known = await tx.query<{ epoch: string; ingested_at: Date }>(
        `select epoch, min(ingested_at) as ingested_at from telemetry_block
          where robot_pk = $1 and epoch = any($2::text[]) group by epoch`,
        [robot.robotPk, reports.map((report) => report.epoch)],
      );
      const before = new Map(known.map((row) => [row.epoch, row.ingested_at.getTime() as EpochMs]));
      const rows = reports
        .filter((report) => !before.has(report.epoch))
        .flatMap(({ epoch, eventId, records }) =>
          records.map((record) => ({ robot, epoch, lane: TELEMETRY_LANE, record, eventId, traceId })),
        );
      await insertBlocks(tx, rows, nowMs);
      await upsertLatest(tx, rows, nowMs);
      await addEnergy(tx, rows, nowMs);
      await storeTelemetryEvents(tx, rows, nowMs);
      return before;
    });
  }
}
