import { sql } from 'drizzle-orm';
import { bigint, bigserial, doublePrecision, index, pgTable, primaryKey, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { at } from './columns.ts';
import { robot } from './schema.ts';

/**
 * The outbox of the event bus, and its history. A row is written in the transaction of the change that it tells of.
 *
 * A row without a tenant is a bundle: the many `telemetry.ingested.v1` of one commit, a line each.
 */
export const busEvent = pgTable(
  'bus_event',
  {
    position: bigserial('position', { mode: 'number' }).primaryKey(),
    /** The place in the feed, given after the commit, so that a reader who has come to N will never miss one below it. */
    feed: bigint('feed', { mode: 'number' }),
    tenantId: text('tenant_id'),
    /** Robot or swarm. */
    subjectId: text('subject_id'),
    eventId: text('event_id').notNull(),
    type: text('type').notNull(),
    occurredAt: at('occurred_at').notNull(),
    storedAt: at('stored_at').notNull(),
    traceId: text('trace_id').notNull(),
    /** JSON as text: it is passed on and never searched. */
    payload: text('payload').notNull(),
  },
  (table) => [
    // By subject, because robots choose the ids of their events and must not take each other's.
    uniqueIndex('bus_event_id').on(table.tenantId, table.subjectId, table.eventId),
    uniqueIndex('bus_event_feed').on(table.feed),
    index('bus_event_fresh').on(table.position).where(sql`${table.feed} is null`),
    index('bus_event_type').on(table.tenantId, table.type, table.occurredAt),
  ],
);

/** How far the feed was numbered, and how far it was published. */
export const busProgress = pgTable('bus_progress', {
  step: text('step').primaryKey(),
  feed: bigint('feed', { mode: 'number' }).notNull(),
});

/** Energy that a robot drew in an hour, by the power readings of one stream. */
export const robotEnergyHour = pgTable(
  'robot_energy_hour',
  {
    hour: at('hour').notNull(),
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    stream: text('stream').notNull(),
    energyJ: doublePrecision('energy_j').notNull(),
    /** Time for which readings exist. [s] */
    coveredS: doublePrecision('covered_s').notNull(),
    /** The first reading of those that came first: an upsert joins what comes later to the newest by it. [ms, W] */
    firstMs: doublePrecision('first_ms').notNull(),
    firstW: doublePrecision('first_w').notNull(),
    /** The newest reading, from which the next block goes on. [ms since 1970, W] */
    lastMs: doublePrecision('last_ms').notNull(),
    lastW: doublePrecision('last_w').notNull(),
  },
  (table) => [primaryKey({ columns: [table.hour, table.robotPk, table.stream] })],
);
