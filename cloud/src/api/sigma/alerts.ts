import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import type { Alert } from '../../alert/alert.ts';
import { describeAlert } from '../../alert/describe.ts';
import { SEVERITIES } from '../../alert/rule.ts';
import type { Principal } from '../../identity/principal.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { registerAlertRules } from './alert-rules.ts';
import { AlertActionReply, AlertActionRequest, AlertList, AlertPath, AlertWithHistory } from './alert-schemas.ts';
import { registerAlertWebhooks } from './alert-webhooks.ts';
import { sigmaErrors } from './responses.ts';

const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 500;
const LISTED_MAX = 100;
/** Whoever may read telemetry may read what it led to: the document knows no scope of alerts. */
const READ = ['alert:read', 'telemetry:read'] as const;
/** Whoever may command a robot may answer its alerts. */
const ANSWER = ['alert:write', 'command:write'] as const;
const shared = { tag: 'SigmaPrompt', throttle: 'tier' } as const;

const list = (description: string) => z.string().max(8_192).optional().openapi({ description });
const AlertQueryParams = z.strictObject({
  severity: list(`Any of ${SEVERITIES.join(', ')}, separated by commas`),
  robot_id: list('Robots, separated by commas'),
  rule_id: list('Rules, separated by commas'),
  status: z.enum(['active', 'cleared']).optional(),
  acknowledged: z.enum(['true', 'false']).optional(),
  from: z.iso
    .datetime({ offset: true })
    .optional()
    .openapi({ description: 'Only alerts that were still open at this time, or later' }),
  to: z.iso.datetime({ offset: true }).optional().openapi({ description: 'Only alerts that were raised by this time' }),
  limit: z
    .string()
    .regex(/^\d{1,3}$/, `must be 1 to ${LIMIT_MAX}`)
    .transform(Number)
    .pipe(z.int().min(1).max(LIMIT_MAX))
    .optional(),
  cursor: z.string().max(256).optional().openapi({ description: 'The `next_cursor` of the page before' }),
});

/** /api/v1/alerts, SigmaPrompt §9. */
export function registerAlerts(router: Router, core: Core): void {
  router.add(
    {
      ...shared,
      method: 'get',
      path: '/api/v1/alerts',
      operationId: 'listAlerts',
      summary: 'Active and historical alerts, newest first',
      access: READ,
      query: AlertQueryParams,
      responses: { 200: { description: 'Alerts', schema: AlertList }, ...sigmaErrors([400, 401, 403, 404, 429, 503]) },
    },
    async ({ principal, query }, c) => {
      const robotIds = words('robot_id', query.robot_id);
      for (const robotId of robotIds ?? []) await core.robots.find(principal, robotId);
      const fromMs = query.from === undefined ? undefined : Date.parse(query.from);
      const toMs = query.to === undefined ? undefined : Date.parse(query.to);
      if (fromMs !== undefined && toMs !== undefined && fromMs > toMs) throw refuse('from', 'must not be after to');
      const page = await core.alerts.query(principal, {
        severities: words('severity', query.severity)?.map((word) => {
          const severity = SEVERITIES.find((known) => known === word);
          if (!severity) throw refuse('severity', `must be among ${SEVERITIES.join(', ')}`);
          return severity;
        }),
        robotIds,
        ruleIds: words('rule_id', query.rule_id),
        status: query.status,
        acknowledged: query.acknowledged === undefined ? undefined : query.acknowledged === 'true',
        fromMs,
        toMs,
        after: query.cursor === undefined ? undefined : readCursor(query.cursor),
        limit: query.limit ?? LIMIT_DEFAULT,
      });
      return c.json({
        alerts: page.alerts.map(describeAlert),
        next_cursor: page.next ? writeCursor(page.next) : null,
      });
    },
  );
  registerAlertRules(router, core);
  registerAlertWebhooks(router, core);
  registerActions(router, core);
  router.add(
    {
      ...shared,
      method: 'get',
      path: '/api/v1/alerts/{alert_id}',
      operationId: 'getAlert',
      summary: 'An alert with all that happened to it',
      access: READ,
      params: AlertPath,
      responses: {
        200: { description: 'The alert', schema: AlertWithHistory },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) => {
      const { alert, history } = await core.alerts.read(principal, params.alert_id);
      return c.json({
        alert: describeAlert(alert),
        history: history.map(({ change, at, storedAt, actor, notes, details }) => ({
          change,
          at: new Date(at).toISOString(),
          stored_at: new Date(storedAt).toISOString(),
          actor,
          notes,
          details,
        })),
      });
    },
  );
}

/** Acknowledging and clearing are independent: neither does the other. */
function registerActions(router: Router, core: Core): void {
  const actions = [
    ['ack', 'acknowledgeAlerts', 'Somebody has seen the alerts; they stay active until their cause is gone'],
    ['unack', 'unacknowledgeAlerts', 'Take an acknowledgement back'],
    ['clear', 'clearAlerts', 'Close the alerts; what still holds raises them again once it was gone'],
  ] as const;
  for (const [verb, operationId, summary] of actions) {
    router.add(
      {
        ...shared,
        method: 'post',
        path: `/api/v1/alerts/${verb}`,
        operationId,
        summary,
        access: ANSWER,
        body: AlertActionRequest,
        responses: {
          200: { description: 'The alerts as they are now', schema: AlertActionReply },
          ...sigmaErrors([400, 401, 403, 404, 413, 429, 503]),
        },
      },
      async ({ principal, body }, c) => {
        const alertIds = body.alert_ids ?? [body.alert_id ?? ''];
        const act = (who: Principal): Promise<Alert[]> =>
          core.alerts[verb](who, alertIds, body.notes, c.get('requestId'));
        const alerts = await act(principal);
        return c.json({
          alerts: alerts.map(describeAlert),
          actor: principal.sub,
          notes: body.notes ?? null,
          at: new Date(core.clock.epochMs()).toISOString(),
        });
      },
    );
  }
}

function words(field: string, text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  const found = text.split(',').filter((word) => word !== '');
  if (found.length === 0 || found.length > LISTED_MAX) throw refuse(field, `must name 1 to ${LISTED_MAX}`);
  return found;
}

interface Place {
  readonly raisedMs: number;
  readonly alertId: string;
}

const writeCursor = ({ raisedMs, alertId }: Place): string =>
  Buffer.from(`${raisedMs}/${alertId}`).toString('base64url');

function readCursor(text: string): Place {
  const match = /^(\d{1,15})\/(\w{1,64})$/.exec(Buffer.from(text, 'base64url').toString('latin1'));
  if (!match?.[1] || !match[2]) throw refuse('cursor', 'must be the next_cursor of a page');
  return { raisedMs: Number(match[1]), alertId: match[2] };
}

const refuse = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });
