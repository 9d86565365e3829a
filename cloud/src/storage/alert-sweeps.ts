import { type Finding, isLate } from '../alert/finding.ts';
import type { SweepRule } from '../alert/ports.ts';
import type { Rule } from '../alert/rule.ts';
import type { Queryable } from './database.ts';

/** Robots that one rule takes up at a time; the rest follow with the next round. */
const AT_ONCE = 2000;

interface SweepRow {
  robot_pk: number;
  robot_id: string;
  /** When it began, or ended. */
  at: Date;
  detail: string;
}

/** The robots of the rule, and the alert that it may have. Parameters: tenant, key prefix, robots. */
const robotsOf = (join: string): string => `
  from robot r ${join}
  left join alert a on a.tenant_id = r.tenant_id and a.dedupe_key = $2::text || r.robot_id and a.cleared_at is null
 where r.tenant_id = $1 and r.deregistered_at is null and ($3::text[] is null or r.robot_id = any($3::text[]))`;

/** No alert of this spell: one that a person closed is not raised again for as long as it lasts. */
const notSince = (begin: string): string => `not exists (select 1 from alert b where b.tenant_id = r.tenant_id
  and b.dedupe_key = $2::text || r.robot_id and b.raised_at >= ${begin})`;

const LAST_DATA = `join lateral (select max(l.ingested_at) as at from latest_sample l where l.robot_pk = r.robot_pk
    and ($4::text is null or l.kind = $4::text)) d on d.at is not null
  left join robot_presence p on p.robot_pk = r.robot_pk`;

/** What time alone decides about one rule. */
export async function sweepFindings(db: Queryable, { tenantId, rule }: SweepRule, nowMs: number): Promise<Finding[]> {
  const { condition, flap } = rule;
  const base = [tenantId, `${rule.ruleId}/`, rule.robotIds ?? null];
  const find = async (action: 'raise' | 'clear', sql: string, more: readonly unknown[]): Promise<Finding[]> => {
    const rows = await db.query<SweepRow>(`${sql} limit ${AT_ONCE}`, [...base, ...more]);
    return rows.map((row) => findingOf(tenantId, rule, action, row, nowMs));
  };
  const clearForMs = flap.clearForS * 1000;
  switch (condition.kind) {
    case 'offline': {
      const join = 'join robot_presence p on p.robot_pk = r.robot_pk and p.boot_id is not null';
      const away = condition.orderly ? ['CONNECTION_BROKEN', 'OFFLINE'] : ['CONNECTION_BROKEN'];
      const forMs = condition.forS * 1000;
      const raises = await find(
        'raise',
        `select r.robot_pk, r.robot_id, p.presence as detail, p.changed_at + $5::float8 * interval '1 ms' as at
           ${robotsOf(join)} and a.alert_id is null and p.presence = any($4::text[])
           and p.changed_at <= to_timestamp(($6::float8 - $5::float8) / 1000) and ${notSince('p.changed_at')}`,
        [away, forMs, nowMs],
      );
      const clears = await find(
        'clear',
        `select r.robot_pk, r.robot_id, p.presence as detail, p.changed_at as at
           ${robotsOf(join)} and a.alert_id is not null and p.presence = 'ONLINE'
           and p.changed_at <= to_timestamp(($5::float8 - $4::float8) / 1000)`,
        [clearForMs, nowMs],
      );
      return [...raises, ...clears];
    }
    case 'no_data': {
      const kind = condition.streamKind ?? null;
      const raises = await find(
        'raise',
        `select r.robot_pk, r.robot_id, coalesce($4::text, '') as detail, d.at + $5::float8 * interval '1 ms' as at
           ${robotsOf(LAST_DATA)} and a.alert_id is null and d.at <= to_timestamp(($6::float8 - $5::float8) / 1000)
           and (p.boot_id is null or p.presence = 'ONLINE') and ${notSince('d.at')}`,
        [kind, condition.forS * 1000, nowMs],
      );
      const clears = await find(
        'clear',
        `select r.robot_pk, r.robot_id, coalesce($4::text, '') as detail, d.at
           ${robotsOf(LAST_DATA)} and a.alert_id is not null and d.at > a.raised_at`,
        [kind],
      );
      return [...raises, ...clears];
    }
    case 'repetition': {
      if (condition.comparison) return [];
      // Quiet for as long as the rule counts, and for its own hold.
      const quietMs = Math.max(clearForMs, condition.withinS * 1000);
      return await find(
        'clear',
        `select r.robot_pk, r.robot_id, '' as detail, a.last_at + $4::float8 * interval '1 ms' as at
           ${robotsOf('')} and a.alert_id is not null and a.last_at <= to_timestamp(($5::float8 - $4::float8) / 1000)`,
        [quietMs, nowMs],
      );
    }
    case 'threshold':
    case 'duration':
    case 'anomaly':
    case 'failsafe':
      return [];
  }
}

function findingOf(tenantId: string, rule: Rule, action: 'raise' | 'clear', row: SweepRow, nowMs: number): Finding {
  const atMs = row.at.getTime();
  return {
    robot: { robotPk: row.robot_pk, tenantId, robotId: row.robot_id },
    rule,
    action,
    atMs,
    isLate: action === 'raise' && isLate(atMs, nowMs),
    details: row.detail === '' ? {} : { [rule.condition.kind === 'offline' ? 'presence' : 'stream_kind']: row.detail },
  };
}
