import { sql } from 'drizzle-orm';
import {
  bigint,
  bigserial,
  boolean,
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
import { robot, tenant } from './schema.ts';

const ofTenant = () =>
  text('tenant_id')
    .notNull()
    .references(() => tenant.tenantId);

/** A tenant's own rules, and what it changed of the built-in ones (the same id). */
export const alertRule = pgTable(
  'alert_rule',
  {
    tenantId: ofTenant(),
    ruleId: text('rule_id').notNull(),
    /** The whole rule as JSON; `kind` inside decides its shape. */
    rule: jsonb('rule').notNull(),
    createdAt: at('created_at').notNull(),
    updatedAt: at('updated_at').notNull(),
    updatedBy: text('updated_by').notNull(),
    /** Removed rules stay as marks, so that other replicas see the removal. */
    removedAt: at('removed_at'),
  },
  (table) => [primaryKey({ columns: [table.tenantId, table.ruleId] }), index('alert_rule_updated').on(table.updatedAt)],
);

/** What needs a person. Acknowledged and cleared are facts of their own. */
export const alert = pgTable(
  'alert',
  {
    alertId: text('alert_id').primaryKey(),
    tenantId: ofTenant(),
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    robotId: text('robot_id').notNull(),
    ruleId: text('rule_id').notNull(),
    kind: text('kind').notNull(),
    severity: text('severity').notNull(),
    title: text('title').notNull(),
    /** At most one open alert has it. */
    dedupeKey: text('dedupe_key').notNull(),
    /** The robot's time, as all times of the condition. */
    raisedAt: at('raised_at').notNull(),
    lastAt: at('last_at').notNull(),
    clearedAt: at('cleared_at'),
    clearedBy: text('cleared_by'),
    acknowledgedAt: at('acknowledged_at'),
    acknowledgedBy: text('acknowledged_by'),
    acknowledgedNotes: text('acknowledged_notes'),
    occurrences: integer('occurrences').notNull(),
    /** Whether it comes and goes so often that it is kept open. */
    flapping: boolean('flapping').notNull(),
    /** Whether it was old when it became known. */
    backfilled: boolean('backfilled').notNull(),
    value: doublePrecision('value'),
    details: jsonb('details').notNull(),
    traceId: text('trace_id').notNull(),
    storedAt: at('stored_at').notNull(),
    updatedAt: at('updated_at').notNull(),
  },
  (table) => [
    uniqueIndex('alert_open').on(table.tenantId, table.dedupeKey).where(sql`${table.clearedAt} is null`),
    index('alert_window').on(table.tenantId, table.raisedAt.desc(), table.alertId.desc()),
    index('alert_robot').on(table.robotPk, table.raisedAt),
    index('alert_dedupe').on(table.tenantId, table.dedupeKey, table.raisedAt),
  ],
);

/** Everything that happened to an alert, in order. Rows are only ever added. */
export const alertHistory = pgTable(
  'alert_history',
  {
    entryId: bigserial('entry_id', { mode: 'number' }).primaryKey(),
    alertId: text('alert_id')
      .notNull()
      .references(() => alert.alertId),
    change: text('change').notNull(),
    at: at('at').notNull(),
    storedAt: at('stored_at').notNull(),
    /** Who; null: the rule. */
    actor: text('actor'),
    notes: text('notes'),
    details: jsonb('details').notNull().default(sql`'{}'::jsonb`),
  },
  (table) => [index('alert_history_alert').on(table.alertId, table.entryId)],
);

/** Events of robots that the alert rules have not looked at. Written in the transaction that stores the event. */
export const alertPending = pgTable(
  'alert_pending',
  {
    robotPk: bigint('robot_pk', { mode: 'number' }).notNull(),
    epoch: text('epoch').notNull(),
    seq: bigint('seq', { mode: 'number' }).notNull(),
  },
  (table) => [primaryKey({ columns: [table.robotPk, table.epoch, table.seq] })],
);

/** How far a feed was looked at. */
export const alertProgress = pgTable('alert_progress', {
  feed: text('feed').primaryKey(),
  position: bigint('position', { mode: 'number' }).notNull(),
});

/** Where a tenant wants to be told. The signing secret is encrypted at rest. */
export const alertWebhook = pgTable(
  'alert_webhook',
  {
    webhookId: text('webhook_id').primaryKey(),
    tenantId: ofTenant(),
    url: text('url').notNull(),
    description: text('description').notNull(),
    secret: text('secret').notNull(),
    severities: text('severities').array().notNull(),
    changes: text('changes').array().notNull(),
    /** Null: every robot of the tenant. */
    robotIds: text('robot_ids').array(),
    enabled: boolean('enabled').notNull(),
    createdAt: at('created_at').notNull(),
    updatedAt: at('updated_at').notNull(),
    updatedBy: text('updated_by').notNull(),
  },
  (table) => [index('alert_webhook_tenant').on(table.tenantId)],
);

/** Notifications on their way, and what became of them. Written in the transaction that changes the alert. */
export const webhookDelivery = pgTable(
  'webhook_delivery',
  {
    /** The webhook-id header: the same for every attempt. */
    deliveryId: text('delivery_id').primaryKey(),
    webhookId: text('webhook_id')
      .notNull()
      .references(() => alertWebhook.webhookId, { onDelete: 'cascade' }),
    type: text('type').notNull(),
    body: text('body').notNull(),
    /** pending | delivered | dead */
    state: text('state').notNull(),
    attempts: integer('attempts').notNull().default(0),
    /** Also the end of a claim: whoever claimed it and died, loses it then. */
    dueAt: at('due_at').notNull(),
    lastStatus: integer('last_status'),
    lastError: text('last_error'),
    createdAt: at('created_at').notNull(),
    endedAt: at('ended_at'),
  },
  (table) => [
    index('webhook_delivery_due').on(table.dueAt).where(sql`${table.state} = 'pending'`),
    index('webhook_delivery_webhook').on(table.webhookId, table.createdAt),
  ],
);
