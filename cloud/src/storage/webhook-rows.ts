import { newId } from '@outrider/shared/ids';
import type { AlertNews, FreshNews } from '../alert/alert.ts';
import { DIGEST_TYPE, digestOf, type Notification, notificationOf, wants } from '../notify/notification.ts';
import { storableJson } from './alert-rows.ts';
import type { Tx } from './database.ts';

/** A digest waits this long after the last change of it … */
const DIGEST_QUIET_MS = 15_000;
/** … and no longer than this after the first. */
const DIGEST_MS_MAX = 120_000;
/** Changes of one moment that a webhook is told of one by one. */
const SINGLE_MAX = 25;

interface HookRow {
  webhook_id: string;
  tenant_id: string;
  severities: string[];
  changes: string[];
  robot_ids: string[] | null;
}

/** Puts notifications of these changes into the queue of every webhook that wants them. Late ones share a digest. */
export async function enqueueNotifications(tx: Tx, news: readonly FreshNews[], nowMs: number): Promise<void> {
  if (news.length === 0) return;
  const hooks = await tx.query<HookRow>(
    `select webhook_id, tenant_id, severities, changes, robot_ids from alert_webhook
      where enabled and tenant_id = any($1::text[])`,
    [[...new Set(news.map(({ alert }) => alert.tenantId))]],
  );
  const rows: { delivery_id: string; webhook_id: string; type: string; body: string }[] = [];
  for (const hook of hooks) {
    const filter = { severities: hook.severities, changes: hook.changes, robotIds: hook.robot_ids };
    const own = news.filter(({ alert }) => alert.tenantId === hook.tenant_id);
    const single = own.filter((one) => !one.isLate && wants(filter, one.change, one.alert));
    const late = own.filter((one) => one.isLate && wants(filter, 'digest', one.alert));
    // A broker that went away takes the whole fleet with it: past some, one notification tells of all.
    const hasDigest = hook.changes.includes('digest');
    for (const [place, one] of single.entries()) {
      if (place >= SINGLE_MAX && hasDigest) late.push(one);
      else rows.push(rowOf(hook.webhook_id, notificationOf(one)));
    }
    if (late.length > 0) await addToDigest(tx, hook.webhook_id, late, nowMs);
  }
  if (rows.length === 0) return;
  await tx.query(
    `insert into webhook_delivery (delivery_id, webhook_id, type, body, state, due_at, created_at)
     select delivery_id, webhook_id, type, body, 'pending', to_timestamp($2::float8 / 1000), to_timestamp($2::float8 / 1000)
       from jsonb_to_recordset($1::text::jsonb) as u (delivery_id text, webhook_id text, type text, body text)`,
    [JSON.stringify(rows), nowMs],
  );
}

const rowOf = (webhookId: string, notification: Notification) => ({
  delivery_id: newId('msg'),
  webhook_id: webhookId,
  type: notification.type,
  body: storableJson(notification),
});

async function addToDigest(tx: Tx, webhookId: string, late: readonly AlertNews[], nowMs: number): Promise<void> {
  const [open] = await tx.query<{ delivery_id: string; body: string; created_at: Date }>(
    `select delivery_id, body, created_at from webhook_delivery
      where webhook_id = $1 and type = $2 and state = 'pending' and attempts = 0 for update`,
    [webhookId, DIGEST_TYPE],
  );
  const body = storableJson(digestOf(late, open?.body, nowMs));
  if (!open) {
    await tx.query(
      `insert into webhook_delivery (delivery_id, webhook_id, type, body, state, due_at, created_at)
       values ($1, $2, $3, $4, 'pending', to_timestamp($5::float8 / 1000), to_timestamp($6::float8 / 1000))`,
      [newId('msg'), webhookId, DIGEST_TYPE, body, nowMs + DIGEST_QUIET_MS, nowMs],
    );
    return;
  }
  const dueMs = Math.min(nowMs + DIGEST_QUIET_MS, open.created_at.getTime() + DIGEST_MS_MAX);
  await tx.query(
    `update webhook_delivery set body = $2, due_at = to_timestamp($3::float8 / 1000) where delivery_id = $1`,
    [open.delivery_id, body, dueMs],
  );
}
