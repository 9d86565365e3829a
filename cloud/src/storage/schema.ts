import { sql } from 'drizzle-orm';
import {
  bigint,
  bigserial,
  boolean,
  doublePrecision,
  foreignKey,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  uniqueIndex,
} from 'drizzle-orm/pg-core';
import { at, bytea } from './columns.ts';

/** Who owns robots, people and clients. Every other row belongs to one, directly or through its robot. */
export const tenant = pgTable('tenant', {
  tenantId: text('tenant_id').primaryKey(),
  name: text('name').notNull(),
  /** free | developer | production | enterprise: the rate-limit tier. */
  tier: text('tier').notNull().default('free'),
  createdAt: at('created_at').notNull().defaultNow(),
});

/** OAuth 2 confidential clients. The secret is kept as an argon2id hash. */
export const oauthClient = pgTable('oauth_client', {
  clientId: text('client_id').primaryKey(),
  tenantId: text('tenant_id')
    .notNull()
    .references(() => tenant.tenantId),
  secretHash: text('secret_hash').notNull(),
  scopes: text('scopes').array().notNull(),
  createdAt: at('created_at').notNull().defaultNow(),
  revokedAt: at('revoked_at'),
});

/** People who log in with a password. */
export const appUser = pgTable(
  'app_user',
  {
    userId: text('user_id').primaryKey(),
    tenantId: text('tenant_id')
      .notNull()
      .references(() => tenant.tenantId),
    username: text('username').notNull(),
    passwordHash: text('password_hash').notNull(),
    scopes: text('scopes').array().notNull(),
    /** Null: every robot of the tenant. */
    robotIds: text('robot_ids').array(),
    createdAt: at('created_at').notNull().defaultNow(),
    disabledAt: at('disabled_at'),
  },
  (table) => [uniqueIndex('app_user_username').on(table.username)],
);

/** Token signing keys, so that tokens outlive a restart and replicas agree. Private JWKs are encrypted at rest. */
export const signingKey = pgTable('signing_key', {
  kid: text('kid').primaryKey(),
  algorithm: text('algorithm').notNull(),
  publicJwk: jsonb('public_jwk').notNull(),
  privateJwk: text('private_jwk').notNull(),
  createdAt: at('created_at').notNull().defaultNow(),
  retiredAt: at('retired_at'),
});

/** Tokens taken back before they expire. Rows may go once `expires_at` has passed. */
export const revokedToken = pgTable('revoked_token', {
  tokenId: text('token_id').primaryKey(),
  expiresAt: at('expires_at').notNull(),
});

/** A robot as its tenant knows it. `robot_pk` is what large tables refer to. */
export const robot = pgTable(
  'robot',
  {
    robotPk: bigserial('robot_pk', { mode: 'number' }).primaryKey(),
    tenantId: text('tenant_id')
      .notNull()
      .references(() => tenant.tenantId),
    robotId: text('robot_id').notNull(),
    robotName: text('robot_name').notNull(),
    robotType: text('robot_type').notNull(),
    manufacturer: text('manufacturer'),
    model: text('model'),
    firmwareVersion: text('firmware_version'),
    capabilities: jsonb('capabilities').notNull().default(sql`'{}'::jsonb`),
    /** What an operator set: `maintenance` and the like. Null: derived from presence and failsafe. */
    statusOverride: text('status_override'),
    acceptingTasks: boolean('accepting_tasks').notNull().default(true),
    registeredAt: at('registered_at').notNull().defaultNow(),
    deregisteredAt: at('deregistered_at'),
  },
  (table) => [
    uniqueIndex('robot_tenant_robot').on(table.tenantId, table.robotId).where(sql`${table.deregisteredAt} is null`),
  ],
);

/** API keys of robots: SHA-256 of 256 random bits needs no slow hash. */
export const robotApiKey = pgTable(
  'robot_api_key',
  {
    keyHash: text('key_hash').primaryKey(),
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    createdAt: at('created_at').notNull().defaultNow(),
    revokedAt: at('revoked_at'),
  },
  (table) => [index('robot_api_key_robot').on(table.robotPk)],
);

/** The installation's certificate authority and server certificates, private keys encrypted at rest. */
export const authorityKey = pgTable('authority_key', {
  name: text('name').primaryKey(),
  certificatePem: text('certificate_pem').notNull(),
  privateKeyPem: text('private_key_pem').notNull(),
  createdAt: at('created_at').notNull().defaultNow(),
});

/**
 * Keys that sign what robots are ordered to do, private ones encrypted at rest. The highest serial signs; robots take
 * it and the one before.
 */
export const instructionKey = pgTable('instruction_key', {
  serial: bigserial('serial', { mode: 'number' }).primaryKey(),
  keyId: text('key_id').notNull().unique(),
  /** Ed25519, 32 bytes. */
  publicKey: bytea('public_key').notNull(),
  privateKeyPem: text('private_key_pem').notNull(),
  createdAt: at('created_at').notNull().defaultNow(),
});

/**
 * The number of the last instruction to a robot. By name and not by `robot_pk`: the robot remembers the highest that it
 * took, also when it was registered anew.
 */
export const instructionCounter = pgTable(
  'instruction_counter',
  {
    tenantId: text('tenant_id').notNull(),
    robotId: text('robot_id').notNull(),
    last: bigint('last', { mode: 'number' }).notNull(),
  },
  (table) => [primaryKey({ columns: [table.tenantId, table.robotId] })],
);

/** Certificates given to robots. */
export const robotCertificate = pgTable(
  'robot_certificate',
  {
    serialNumber: text('serial_number').primaryKey(),
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    fingerprintSha256: text('fingerprint_sha256').notNull(),
    issuedAt: at('issued_at').notNull().defaultNow(),
    expiresAt: at('expires_at').notNull(),
    revokedAt: at('revoked_at'),
    revokedReason: text('revoked_reason'),
  },
  (table) => [index('robot_certificate_robot').on(table.robotPk)],
);

/** What the robot's connection was last known to be. */
export const robotPresence = pgTable('robot_presence', {
  robotPk: bigint('robot_pk', { mode: 'number' })
    .primaryKey()
    .references(() => robot.robotPk),
  presence: text('presence').notNull(),
  agentVersion: text('agent_version'),
  bootId: text('boot_id'),
  changedAt: at('changed_at').notNull(),
  lastSeenAt: at('last_seen_at').notNull(),
});

/**
 * How far each lane of each outbox has come. The row is locked while a batch of its lane is stored, so two
 * replicas can never store the same record twice.
 */
export const ingestCursor = pgTable(
  'ingest_cursor',
  {
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    epoch: text('epoch').notNull(),
    lane: integer('lane').notNull(),
    /** Every position up to here is stored or explained: what the acknowledgement says. */
    upto: bigint('upto', { mode: 'number' }).notNull().default(0),
    /** Highest position stored. */
    maxSeen: bigint('max_seen', { mode: 'number' }).notNull().default(0),
    /** Records of this epoch have come under a later one. */
    isResent: boolean('is_resent').notNull().default(false),
    updatedAt: at('updated_at').notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.robotPk, table.epoch, table.lane] })],
);

/**
 * Telemetry, a row a block. Partitioned by `recorded_at` (declared in the first migration, which drizzle cannot
 * express); the key holds it for that reason only. What stores a record once is the locked cursor.
 */
export const telemetryBlock = pgTable(
  'telemetry_block',
  {
    robotPk: bigint('robot_pk', { mode: 'number' }).notNull(),
    epoch: text('epoch').notNull(),
    seq: bigint('seq', { mode: 'number' }).notNull(),
    /** Earliest time in the block: the source's stamps where they are sane, else the receive times. */
    recordedAt: at('recorded_at').notNull(),
    /** Latest time in the block. */
    recordedUntil: at('recorded_until').notNull(),
    ingestedAt: at('ingested_at').notNull(),
    stream: text('stream').notNull(),
    kind: text('kind').notNull(),
    bootId: text('boot_id').notNull(),
    sampleCount: integer('sample_count').notNull(),
    /** Samples that the edge left out of this block for want of room, as it says. */
    thinnedCount: integer('thinned_count').notNull().default(0),
    /** First 16 bytes of the body's SHA-256. */
    contentHash: bytea('content_hash').notNull(),
    body: bytea('body').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.robotPk, table.epoch, table.seq, table.recordedAt] }),
    index('telemetry_block_history').on(table.robotPk, table.kind, table.recordedAt),
    // Few blocks span more than a day; history looks for those apart, so that it can bound `recorded_at` for the rest.
    index('telemetry_block_long')
      .on(table.robotPk, table.recordedAt)
      .where(sql`(${table.recordedUntil} - ${table.recordedAt}) > interval '1 day'`),
    index('telemetry_block_ingested').using('brin', table.ingestedAt),
  ],
);

/** Records that the edge had to drop, as it explained them. */
export const telemetryGap = pgTable(
  'telemetry_gap',
  {
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    epoch: text('epoch').notNull(),
    lane: integer('lane').notNull(),
    seqFrom: bigint('seq_from', { mode: 'number' }).notNull(),
    seqTo: bigint('seq_to', { mode: 'number' }).notNull(),
    reason: text('reason').notNull(),
    sampleCount: bigint('sample_count', { mode: 'number' }).notNull(),
    fromAt: at('from_at').notNull(),
    toAt: at('to_at').notNull(),
    ingestedAt: at('ingested_at').notNull(),
  },
  (table) => [primaryKey({ columns: [table.robotPk, table.epoch, table.lane, table.seqFrom] })],
);

/** The newest sample of each stream. Only a later `recorded_at` replaces a row. */
export const latestSample = pgTable(
  'latest_sample',
  {
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    stream: text('stream').notNull(),
    kind: text('kind').notNull(),
    recordedAt: at('recorded_at').notNull(),
    ingestedAt: at('ingested_at').notNull(),
    /** A block of one sample. */
    body: bytea('body').notNull(),
  },
  (table) => [primaryKey({ columns: [table.robotPk, table.stream] })],
);

/** Records of the event lane. */
export const robotEvent = pgTable(
  'robot_event',
  {
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    epoch: text('epoch').notNull(),
    seq: bigint('seq', { mode: 'number' }).notNull(),
    eventId: text('event_id').notNull(),
    type: text('type').notNull(),
    occurredAt: at('occurred_at').notNull(),
    ingestedAt: at('ingested_at').notNull(),
    traceId: text('trace_id').notNull(),
    contentHash: bytea('content_hash').notNull(),
    payload: jsonb('payload').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.robotPk, table.epoch, table.seq] }),
    index('robot_event_time').on(table.robotPk, table.occurredAt),
  ],
);

/** Records of the state lane, newest per key: the robot's shadow (`failsafe`, `sources`, …). */
export const robotShadow = pgTable(
  'robot_shadow',
  {
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    key: text('key').notNull(),
    at: at('at').notNull(),
    ingestedAt: at('ingested_at').notNull(),
    value: jsonb('value').notNull(),
  },
  (table) => [primaryKey({ columns: [table.robotPk, table.key] })],
);

/**
 * Positions stored beyond a lane's contiguous watermark, until it passes them. Two replicas that share the ingest
 * see a lane out of order; a row lives for as long as the hole before it.
 */
export const ingestAhead = pgTable(
  'ingest_ahead',
  {
    robotPk: bigint('robot_pk', { mode: 'number' }).notNull(),
    epoch: text('epoch').notNull(),
    lane: integer('lane').notNull(),
    seqFrom: bigint('seq_from', { mode: 'number' }).notNull(),
    seqTo: bigint('seq_to', { mode: 'number' }).notNull(),
    contentHash: bytea('content_hash').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.robotPk, table.epoch, table.lane, table.seqFrom] }),
    foreignKey({
      columns: [table.robotPk, table.epoch, table.lane],
      foreignColumns: [ingestCursor.robotPk, ingestCursor.epoch, ingestCursor.lane],
    }),
  ],
);

/** Records that could not be understood or stored. Acknowledged all the same: they must not block their lane. */
export const quarantine = pgTable(
  'quarantine',
  {
    quarantineId: bigserial('quarantine_id', { mode: 'number' }).primaryKey(),
    robotPk: bigint('robot_pk', { mode: 'number' })
      .notNull()
      .references(() => robot.robotPk),
    topic: text('topic').notNull(),
    epoch: text('epoch'),
    lane: integer('lane'),
    seq: bigint('seq', { mode: 'number' }),
    reason: text('reason').notNull(),
    /** At most 64 KiB of what came. */
    body: bytea('body').notNull(),
    bodyBytes: integer('body_bytes').notNull(),
    receivedAt: at('received_at').notNull(),
  },
  (table) => [index('quarantine_robot').on(table.robotPk, table.receivedAt)],
);

/** Who did or tried what through an API. */
export const auditEntry = pgTable(
  'audit_entry',
  {
    auditId: bigserial('audit_id', { mode: 'number' }).primaryKey(),
    tenantId: text('tenant_id'),
    subject: text('subject'),
    action: text('action').notNull(),
    outcome: text('outcome').notNull(),
    requestId: text('request_id').notNull(),
    details: jsonb('details').notNull().default(sql`'{}'::jsonb`),
    durationMs: doublePrecision('duration_ms'),
    at: at('at').notNull(),
  },
  (table) => [index('audit_entry_tenant').on(table.tenantId, table.at)],
);
