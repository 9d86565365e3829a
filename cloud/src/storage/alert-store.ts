import type { Alert, AlertHistoryEntry, FreshNews } from '../alert/alert.ts';
import type { Finding } from '../alert/finding.ts';
import { Ledger } from '../alert/ledger.ts';
import type {
  ActionOutcome,
  AlertAction,
  AlertQuery,
  AlertStore,
  EventPast,
  PendingEvent,
  SweepRule,
} from '../alert/ports.ts';
import { dedupeKeyOf } from '../alert/rule.ts';
import type { KnownAlert } from '../alert/telemetry-watch.ts';
import {
  type AlertRow,
  alertOf,
  entryOf,
  type HistoryRow,
  placedOf,
  takeTurn,
  writeAlerts,
  writeHistory,
} from './alert-rows.ts';
import { sweepFindings } from './alert-sweeps.ts';
import type { Database, Tx } from './database.ts';
import { enqueueNotifications } from './webhook-rows.ts';

const SIGNAL_KINDS = ['threshold', 'duration', 'repetition'];
const LATCHED = 'LATCHED';

/** Alerts in PostgreSQL or PGlite. */
export class SqlAlertStore implements AlertStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async apply(findings: readonly Finding[], nowMs: number): Promise<FreshNews[]> {
    if (findings.length === 0) return [];
    return await this.#database.transaction(async (tx) => {
      await takeTurn(tx);
      return await applyFindings(tx, findings, nowMs);
    });
  }

  async judgePending(
    judge: (events: readonly PendingEvent[], past: EventPast) => Promise<readonly Finding[]>,
    limit: number,
    nowMs: number,
  ): Promise<{ events: number; news: FreshNews[] }> {
    // Most calls find nothing: they must not wait for their turn.
    if (!(await this.#hasPending())) return { events: 0, news: [] };
    return await this.#database.transaction(async (tx) => {
      await takeTurn(tx);
      const events = [...(await takePending(tx, limit)), ...(await takeFromBus(tx, limit))];
      const findings = await judge(events, pastOf(tx));
      return { events: events.length, news: await applyFindings(tx, findings, nowMs) };
    });
  }

  async sweep(rules: readonly SweepRule[], nowMs: number): Promise<FreshNews[]> {
    const findings: Finding[] = [];
    for (const entry of rules) for (const one of await sweepFindings(this.#database, entry, nowMs)) findings.push(one);
    return await this.apply(findings, nowMs);
  }

  async clearOrphans(tenantId: string, activeRuleIds: readonly string[], nowMs: number): Promise<FreshNews[]> {
    return await this.#close(
      tenantId,
      `not (rule_id = any($2::text[])) or exists (select 1 from robot r where r.robot_pk = alert.robot_pk
         and r.deregistered_at is not null)`,
      [activeRuleIds],
      nowMs,
    );
  }

  async act(action: AlertAction): Promise<ActionOutcome> {
    const { tenantId, alertIds, robotIds, change, actor, notes, nowMs } = action;
    return await this.#database.transaction(async (tx) => {
      await takeTurn(tx);
      const rows = await tx.query<AlertRow>(
        `select * from alert where tenant_id = $1 and alert_id = any($2::text[])
            and ($3::text[] is null or robot_id = any($3::text[])) for update`,
        [tenantId, alertIds, robotIds ?? null],
      );
      const found = new Set(rows.map((row) => row.alert_id));
      const missing = alertIds.filter((alertId) => !found.has(alertId));
      if (missing.length > 0) return { alerts: [], news: [], missing };
      const at = new Date(nowMs);
      const due = rows.filter((row) =>
        change === 'cleared' ? row.cleared_at === null : (change === 'acknowledged') === (row.acknowledged_at === null),
      );
      for (const row of due) {
        row.updated_at = at;
        if (change === 'cleared') {
          row.cleared_at = row.raised_at > at ? row.raised_at : at;
          row.cleared_by = actor;
          row.flapping = false;
        } else {
          const isAcknowledged = change === 'acknowledged';
          row.acknowledged_at = isAcknowledged ? at : null;
          row.acknowledged_by = isAcknowledged ? actor : null;
          row.acknowledged_notes = isAcknowledged ? (notes ?? null) : null;
        }
      }
      await writeAlerts(tx, due.map(placedOf));
      await writeHistory(
        tx,
        due.map((row) => ({ alertId: row.alert_id, change, atMs: nowMs, actor, notes })),
        nowMs,
      );
      const news = due.map((row): FreshNews => {
        const alert = alertOf(row);
        return { change, at: alert.updatedAt, actor, alert, isLate: false };
      });
      await enqueueNotifications(tx, news, nowMs);
      const alerts = alertIds.flatMap((alertId) => rows.filter((row) => row.alert_id === alertId)).map(alertOf);
      return { alerts, news, missing };
    });
  }

  async query(tenantId: string, query: AlertQuery): Promise<Alert[]> {
    const { after } = query;
    const rows = await this.#database.query<AlertRow>(
      `select * from alert
        where tenant_id = $1
          and ($2::text[] is null or severity = any($2::text[]))
          and ($3::text[] is null or robot_id = any($3::text[]))
          and ($4::text[] is null or rule_id = any($4::text[]))
          and ($5::text is null or (cleared_at is null) = ($5::text = 'active'))
          and ($6::bool is null or (acknowledged_at is not null) = $6::bool)
          and ($7::float8 is null or cleared_at is null or cleared_at >= to_timestamp($7::float8 / 1000))
          and ($8::float8 is null or raised_at <= to_timestamp($8::float8 / 1000))
          and ($9::float8 is null or (raised_at, alert_id) < (to_timestamp($9::float8 / 1000), $10::text))
        order by raised_at desc, alert_id desc limit $11::int4`,
      [
        tenantId,
        query.severities ?? null,
        query.robotIds ?? null,
        query.ruleIds ?? null,
        query.status ?? null,
        query.acknowledged ?? null,
        query.fromMs ?? null,
        query.toMs ?? null,
        after?.raisedMs ?? null,
        after?.alertId ?? null,
        query.limit,
      ],
    );
    return rows.map(alertOf);
  }

  async read(tenantId: string, alertId: string): Promise<Alert | undefined> {
    const [row] = await this.#database.query<AlertRow>('select * from alert where tenant_id = $1 and alert_id = $2', [
      tenantId,
      alertId,
    ]);
    return row && alertOf(row);
  }

  async history(alertId: string): Promise<AlertHistoryEntry[]> {
    const rows = await this.#database.query<HistoryRow>(
      'select change, at, stored_at, actor, notes, details from alert_history where alert_id = $1 order by entry_id',
      [alertId],
    );
    return rows.map(entryOf);
  }

  async known(closedSinceMs: number): Promise<KnownAlert[]> {
    const rows = await this.#database.query<AlertRow>(
      `select distinct on (tenant_id, dedupe_key) * from alert
        where kind = any($1::text[]) and (cleared_at is null or updated_at >= to_timestamp($2::float8 / 1000))
        order by tenant_id, dedupe_key, (cleared_at is null) desc, raised_at desc`,
      [SIGNAL_KINDS, closedSinceMs],
    );
    return rows.map((row) => ({
      tenantId: row.tenant_id,
      dedupeKey: row.dedupe_key,
      stream: typeof row.details['stream'] === 'string' ? row.details['stream'] : '',
      raisedMs: row.last_at.getTime(),
      isOpen: row.cleared_at === null,
      isFlapping: row.flapping,
      isMuted: row.cleared_by !== null,
    }));
  }

  async raisesSince(sinceMs: number): Promise<{ tenantId: string; dedupeKey: string; raisedMs: number }[]> {
    const rows = await this.#database.query<{ tenant_id: string; dedupe_key: string; at: Date }>(
      `select a.tenant_id, a.dedupe_key, h.at from alert a join alert_history h using (alert_id)
        where a.kind = any($1::text[]) and a.last_at >= to_timestamp($2::float8 / 1000)
          and h.at >= to_timestamp($2::float8 / 1000) and h.change in ('raised', 'reopened', 'flapping')
        order by h.at`,
      [SIGNAL_KINDS, sinceMs],
    );
    return rows.map((row) => ({ tenantId: row.tenant_id, dedupeKey: row.dedupe_key, raisedMs: row.at.getTime() }));
  }

  async #hasPending(): Promise<boolean> {
    const [row] = await this.#database.query<{ waiting: boolean }>(
      `select exists (select 1 from alert_pending)
           or coalesce((select max(feed) from bus_event), 0)
              > coalesce((select position from alert_progress where feed = 'bus'), 0) as waiting`,
    );
    return row?.waiting === true;
  }

  async #close(tenantId: string, where: string, more: readonly unknown[], nowMs: number): Promise<FreshNews[]> {
    const condition = `tenant_id = $1 and cleared_at is null and (${where})`;
    const parameters = [tenantId, ...more];
    const [first] = await this.#database.query(`select 1 from alert where ${condition} limit 1`, parameters);
    if (!first) return [];
    return await this.#database.transaction(async (tx) => {
      await takeTurn(tx);
      const rows = await tx.query<AlertRow>(`select * from alert where ${condition} for update`, parameters);
      const at = new Date(nowMs);
      for (const row of rows)
        Object.assign(row, { cleared_at: row.raised_at > at ? row.raised_at : at, updated_at: at });
      await writeAlerts(tx, rows.map(placedOf));
      const details = { reason: 'the rule or the robot is gone' };
      await writeHistory(
        tx,
        rows.map((row) => ({ alertId: row.alert_id, change: 'cleared', atMs: nowMs, details })),
        nowMs,
      );
      const news = rows.map(alertOf).map(
        (alert): FreshNews => ({
          change: 'cleared',
          at: alert.updatedAt,
          actor: null,
          alert,
          isLate: false,
        }),
      );
      await enqueueNotifications(tx, news, nowMs);
      return news;
    });
  }
}

async function applyFindings(tx: Tx, findings: readonly Finding[], nowMs: number): Promise<FreshNews[]> {
  if (findings.length === 0) return [];
  const keys = [
    findings.map(({ robot }) => robot.tenantId),
    findings.map(({ robot, rule }) => dedupeKeyOf(rule.ruleId, robot.robotId)),
  ];
  const select = (where: string): string => `
    select distinct on (a.tenant_id, a.dedupe_key) a.* from alert a
      join unnest($1::text[], $2::text[]) as u (tenant_id, dedupe_key) using (tenant_id, dedupe_key)
     ${where} order by a.tenant_id, a.dedupe_key, (a.cleared_at is null) desc, a.raised_at desc`;
  const current = await tx.query<AlertRow>(select(''), keys);
  const hasEpisodes = findings.some(({ action }) => action === 'episode');
  const past = hasEpisodes
    ? await tx.query<AlertRow>(select('where a.backfilled and a.cleared_at is not null'), keys)
    : [];
  const ledger = new Ledger(current.map(placedOf), past.map(placedOf), nowMs);
  for (const finding of findings) ledger.enter(finding);
  await writeAlerts(tx, ledger.changed);
  await writeHistory(tx, ledger.entries, nowMs);
  await enqueueNotifications(tx, ledger.news, nowMs);
  return ledger.news;
}

interface EventRow {
  robot_pk: number;
  tenant_id: string;
  robot_id: string;
  event_id: string;
  type: string;
  occurred_at: Date;
  ingested_at: Date;
  trace_id: string;
  /** What a robot said, which may be anything. */
  payload: unknown;
}

/** Takes marks away and gives the events that they stood for, each lane in its order. */
async function takePending(tx: Tx, limit: number): Promise<PendingEvent[]> {
  const rows = await tx.query<EventRow>(
    `with taken as (
       delete from alert_pending where (robot_pk, epoch, seq) in
         (select robot_pk, epoch, seq from alert_pending order by robot_pk, epoch, seq limit $1::int4)
       returning robot_pk, epoch, seq)
     select e.*, r.tenant_id, r.robot_id from robot_event e join taken using (robot_pk, epoch, seq)
       join robot r on r.robot_pk = e.robot_pk order by e.ingested_at, e.robot_pk, e.epoch, e.seq`,
    [limit],
  );
  return rows.map(eventOf);
}

/** Anomalies that the control plane found itself. Those of robots come with their events. */
async function takeFromBus(tx: Tx, limit: number): Promise<PendingEvent[]> {
  const [head] = await tx.query<{ head: number; done: number }>(
    `select coalesce((select max(feed) from bus_event), 0) as head,
            coalesce((select position from alert_progress where feed = 'bus'), 0) as done`,
  );
  if (!head || head.head <= head.done) return [];
  const rows = await tx.query<EventRow & { feed: number }>(
    `select b.feed, r.robot_pk, b.tenant_id, r.robot_id, b.event_id, b.type, b.occurred_at,
            b.stored_at as ingested_at, b.trace_id, b.payload::jsonb as payload
       from bus_event b join robot r on r.tenant_id = b.tenant_id and r.robot_id = b.subject_id and r.deregistered_at is null
      where b.feed > $1::int8 and b.feed <= $2::int8 and b.type = 'anomaly.detected.v1'
        and not exists (select 1 from robot_event e where e.robot_pk = r.robot_pk and e.occurred_at = b.occurred_at
                          and e.event_id = b.event_id)
      order by b.feed limit $3::int4`,
    [head.done, head.head, limit],
  );
  const done = rows.length < limit ? head.head : (rows.at(-1)?.feed ?? head.head);
  await tx.query(
    `insert into alert_progress (feed, position) values ('bus', $1::int8)
     on conflict (feed) do update set position = excluded.position`,
    [done],
  );
  return rows.map(eventOf);
}

const eventOf = (row: EventRow): PendingEvent => ({
  robot: { robotPk: row.robot_pk, tenantId: row.tenant_id, robotId: row.robot_id },
  eventId: row.event_id,
  type: row.type,
  occurredMs: row.occurred_at.getTime(),
  ingestedMs: row.ingested_at.getTime(),
  traceId: row.trace_id,
  payload: isRecord(row.payload) ? row.payload : {},
});

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function pastOf(tx: Tx): EventPast {
  return {
    async count(robotPk, type, afterMs, untilMs) {
      const [row] = await tx.query<{ count: number }>(
        `select count(*)::int4 as count from robot_event where robot_pk = $1 and type = $2
            and occurred_at > to_timestamp($3::float8 / 1000) and occurred_at <= to_timestamp($4::float8 / 1000)`,
        [robotPk, type, afterMs, untilMs],
      );
      return row?.count ?? 0;
    },
    async unlatchedAfter(robotPk, afterMs) {
      const [row] = await tx.query<{ at: Date }>(
        `select occurred_at as at from robot_event where robot_pk = $1 and type = 'failsafe.transition.v1'
            and occurred_at > to_timestamp($2::float8 / 1000) and payload->>'to_phase' <> '${LATCHED}'
          order by occurred_at limit 1`,
        [robotPk, afterMs],
      );
      return row?.at.getTime();
    },
  };
}
