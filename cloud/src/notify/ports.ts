import type { Severity } from '../alert/rule.ts';

/** What a webhook can be told of. */
export const WEBHOOK_CHANGES = [
  'raised',
  'repeated',
  'reopened',
  'flapping',
  'acknowledged',
  'unacknowledged',
  'cleared',
  'digest',
] as const;
export type WebhookChange = (typeof WEBHOOK_CHANGES)[number];

/** Where a tenant wants to be told, without its secret. */
export interface Webhook {
  readonly webhookId: string;
  readonly tenantId: string;
  readonly url: string;
  readonly description: string;
  readonly severities: readonly Severity[];
  readonly changes: readonly WebhookChange[];
  /** Null: every robot of the tenant. */
  readonly robotIds: readonly string[] | null;
  readonly enabled: boolean;
  readonly createdMs: number;
  readonly updatedMs: number;
  readonly updatedBy: string;
}

export const DELIVERY_STATES = ['pending', 'delivered', 'dead'] as const;
export type DeliveryState = (typeof DELIVERY_STATES)[number];

/** One notification and what became of it. */
export interface Delivery {
  readonly deliveryId: string;
  readonly webhookId: string;
  readonly type: string;
  readonly state: DeliveryState;
  readonly attempts: number;
  /** When it is tried next, while it is pending. */
  readonly dueMs: number;
  readonly lastStatus: number | null;
  readonly lastError: string | null;
  readonly createdMs: number;
  readonly endedMs: number | null;
}

/** A delivery that this process has claimed. */
export interface ClaimedDelivery {
  readonly deliveryId: string;
  readonly webhookId: string;
  readonly url: string;
  readonly sealedSecret: string;
  readonly body: string;
  /** This attempt included. */
  readonly attempts: number;
}

/** How an attempt ended. */
export interface AttemptResult {
  readonly deliveryId: string;
  readonly state: DeliveryState;
  /** Of a pending one. */
  readonly dueMs?: number;
  readonly status?: number | undefined;
  readonly error?: string | undefined;
}

export interface WebhookStore {
  add(webhook: Webhook, sealedSecret: string): Promise<void>;
  list(tenantId: string): Promise<Webhook[]>;
  read(tenantId: string, webhookId: string): Promise<Webhook | undefined>;
  /** @returns false when there is none. */
  replace(webhook: Webhook): Promise<boolean>;
  /** Its deliveries go with it. @returns false when there is none. */
  remove(tenantId: string, webhookId: string): Promise<boolean>;
  enqueue(
    delivery: { deliveryId: string; webhookId: string; type: string; body: string },
    nowMs: number,
  ): Promise<void>;
  deliveries(webhookId: string, limit: number, before: string | undefined): Promise<Delivery[]>;
  /** Claims what is due, each for `holdMs`, a few of each webhook, none of the busy ones. Nobody else gets it meanwhile. */
  claim(
    nowMs: number,
    holdMs: number,
    limit: number,
    perWebhook: number,
    busy: readonly string[],
  ): Promise<ClaimedDelivery[]>;
  settle(results: readonly AttemptResult[], nowMs: number): Promise<void>;
  /** Removes deliveries that ended before. */
  removeEnded(beforeMs: number): Promise<void>;
  /** Deliveries that wait. */
  waiting(): Promise<number>;
}
