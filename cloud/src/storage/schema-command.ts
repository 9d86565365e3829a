import { sql } from 'drizzle-orm';
import {
  bigint,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  uniqueIndex,
} from 'drizzle-orm/pg-core';
import { at } from './columns.ts';
import { robot } from './schema.ts';

/** What robots were told to do with their actuators. */
export const command = pgTable(
  'command',
  {
    commandId: text('command_id').primaryKey(),
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    kind: text('kind').notNull(),
    parameters: jsonb('parameters').notNull(),
    timeoutMs: integer('timeout_ms').notNull(),
    reason: text('reason').notNull(),
    /** The motion epoch that it was meant for: no other one may carry it out. */
    motionEpoch: bigint('motion_epoch', { mode: 'number' }).notNull(),
    /** What the caller calls it, so that a request that is sent twice is one command. */
    idempotencyKey: text('idempotency_key'),
    /** SHA-256 of what was asked for, to tell a repetition from another request under the same key. */
    requestHash: text('request_hash').notNull(),
    requestedBy: text('requested_by').notNull(),
    traceId: text('trace_id').notNull(),
    status: text('status').notNull(),
    detail: text('detail').notNull().default(''),
    /** 0 to 1, as the robot last said. */
    progress: doublePrecision('progress').notNull().default(0),
    createdAt: at('created_at').notNull(),
    /** It must have begun by then. */
    expiresAt: at('expires_at').notNull(),
    updatedAt: at('updated_at').notNull(),
    /** When it was last handed to the broker for a robot that was connected. Empty: the robot cannot have it. */
    sentAt: at('sent_at'),
    cancelRequestedAt: at('cancel_requested_at'),
    cancelRequestedBy: text('cancel_requested_by'),
  },
  (table) => [
    uniqueIndex('command_idempotency')
      .on(table.robotPk, table.idempotencyKey)
      .where(sql`${table.idempotencyKey} is not null`),
    index('command_robot').on(table.robotPk, table.createdAt, table.commandId),
    index('command_open').on(table.createdAt).where(sql`${table.status} in ('accepted', 'delivered', 'executing')`),
  ],
);

/** When a command came to each status that it came to. A status is reached once. */
export const commandTransition = pgTable(
  'command_transition',
  {
    commandId: text('command_id')
      .notNull()
      .references(() => command.commandId),
    status: text('status').notNull(),
    at: at('at').notNull(),
    detail: text('detail').notNull(),
  },
  (table) => [primaryKey({ columns: [table.commandId, table.status] })],
);
