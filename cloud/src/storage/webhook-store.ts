import type { Severity } from '../alert/rule.ts';
import type {
  AttemptResult,
  ClaimedDelivery,
  Delivery,
  DeliveryState,
  Webhook,
  WebhookChange,
  WebhookStore,
} from '../notify/ports.ts';
import type { Database } from './database.ts';

interface WebhookRow {
  webhook_id: string;
  tenant_id: string;
  url: string;
  description: string;
  severities: Severity[];
  changes: WebhookChange[];
  robot_ids: string[] | null;
  enabled: boolean;
  created_at: Date;
  updated_at: Date;
  updated_by: string;
}

interface DeliveryRow {
  delivery_id: string;
  webhook_id: string;
  type: string;
  state: DeliveryState;
  attempts: number;
  due_at: Date;
  last_status: number | null;
  last_error: string | null;
  created_at: Date;
  ended_at: Date | null;
}

/** Everything but the secret, which only a claim reads. */
const COLUMNS = `webhook_id, tenant_id, url, description, severities, changes, robot_ids, enabled, created_at,
  updated_at, updated_by`;
const iso = (atMs: number): string => new Date(atMs).toISOString();

/** Webhooks and their queue in PostgreSQL or PGlite. */
export class SqlWebhookStore implements WebhookStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(hook: Webhook, sealedSecret: string): Promise<void> {
    await this.#database.query(
      `insert into alert_webhook (webhook_id, tenant_id, url, description, secret, severities, changes, robot_ids, enabled,
                                  created_at, updated_at, updated_by)
       values ($1, $2, $3, $4, $5, $6::text[], $7::text[], $8::text[], $9, $10::text::timestamptz, $10::text::timestamptz, $11)`,
      [
        hook.webhookId,
        hook.tenantId,
        hook.url,
        hook.description,
        sealedSecret,
        hook.severities,
        hook.changes,
        hook.robotIds,
        hook.enabled,
        iso(hook.createdMs),
        hook.updatedBy,
      ],
    );
  }

  async list(tenantId: string): Promise<Webhook[]> {
    const rows = await this.#database.query<WebhookRow>(
      `select ${COLUMNS} from alert_webhook where tenant_id = $1 order by webhook_id`,
      [tenantId],
    );
    return rows.map(webhookOf);
  }

  async read(tenantId: string, webhookId: string): Promise<Webhook | undefined> {
    const [row] = await this.#database.query<WebhookRow>(
      `select ${COLUMNS} from alert_webhook where tenant_id = $1 and webhook_id = $2`,
      [tenantId, webhookId],
    );
    return row && webhookOf(row);
  }

  async replace(hook: Webhook): Promise<boolean> {
    const rows = await this.#database.query(
      `update alert_webhook set url = $3, description = $4, severities = $5::text[], changes = $6::text[],
              robot_ids = $7::text[], enabled = $8, updated_at = $9::text::timestamptz, updated_by = $10
        where tenant_id = $1 and webhook_id = $2 returning 1`,
      [
        hook.tenantId,
        hook.webhookId,
        hook.url,
        hook.description,
        hook.severities,
        hook.changes,
        hook.robotIds,
        hook.enabled,
        iso(hook.updatedMs),
        hook.updatedBy,
      ],
    );
    return rows.length > 0;
  }

  async remove(tenantId: string, webhookId: string): Promise<boolean> {
    const rows = await this.#database.query(
      'delete from alert_webhook where tenant_id = $1 and webhook_id = $2 returning 1',
      [tenantId, webhookId],
    );
    return rows.length > 0;
  }

  async enqueue(
    delivery: { deliveryId: string; webhookId: string; type: string; body: string },
    nowMs: number,
  ): Promise<void> {
    await this.#database.query(
      `insert into webhook_delivery (delivery_id, webhook_id, type, body, state, due_at, created_at)
       values ($1, $2, $3, $4, 'pending', $5::text::timestamptz, $5::text::timestamptz)`,
      [delivery.deliveryId, delivery.webhookId, delivery.type, delivery.body, iso(nowMs)],
    );
  }

  async deliveries(webhookId: string, limit: number, before: string | undefined): Promise<Delivery[]> {
    // Ids sort by time.
    const rows = await this.#database.query<DeliveryRow>(
      `select delivery_id, webhook_id, type, state, attempts, due_at, last_status, last_error, created_at, ended_at
         from webhook_delivery where webhook_id = $1 and ($2::text is null or delivery_id < $2::text)
        order by delivery_id desc limit $3::int4`,
      [webhookId, before ?? null, limit],
    );
    return rows.map((row) => ({
      deliveryId: row.delivery_id,
      webhookId: row.webhook_id,
      type: row.type,
      state: row.state,
      attempts: row.attempts,
      dueMs: row.due_at.getTime(),
      lastStatus: row.last_status,
      lastError: row.last_error,
      createdMs: row.created_at.getTime(),
      endedMs: row.ended_at === null ? null : row.ended_at.getTime(),
    }));
  }

  async claim(
    nowMs: number,
    holdMs: number,
    limit: number,
    perWebhook: number,
    busy: readonly string[],
  ): Promise<ClaimedDelivery[]> {
    const rows = await this.#database.query<{
      delivery_id: string;
      webhook_id: string;
      url: string;
      secret: string;
      body: string;
      attempts: number;
    }>(
      `with due as (
         select delivery_id, row_number() over (partition by webhook_id order by due_at, delivery_id) as place
           from (select delivery_id, webhook_id, due_at from webhook_delivery join alert_webhook h using (webhook_id)
                  where state = 'pending' and due_at <= $1::text::timestamptz and h.enabled
                    and not (webhook_id = any($5::text[])) order by due_at limit 500) as w),
       claimed as (
         select delivery_id from webhook_delivery
          where delivery_id in (select delivery_id from due where place <= $4::int4) and state = 'pending'
            and due_at <= $1::text::timestamptz
          order by due_at limit $3::int4 for update skip locked)
       update webhook_delivery d set attempts = d.attempts + 1, due_at = $2::text::timestamptz
         from claimed, alert_webhook h
        where d.delivery_id = claimed.delivery_id and h.webhook_id = d.webhook_id
       returning d.delivery_id, d.webhook_id, h.url, h.secret, d.body, d.attempts`,
      [iso(nowMs), iso(nowMs + holdMs), limit, perWebhook, busy],
    );
    return rows.map((row) => ({
      deliveryId: row.delivery_id,
      webhookId: row.webhook_id,
      url: row.url,
      sealedSecret: row.secret,
      body: row.body,
      attempts: row.attempts,
    }));
  }

  async settle(results: readonly AttemptResult[], nowMs: number): Promise<void> {
    for (const result of results) {
      await this.#database.query(
        `update webhook_delivery
            set state = $2, due_at = coalesce($3::text::timestamptz, due_at), last_status = $4::int4, last_error = $5,
                ended_at = case when $2 = 'pending' then null else $6::text::timestamptz end
          where delivery_id = $1 and state = 'pending'`,
        [
          result.deliveryId,
          result.state,
          result.dueMs === undefined ? null : iso(result.dueMs),
          result.status ?? null,
          result.error ?? null,
          iso(nowMs),
        ],
      );
    }
  }

  async removeEnded(beforeMs: number): Promise<void> {
    await this.#database.query(`delete from webhook_delivery where ended_at < $1::text::timestamptz`, [iso(beforeMs)]);
  }

  async waiting(): Promise<number> {
    const [row] = await this.#database.query<{ count: number }>(
      `select count(*)::int4 as count from webhook_delivery where state = 'pending'`,
    );
    return row?.count ?? 0;
  }
}

const webhookOf = (row: WebhookRow): Webhook => ({
  webhookId: row.webhook_id,
  tenantId: row.tenant_id,
  url: row.url,
  description: row.description,
  severities: row.severities,
  changes: row.changes,
  robotIds: row.robot_ids,
  enabled: row.enabled,
  createdMs: row.created_at.getTime(),
  updatedMs: row.updated_at.getTime(),
  updatedBy: row.updated_by,
});
