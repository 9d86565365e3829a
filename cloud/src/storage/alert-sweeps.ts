import { type Finding, isLate } from '../alert/finding.ts';
import type { SweepRule } from '../alert/ports.ts';
import type { Rule } from '../alert/rule.ts';
import type { Queryable } from './database.ts';

/** Robots that one rule takes up at a time; the rest follow with the next round. */
const AT_ONCE = 2000;
/** A verdict older than this says nothing of now. */
const FRESH_MS = 60_000;
const RISKS = ['medium', 'high', 'critical'] as const;
const DETAILS: Readonly<Partial<Record<Rule['condition']['kind'], string>>> = {
  offline: 'presence',
  no_data: 'stream_kind',
  anomaly: 'risk_level',
};

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

/**
 * What the analyser last said, on the robot or here. The value is the robot's own words and may be anything, so its time
 * is read only when it is one.
 */
const HEALTH = `join lateral (
    select s.at, s.value->>'risk_level' as risk, jsonb_typeof(s.value->'alarm_since_ms') = 'number' as is_alarm,
           case when jsonb_typeof(s.value->'alarm_since_ms') = 'number'
                then to_timestamp(least(greatest((s.value->>'alarm_since_ms')::numeric, 0), 4e12)::float8 / 1000) end as since
      from robot_shadow s where s.robot_pk = r.robot_pk and s.key in ('health', 'cloud_health')
       and jsonb_typeof(s.value->'alarm_since_ms') is not null order by s.at desc limit 1) h on true`;

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
    case 'anomaly': {
      // An alarm that grew after it began, and one that is over: neither has an event.
      const risks = RISKS.slice(RISKS.indexOf(condition.riskLevel));
      const raises = await find(
        'raise',
        `select r.robot_pk, r.robot_id, h.risk as detail, h.since as at
           ${robotsOf(HEALTH)} and a.alert_id is null and h.is_alarm and h.risk = any($4::text[])
           and h.at > to_timestamp($5::float8 / 1000) and ${notSince("h.since - interval '1 second'")}`,
        [risks, nowMs - FRESH_MS],
      );
      const clears = await find(
        'clear',
        `select r.robot_pk, r.robot_id, coalesce(h.risk, '') as detail, h.at
           ${robotsOf(HEALTH)} and a.alert_id is not null and not h.is_alarm
           and h.at > a.last_at + $4::float8 * interval '1 ms'`,
        [clearForMs],
      );
      return [...raises, ...clears];
    }
    case 'threshold':
    case 'duration':
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
    details: row.detail === '' ? {} : { [DETAILS[rule.condition.kind] ?? 'detail']: row.detail },
  };
}
