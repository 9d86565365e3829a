import type { Alert } from './alert.ts';

const iso = (atMs: number | null): string | null => (atMs === null ? null : new Date(atMs).toISOString());

/** An alert as every caller reads it: HTTP, the live stream and webhooks say the same. */
export function describeAlert(alert: Alert) {
  return {
    alert_id: alert.alertId,
    robot_id: alert.robotId,
    rule_id: alert.ruleId,
    kind: alert.kind,
    severity: alert.severity,
    title: alert.title,
    status: alert.clearedAt === null ? ('active' as const) : ('cleared' as const),
    raised_at: new Date(alert.raisedAt).toISOString(),
    last_at: new Date(alert.lastAt).toISOString(),
    cleared_at: iso(alert.clearedAt),
    cleared_by: alert.clearedBy,
    acknowledged: alert.acknowledgedAt !== null,
    acknowledged_at: iso(alert.acknowledgedAt),
    acknowledged_by: alert.acknowledgedBy,
    acknowledged_notes: alert.acknowledgedNotes,
    occurrences: alert.occurrences,
    flapping: alert.flapping,
    backfilled: alert.backfilled,
    value: alert.value,
    details: alert.details,
    trace_id: alert.traceId,
    stored_at: new Date(alert.storedAt).toISOString(),
    updated_at: new Date(alert.updatedAt).toISOString(),
  };
}
