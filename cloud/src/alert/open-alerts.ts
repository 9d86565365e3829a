import type { Logger } from '@outrider/shared/log';
import type { Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { Registry } from 'prom-client';
import type { SecretBox } from '../identity/ports.ts';
import { Egress, type EgressOptions } from '../notify/egress.ts';
import { WebhookDesk } from '../notify/webhook-desk.ts';
import { WebhookSender } from '../notify/webhook-sender.ts';
import { SqlRuleStore } from '../storage/alert-rule-store.ts';
import { SqlAlertStore } from '../storage/alert-store.ts';
import { type Database, isDataError } from '../storage/database.ts';
import { PgFleetStore } from '../storage/fleet-store.ts';
import { SqlWebhookStore } from '../storage/webhook-store.ts';
import type { Telemetry } from '../telemetry/open-telemetry.ts';
import { AlertDesk } from './alert-desk.ts';
import { AlertKeeper } from './alert-keeper.ts';
import { AlertMetrics } from './alert-metrics.ts';
import { RuleBook } from './rule-book.ts';

export interface AlertParts {
  readonly database: Database;
  readonly secrets: SecretBox;
  readonly telemetry: Pick<Telemetry, 'onStored' | 'announce'>;
  readonly metrics: Registry;
  readonly clock: Clock;
  readonly log: Logger;
  /** Where webhooks may lead. */
  readonly egress: EgressOptions;
}

/** Alerts and their notifications on a database. */
export interface Alerts {
  readonly desk: AlertDesk;
  readonly webhooks: WebhookDesk;
  /** Look at what is stored, and send. */
  readonly services: readonly Service[];
}

/** Puts the alert context together. */
export function openAlerts(parts: AlertParts): Alerts {
  const { clock, database, log, secrets, telemetry } = parts;
  const metrics = new AlertMetrics(parts.metrics);
  const store = new SqlAlertStore(database);
  const rules = new SqlRuleStore(database);
  const book = new RuleBook(rules);
  const audit = new PgFleetStore(database, clock);
  const egress = new Egress(parts.egress);
  const webhookStore = new SqlWebhookStore(database);
  const nameOf = (webhookId: string): string => `webhook ${webhookId}`;
  const sender = new WebhookSender({
    store: webhookStore,
    egress,
    openSecret: (webhookId, sealed) => secrets.open(nameOf(webhookId), sealed),
    clock,
    log,
    onAttempt: (outcome) => metrics.attempts.inc({ outcome }),
  });
  const wake = (): void => sender.wake();
  const { announce } = telemetry;
  const keeper = new AlertKeeper({ store, book, metrics, clock, log, announce, onQueued: wake, isDataError });
  telemetry.onStored((outcomes, ingestedMs) => keeper.onStored(outcomes, ingestedMs));
  return {
    desk: new AlertDesk({ store, rules, book, keeper, audit, clock }),
    webhooks: new WebhookDesk({
      store: webhookStore,
      egress,
      sealSecret: (webhookId, secret) => secrets.seal(nameOf(webhookId), secret),
      audit,
      clock,
      wake,
    }),
    services: [keeper, sender],
  };
}
