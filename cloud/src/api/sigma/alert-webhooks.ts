import { z } from '@hono/zod-openapi';
import { SEVERITIES } from '../../alert/rule.ts';
import { DELIVERY_STATES, WEBHOOK_CHANGES, type Webhook } from '../../notify/ports.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { sigmaErrors } from './responses.ts';
import { RobotId } from './schemas.ts';

const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 200;
const shared = { tag: 'SigmaPrompt', throttle: 'tier', access: ['alert:write'] } as const;
const BASE = '/api/v1/alerts/webhooks';
const CHANGES_DEFAULT = ['raised', 'reopened', 'flapping', 'acknowledged', 'cleared', 'digest'] as const;

const time = z.iso.datetime();
const fields = {
  url: z.string().min(1).max(2_048).openapi({ example: 'https://ops.example.com/outrider' }),
  description: z.string().max(256),
  severities: z.array(z.enum(SEVERITIES)).min(1),
  changes: z
    .array(z.enum(WEBHOOK_CHANGES))
    .min(1)
    .openapi({ description: 'digest: one notification for all that a robot brings along after it was away' }),
  robot_ids: z.array(RobotId).min(1).max(1_000).nullable(),
  enabled: z.boolean(),
};

const WebhookRequest = z
  .strictObject({
    url: fields.url,
    description: fields.description.default(''),
    severities: fields.severities.default([...SEVERITIES]),
    changes: fields.changes.default([...CHANGES_DEFAULT]),
    robot_ids: fields.robot_ids.default(null),
    enabled: fields.enabled.default(true),
  })
  .openapi('WebhookRequest');
const WebhookPatch = z
  .strictObject({
    url: fields.url.optional(),
    description: fields.description.optional(),
    severities: fields.severities.optional(),
    changes: fields.changes.optional(),
    robot_ids: fields.robot_ids.optional(),
    enabled: fields.enabled.optional(),
  })
  .openapi('WebhookPatch');
const WebhookView = z
  .object({ webhook_id: z.string(), ...fields, created_at: time, updated_at: time, updated_by: z.string() })
  .openapi('Webhook');
const WebhookCreated = WebhookView.extend({
  secret: z.string().openapi({ description: 'For checking signatures, by Standard Webhooks. Shown this once.' }),
}).openapi('WebhookCreated');
const WebhookList = z.object({ webhooks: z.array(WebhookView) }).openapi('WebhookList');
const WebhookPath = z.object({ webhook_id: z.string() });
const TestReply = z.object({ delivery_id: z.string() }).openapi('WebhookTest');
const DeliveryQuery = z.strictObject({
  limit: z
    .string()
    .regex(/^\d{1,3}$/, `must be 1 to ${LIMIT_MAX}`)
    .transform(Number)
    .pipe(z.int().min(1).max(LIMIT_MAX))
    .optional(),
  before: z.string().max(64).optional().openapi({ description: 'The last delivery_id of the page before' }),
});
const DeliveryList = z
  .object({
    deliveries: z.array(
      z.object({
        delivery_id: z.string(),
        type: z.string(),
        state: z.enum(DELIVERY_STATES),
        attempts: z.int(),
        next_attempt_at: time.nullable(),
        last_status: z.int().nullable(),
        last_error: z.string().nullable(),
        created_at: time,
        ended_at: time.nullable(),
      }),
    ),
  })
  .openapi('WebhookDeliveryList');

const iso = (atMs: number): string => new Date(atMs).toISOString();
const encode = (hook: Webhook) => ({
  webhook_id: hook.webhookId,
  url: hook.url,
  description: hook.description,
  severities: hook.severities,
  changes: hook.changes,
  robot_ids: hook.robotIds,
  enabled: hook.enabled,
  created_at: iso(hook.createdMs),
  updated_at: iso(hook.updatedMs),
  updated_by: hook.updatedBy,
});

/** /api/v1/alerts/webhooks: who is told. */
export function registerAlertWebhooks(router: Router, core: Core): void {
  router.add(
    {
      ...shared,
      method: 'get',
      path: BASE,
      operationId: 'listWebhooks',
      summary: 'The webhooks of the tenant',
      responses: { 200: { description: 'Webhooks', schema: WebhookList }, ...sigmaErrors([400, 401, 403, 429, 503]) },
    },
    async ({ principal }, c) => c.json({ webhooks: (await core.webhooks.list(principal)).map(encode) }),
  );
  router.add(
    {
      ...shared,
      method: 'post',
      path: BASE,
      operationId: 'createWebhook',
      summary: 'Add a webhook; the answer holds its signing secret, which cannot be read again',
      body: WebhookRequest,
      responses: {
        201: { description: 'The webhook and its secret', schema: WebhookCreated },
        ...sigmaErrors([400, 401, 403, 409, 413, 429, 503]),
      },
    },
    async ({ principal, body }, c) => {
      const { robot_ids: robotIds, ...rest } = body;
      const { webhook, secret } = await core.webhooks.create(principal, { ...rest, robotIds }, c.get('requestId'));
      return c.json({ ...encode(webhook), secret }, 201);
    },
  );
  router.add(
    {
      ...shared,
      method: 'get',
      path: `${BASE}/{webhook_id}`,
      operationId: 'getWebhook',
      summary: 'One webhook',
      params: WebhookPath,
      responses: {
        200: { description: 'The webhook', schema: WebhookView },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) => c.json(encode(await core.webhooks.read(principal, params.webhook_id))),
  );
  router.add(
    {
      ...shared,
      method: 'patch',
      path: `${BASE}/{webhook_id}`,
      operationId: 'changeWebhook',
      summary: 'Change a webhook; switched off, its queue waits',
      params: WebhookPath,
      body: WebhookPatch,
      responses: {
        200: { description: 'The webhook', schema: WebhookView },
        ...sigmaErrors([400, 401, 403, 404, 413, 429, 503]),
      },
    },
    async ({ principal, params, body }, c) => {
      const { url, description, severities, changes, robot_ids: robotIds, enabled } = body;
      const patch = {
        ...(url === undefined ? {} : { url }),
        ...(description === undefined ? {} : { description }),
        ...(severities === undefined ? {} : { severities }),
        ...(changes === undefined ? {} : { changes }),
        ...(robotIds === undefined ? {} : { robotIds }),
        ...(enabled === undefined ? {} : { enabled }),
      };
      return c.json(encode(await core.webhooks.change(principal, params.webhook_id, patch, c.get('requestId'))));
    },
  );
  router.add(
    {
      ...shared,
      method: 'delete',
      path: `${BASE}/{webhook_id}`,
      operationId: 'removeWebhook',
      summary: 'Remove a webhook and what waits for it',
      params: WebhookPath,
      responses: { 204: { description: 'Removed' }, ...sigmaErrors([400, 401, 403, 404, 429, 503]) },
    },
    async ({ principal, params }, c) => {
      await core.webhooks.remove(principal, params.webhook_id, c.get('requestId'));
      return c.body(null, 204);
    },
  );
  router.add(
    {
      ...shared,
      method: 'post',
      path: `${BASE}/{webhook_id}/test`,
      operationId: 'testWebhook',
      summary: 'Send a test notification; its delivery says how it went',
      params: WebhookPath,
      responses: {
        202: { description: 'It is in the queue', schema: TestReply },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) =>
      c.json({ delivery_id: await core.webhooks.test(principal, params.webhook_id) }, 202),
  );
  router.add(
    {
      ...shared,
      method: 'get',
      path: `${BASE}/{webhook_id}/deliveries`,
      operationId: 'listWebhookDeliveries',
      summary: 'What was sent or is to be sent, newest first, and how it went',
      params: WebhookPath,
      query: DeliveryQuery,
      responses: {
        200: { description: 'Deliveries', schema: DeliveryList },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params, query }, c) => {
      const limit = query.limit ?? LIMIT_DEFAULT;
      const found = await core.webhooks.deliveries(principal, params.webhook_id, limit, query.before);
      return c.json({
        deliveries: found.map((delivery) => ({
          delivery_id: delivery.deliveryId,
          type: delivery.type,
          state: delivery.state,
          attempts: delivery.attempts,
          next_attempt_at: delivery.state === 'pending' ? iso(delivery.dueMs) : null,
          last_status: delivery.lastStatus,
          last_error: delivery.lastError,
          created_at: iso(delivery.createdMs),
          ended_at: delivery.endedMs === null ? null : iso(delivery.endedMs),
        })),
      });
    },
  );
}
