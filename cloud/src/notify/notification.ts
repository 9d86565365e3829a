import type { Alert, AlertNews } from '../alert/alert.ts';
import { describeAlert } from '../alert/describe.ts';
import type { WebhookChange } from './ports.ts';

/** Alerts that a digest lists; the counts are of all. */
const LISTED_MAX = 50;

/** The body of a notification, in the shape that Standard Webhooks recommends. */
export interface Notification {
  readonly type: string;
  readonly timestamp: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** One change of one alert. */
export const notificationOf = ({ change, at, actor, alert }: AlertNews): Notification => ({
  type: `alert.${change}`,
  timestamp: new Date(at).toISOString(),
  data: { tenant_id: alert.tenantId, change, actor, alert: describeAlert(alert) },
});

/** For a person who wants to see whether a webhook works. */
export const testNotification = (tenantId: string, actor: string, nowMs: number): Notification => ({
  type: 'alert.test',
  timestamp: new Date(nowMs).toISOString(),
  data: { tenant_id: tenantId, actor },
});

type Described = ReturnType<typeof describeAlert>;

interface DigestData {
  readonly tenant_id: string;
  readonly raised: number;
  readonly cleared: number;
  /** Alerts that are not in `alerts`. */
  readonly left_out: number;
  /** Newest state of each, those still active first. */
  readonly alerts: readonly Described[];
}

export const DIGEST_TYPE = 'alert.digest';

/** One body for many changes of a robot's past. @param before The digest so far, as it was stored. */
export function digestOf(news: readonly AlertNews[], before: string | undefined, nowMs: number): Notification {
  const old = before === undefined ? undefined : (JSON.parse(before) as { data: DigestData }).data;
  const alerts = new Map((old?.alerts ?? []).map((alert) => [alert.alert_id, alert]));
  let leftOut = old?.left_out ?? 0;
  let raised = old?.raised ?? 0;
  let cleared = old?.cleared ?? 0;
  for (const { change, alert } of news) {
    if (change === 'raised') raised += 1;
    if (change === 'cleared') cleared += 1;
    if (alerts.size >= LISTED_MAX && !alerts.has(alert.alertId)) leftOut += 1;
    else alerts.set(alert.alertId, describeAlert(alert));
  }
  const listed = [...alerts.values()].sort((a, b) => Number(a.cleared_at !== null) - Number(b.cleared_at !== null));
  const data: DigestData = { tenant_id: tenantOf(news, old), raised, cleared, left_out: leftOut, alerts: listed };
  return { type: DIGEST_TYPE, timestamp: new Date(nowMs).toISOString(), data: { ...data } };
}

const tenantOf = (news: readonly AlertNews[], old: DigestData | undefined): string =>
  old?.tenant_id ?? news[0]?.alert.tenantId ?? '';

/** Whether a webhook wants to hear of it. */
export function wants(
  webhook: {
    readonly severities: readonly string[];
    readonly changes: readonly string[];
    readonly robotIds: readonly string[] | null;
  },
  change: WebhookChange,
  { severity, robotId }: Pick<Alert, 'severity' | 'robotId'>,
): boolean {
  if (!webhook.changes.includes(change) || !webhook.severities.includes(severity)) return false;
  return webhook.robotIds === null || webhook.robotIds.includes(robotId);
}
