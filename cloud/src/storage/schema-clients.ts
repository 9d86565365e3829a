import { index, pgTable, text } from 'drizzle-orm/pg-core';
import { at } from './columns.ts';
import { tenant } from './schema.ts';

/**
 * Certificates of programs that are not robots: services that call us over gRPC, readers of the event bus. One program
 * may hold several at once, so that it can change over without a gap.
 */
export const clientCertificate = pgTable(
  'client_certificate',
  {
    serialNumber: text('serial_number').primaryKey(),
    /** service | events: what the certificate is for, and the first part of its common name. */
    kind: text('kind').notNull(),
    tenantId: text('tenant_id')
      .notNull()
      .references(() => tenant.tenantId),
    name: text('name').notNull(),
    fingerprintSha256: text('fingerprint_sha256').notNull().unique(),
    scopes: text('scopes').array().notNull(),
    /** Null: every robot of the tenant. */
    robotIds: text('robot_ids').array(),
    issuedAt: at('issued_at').notNull().defaultNow(),
    expiresAt: at('expires_at').notNull(),
    revokedAt: at('revoked_at'),
    revokedReason: text('revoked_reason'),
  },
  (table) => [index('client_certificate_name').on(table.kind, table.tenantId, table.name)],
);
