import { bigint, pgTable, timestamp } from 'drizzle-orm/pg-core';
import { bytea } from './columns.ts';
import { robot } from './schema.ts';

/** What the control plane learnt of a robot whose edge does not judge itself, so that replicas agree. */
export const healthModel = pgTable('health_model', {
  robotPk: bigint('robot_pk', { mode: 'number' })
    .primaryKey()
    .references(() => robot.robotPk),
  /** As `encodeModel` wrote it. */
  body: bytea('body').notNull(),
  learntAt: timestamp('learnt_at', { withTimezone: true, precision: 3, mode: 'date' }).notNull(),
});
