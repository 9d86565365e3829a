import { randomBytes } from 'node:crypto';
import { DomainError } from '@outrider/shared/errors';
import { newId } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import type { Severity } from '../alert/rule.ts';
import type { AuditTrail } from '../fleet/ports.ts';
import type { Principal } from '../identity/principal.ts';
import type { Egress } from './egress.ts';
import { testNotification } from './notification.ts';
import type { Delivery, Webhook, WebhookChange, WebhookStore } from './ports.ts';

const WEBHOOKS_PER_TENANT_MAX = 50;
const SECRET_BYTES = 32;

/** What a person says of a webhook. */
export interface WebhookDraft {
  readonly url: string;
  readonly description: string;
  readonly severities: readonly Severity[];
  readonly changes: readonly WebhookChange[];
  readonly robotIds: readonly string[] | null;
  readonly enabled: boolean;
}

export interface WebhookDeskOptions {
  readonly store: WebhookStore;
  readonly egress: Egress;
  readonly sealSecret: (webhookId: string, secret: string) => string;
  readonly audit: AuditTrail;
  readonly clock: Clock;
  /** There is something to send. */
  readonly wake: () => void;
}

/** Webhooks of a tenant, for its administrators. Used by: /api/v1/alerts/webhooks. */
export class WebhookDesk {
  readonly #options: WebhookDeskOptions;

  constructor(options: WebhookDeskOptions) {
    this.#options = options;
  }

  list(principal: Principal): Promise<Webhook[]> {
    requireWholeTenant(principal);
    return this.#options.store.list(principal.tenantId);
  }

  async read(principal: Principal, webhookId: string): Promise<Webhook> {
    requireWholeTenant(principal);
    const webhook = await this.#options.store.read(principal.tenantId, webhookId);
    if (!webhook) throw noSuchWebhook(webhookId);
    return webhook;
  }

  /** @returns the webhook and its signing secret, which cannot be read again. */
  async create(
    principal: Principal,
    draft: WebhookDraft,
    requestId: string,
  ): Promise<{ webhook: Webhook; secret: string }> {
    const { clock, egress, sealSecret, store } = this.#options;
    requireWholeTenant(principal);
    egress.checkUrl(draft.url, 'url');
    if ((await store.list(principal.tenantId)).length >= WEBHOOKS_PER_TENANT_MAX)
      throw new DomainError('bad_state', `a tenant has at most ${WEBHOOKS_PER_TENANT_MAX} webhooks`);
    const webhookId = newId('whk');
    const secret = `whsec_${randomBytes(SECRET_BYTES).toString('base64')}`;
    const nowMs = clock.epochMs();
    const { tenantId, sub } = principal;
    const webhook: Webhook = { webhookId, tenantId, ...draft, createdMs: nowMs, updatedMs: nowMs, updatedBy: sub };
    await store.add(webhook, sealSecret(webhookId, secret));
    await this.#record(principal, 'webhook.create', webhookId, requestId);
    return { webhook, secret };
  }

  async change(
    principal: Principal,
    webhookId: string,
    patch: Partial<WebhookDraft>,
    requestId: string,
  ): Promise<Webhook> {
    const { clock, egress, store } = this.#options;
    const before = await this.read(principal, webhookId);
    if (patch.url !== undefined) egress.checkUrl(patch.url, 'url');
    const webhook: Webhook = { ...before, ...patch, updatedMs: clock.epochMs(), updatedBy: principal.sub };
    if (!(await store.replace(webhook))) throw noSuchWebhook(webhookId);
    await this.#record(principal, 'webhook.change', webhookId, requestId);
    this.#options.wake();
    return webhook;
  }

  async remove(principal: Principal, webhookId: string, requestId: string): Promise<void> {
    requireWholeTenant(principal);
    if (!(await this.#options.store.remove(principal.tenantId, webhookId))) throw noSuchWebhook(webhookId);
    await this.#record(principal, 'webhook.remove', webhookId, requestId);
  }

  /** Puts a test notification into the queue. @returns Its delivery id. */
  async test(principal: Principal, webhookId: string): Promise<string> {
    const { clock, store, wake } = this.#options;
    await this.read(principal, webhookId);
    const nowMs = clock.epochMs();
    const notification = testNotification(principal.tenantId, principal.sub, nowMs);
    const deliveryId = newId('msg');
    await store.enqueue({ deliveryId, webhookId, type: notification.type, body: JSON.stringify(notification) }, nowMs);
    wake();
    return deliveryId;
  }

  /** Newest first. */
  async deliveries(
    principal: Principal,
    webhookId: string,
    limit: number,
    before: string | undefined,
  ): Promise<Delivery[]> {
    await this.read(principal, webhookId);
    return this.#options.store.deliveries(webhookId, limit, before);
  }

  async #record(principal: Principal, action: string, webhookId: string, requestId: string): Promise<void> {
    await this.#options.audit.append({
      tenantId: principal.tenantId,
      subject: principal.sub,
      action,
      outcome: 'done',
      requestId,
      details: { webhook_id: webhookId },
      atMs: this.#options.clock.epochMs(),
    });
  }
}

/** Rules and webhooks are the whole tenant's. @throws DomainError `forbidden` for a principal that is bound to robots. */
export function requireWholeTenant(principal: Principal): void {
  if (principal.robotIds === undefined) return;
  throw new DomainError('forbidden', 'this concerns every robot of the tenant, and the token covers only some');
}

const noSuchWebhook = (webhookId: string): DomainError =>
  new DomainError('not_found', `there is no webhook '${webhookId.slice(0, 64)}'`, { subject: 'webhook' });
