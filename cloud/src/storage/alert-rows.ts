import type { EpochMs } from '@outrider/shared/time';
import type { Alert, AlertChange, AlertHistoryEntry } from '../alert/alert.ts';
import type { LedgerAlert } from '../alert/ledger.ts';
import type { RuleKind, Severity } from '../alert/rule.ts';
import type { Tx } from './database.ts';

/** Taken by every transaction that writes alerts, so that replicas take turns: the bytes of "alerts". */
const ALERT_LOCK = '107144013046131';

/** Alert writers take turns until the end of the transaction. */
export async function takeTurn(tx: Tx): Promise<void> {
  await tx.query(`select pg_advisory_xact_lock(${ALERT_LOCK})`);
}

export interface AlertRow {
  alert_id: string;
  tenant_id: string;
  robot_pk: number;
  robot_id: string;
  rule_id: string;
  kind: RuleKind;
  severity: Severity;
  title: string;
  dedupe_key: string;
  raised_at: Date;
  last_at: Date;
  cleared_at: Date | null;
  cleared_by: string | null;
  acknowledged_at: Date | null;
  acknowledged_by: string | null;
  acknowledged_notes: string | null;
  occurrences: number;
  flapping: boolean;
  backfilled: boolean;
  value: number | null;
  details: Record<string, unknown>;
  trace_id: string;
  stored_at: Date;
  updated_at: Date;
}

/** A line of history before it is stored. */
export interface NewEntry {
  readonly alertId: string;
  readonly change: AlertChange;
  readonly atMs: number;
  readonly actor?: string | undefined;
  readonly notes?: string | undefined;
  readonly details?: Readonly<Record<string, unknown>>;
}

const ms = (at: Date): EpochMs => at.getTime() as EpochMs;
const msOrNull = (at: Date | null): EpochMs | null => (at === null ? null : ms(at));
const iso = (atMs: number | null): string | null => (atMs === null ? null : new Date(atMs).toISOString());

export function alertOf(row: AlertRow): Alert {
  return {
    alertId: row.alert_id,
    tenantId: row.tenant_id,
    robotId: row.robot_id,
    ruleId: row.rule_id,
    kind: row.kind,
    severity: row.severity,
    title: row.title,
    raisedAt: ms(row.raised_at),
    lastAt: ms(row.last_at),
    clearedAt: msOrNull(row.cleared_at),
    clearedBy: row.cleared_by,
    acknowledgedAt: msOrNull(row.acknowledged_at),
    acknowledgedBy: row.acknowledged_by,
    acknowledgedNotes: row.acknowledged_notes,
    occurrences: row.occurrences,
    flapping: row.flapping,
    backfilled: row.backfilled,
    value: row.value,
    details: row.details,
    traceId: row.trace_id,
    storedAt: ms(row.stored_at),
    updatedAt: ms(row.updated_at),
  };
}

export const placedOf = (row: AlertRow): LedgerAlert => ({
  robotPk: row.robot_pk,
  dedupeKey: row.dedupe_key,
  alert: alertOf(row),
});

/** JSON that PostgreSQL takes: names come from robots, and may hold what it refuses. */
export const storableJson = (value: unknown): string =>
  JSON.stringify(value).replaceAll(/\\u0000|\\ud[89a-f][0-9a-f]{2}/gi, '\\ufffd');

/** Stores alerts, new or changed, in one statement. */
export async function writeAlerts(tx: Tx, alerts: readonly LedgerAlert[]): Promise<void> {
  if (alerts.length === 0) return;
  const rows = alerts.map(({ alert, dedupeKey, robotPk }) => ({
    alert_id: alert.alertId,
    tenant_id: alert.tenantId,
    robot_pk: robotPk,
    robot_id: alert.robotId,
    rule_id: alert.ruleId,
    kind: alert.kind,
    severity: alert.severity,
    title: alert.title,
    dedupe_key: dedupeKey,
    raised_at: iso(alert.raisedAt),
    last_at: iso(alert.lastAt),
    cleared_at: iso(alert.clearedAt),
    cleared_by: alert.clearedBy,
    acknowledged_at: iso(alert.acknowledgedAt),
    acknowledged_by: alert.acknowledgedBy,
    acknowledged_notes: alert.acknowledgedNotes,
    occurrences: alert.occurrences,
    flapping: alert.flapping,
    backfilled: alert.backfilled,
    value: alert.value,
    details: alert.details,
    trace_id: alert.traceId,
    stored_at: iso(alert.storedAt),
    updated_at: iso(alert.updatedAt),
  }));
  const changing = [
    'severity',
    'title',
    'raised_at',
    'last_at',
    'cleared_at',
    'cleared_by',
    'acknowledged_at',
    'acknowledged_by',
    'acknowledged_notes',
    'occurrences',
    'flapping',
    'value',
    'details',
    'updated_at',
  ];
  await tx.query(
    `insert into alert select * from jsonb_populate_recordset(null::alert, $1::text::jsonb)
     on conflict (alert_id) do update set ${changing.map((column) => `${column} = excluded.${column}`).join(', ')}`,
    [storableJson(rows)],
  );
}

/** Adds lines of history, in order. */
export async function writeHistory(tx: Tx, entries: readonly NewEntry[], nowMs: number): Promise<void> {
  if (entries.length === 0) return;
  const rows = entries.map((entry, position) => ({
    position,
    alert_id: entry.alertId,
    change: entry.change,
    at: iso(entry.atMs),
    actor: entry.actor ?? null,
    notes: entry.notes ?? null,
    details: entry.details ?? {},
  }));
  await tx.query(
    `insert into alert_history (alert_id, change, at, stored_at, actor, notes, details)
     select alert_id, change, at, to_timestamp($2::float8 / 1000), actor, notes, details
       from jsonb_to_recordset($1::text::jsonb)
         as u (position int4, alert_id text, change text, at timestamptz, actor text, notes text, details jsonb)
      order by position`,
    [storableJson(rows), nowMs],
  );
}

export interface HistoryRow {
  change: AlertChange;
  at: Date;
  stored_at: Date;
  actor: string | null;
  notes: string | null;
  details: Record<string, unknown>;
}

export const entryOf = (row: HistoryRow): AlertHistoryEntry => ({
  change: row.change,
  at: ms(row.at),
  storedAt: ms(row.stored_at),
  actor: row.actor,
  notes: row.notes,
  details: row.details,
});
