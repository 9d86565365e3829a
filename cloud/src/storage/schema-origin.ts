import { bigint, index, integer, pgTable, primaryKey, text, timestamp } from 'drizzle-orm/pg-core';
import { bytea } from './columns.ts';
import { robot } from './schema.ts';

/**
 * Records that came under a new epoch after having had a position under an earlier one, stored or found stored: what
 * is known by its origin is not stored again, and other content under the new position is still noticed.
 */
export const ingestOrigin = pgTable(
  'ingest_origin',
  {
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    epoch: text('epoch').notNull(),
    lane: integer('lane').notNull(),
    seq: bigint('seq', { mode: 'number' }).notNull(),
    /** The first position. */
    origEpoch: text('orig_epoch').notNull(),
    origSeq: bigint('orig_seq', { mode: 'number' }).notNull(),
    contentHash: bytea('content_hash').notNull(),
    ingestedAt: timestamp('ingested_at', { withTimezone: true, precision: 3, mode: 'date' }).notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.robotPk, table.epoch, table.lane, table.seq] }),
    index('ingest_origin_first').on(table.robotPk, table.origEpoch, table.lane, table.origSeq),
  ],
);
