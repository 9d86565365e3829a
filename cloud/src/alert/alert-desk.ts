import { DomainError } from '@outrider/shared/errors';
import { newId } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import type { AuditTrail } from '../fleet/ports.ts';
import { type Principal, requireRobot } from '../identity/principal.ts';
import { requireWholeTenant } from '../notify/webhook-desk.ts';
import type { Alert, AlertHistoryEntry } from './alert.ts';
import type { AlertKeeper } from './alert-keeper.ts';
import type { AlertAction, AlertQuery, AlertStore, RuleStore } from './ports.ts';
import type { Rule } from './rule.ts';
import { isBuiltIn, type RuleBook } from './rule-book.ts';

const OWN_RULES_MAX = 200;

export interface AlertDeskOptions {
  readonly store: AlertStore;
  readonly rules: RuleStore;
  readonly book: RuleBook;
  readonly keeper: Pick<AlertKeeper, 'publish' | 'refreshRules'>;
  readonly audit: AuditTrail;
  readonly clock: Clock;
}

/** A page of alerts, newest first. */
export interface AlertPage {
  readonly alerts: readonly Alert[];
  /** Where the next page begins; absent on the last. */
  readonly next?: { readonly raisedMs: number; readonly alertId: string };
}

/** A rule and where it comes from. */
export interface ListedRule {
  readonly rule: Rule;
  readonly isBuiltIn: boolean;
}

/** Alerts and their rules, for people. Used by: /api/v1/alerts. */
export class AlertDesk {
  readonly #options: AlertDeskOptions;

  constructor(options: AlertDeskOptions) {
    this.#options = options;
  }

  /** Used by: GET /api/v1/alerts. @throws DomainError `forbidden` when it names a robot the principal is not bound to. */
  async query(principal: Principal, query: AlertQuery): Promise<AlertPage> {
    for (const robotId of query.robotIds ?? []) requireRobot(principal, robotId);
    const robotIds = query.robotIds ?? principal.robotIds;
    const rows = await this.#options.store.query(principal.tenantId, { ...query, robotIds, limit: query.limit + 1 });
    const alerts = rows.slice(0, query.limit);
    const last = alerts.at(-1);
    if (rows.length <= query.limit || !last) return { alerts };
    return { alerts, next: { raisedMs: last.raisedAt, alertId: last.alertId } };
  }

  /** Used by: GET /api/v1/alerts/{alert_id}. @throws DomainError `not_found` */
  async read(principal: Principal, alertId: string): Promise<{ alert: Alert; history: AlertHistoryEntry[] }> {
    const alert = await this.#options.store.read(principal.tenantId, alertId);
    if (!alert || (principal.robotIds && !principal.robotIds.includes(alert.robotId))) throw noSuchAlert(alertId);
    return { alert, history: await this.#options.store.history(alertId) };
  }

  /** Somebody has seen them. It does not clear them. Used by: POST /api/v1/alerts/ack. */
  ack(
    principal: Principal,
    alertIds: readonly string[],
    notes: string | undefined,
    requestId: string,
  ): Promise<Alert[]> {
    return this.#act(principal, 'acknowledged', alertIds, notes, requestId);
  }

  /** Takes an acknowledgement back. Used by: POST /api/v1/alerts/unack. */
  unack(
    principal: Principal,
    alertIds: readonly string[],
    notes: string | undefined,
    requestId: string,
  ): Promise<Alert[]> {
    return this.#act(principal, 'unacknowledged', alertIds, notes, requestId);
  }

  /** Closes them. It does not acknowledge them. Used by: POST /api/v1/alerts/clear. */
  clear(
    principal: Principal,
    alertIds: readonly string[],
    notes: string | undefined,
    requestId: string,
  ): Promise<Alert[]> {
    return this.#act(principal, 'cleared', alertIds, notes, requestId);
  }

  /** Used by: GET /api/v1/alerts/rules. */
  async listRules(principal: Principal): Promise<ListedRule[]> {
    await this.#options.keeper.refreshRules();
    const { rules } = this.#options.book.rulesOf(principal.tenantId);
    return rules.map((rule) => ({ rule, isBuiltIn: isBuiltIn(rule.ruleId) }));
  }

  /** @throws DomainError `not_found` */
  async readRule(principal: Principal, ruleId: string): Promise<ListedRule> {
    const found = (await this.listRules(principal)).find(({ rule }) => rule.ruleId === ruleId);
    if (!found) throw noSuchRule(ruleId);
    return found;
  }

  async createRule(principal: Principal, draft: Omit<Rule, 'ruleId'>, requestId: string): Promise<ListedRule> {
    const own = (await this.listRules(principal)).filter((listed) => !listed.isBuiltIn);
    if (own.length >= OWN_RULES_MAX)
      throw new DomainError('bad_state', `a tenant has at most ${OWN_RULES_MAX} rules of its own`);
    return this.#putRule(principal, newId('rul'), draft, 'alert_rule.create', requestId);
  }

  /** Changes a rule; a built-in one gets the tenant's own form under its id. */
  async changeRule(
    principal: Principal,
    ruleId: string,
    change: (before: Rule) => Omit<Rule, 'ruleId'>,
    requestId: string,
  ): Promise<ListedRule> {
    const { rule } = await this.readRule(principal, ruleId);
    return this.#putRule(principal, ruleId, change(rule), 'alert_rule.change', requestId);
  }

  /** Removes a rule of the tenant; a built-in one goes back to how it was. */
  async removeRule(principal: Principal, ruleId: string, requestId: string): Promise<void> {
    const { clock, keeper, rules } = this.#options;
    requireWholeTenant(principal);
    const removed = await rules.remove(principal.tenantId, ruleId, principal.sub, clock.epochMs());
    if (!removed && !isBuiltIn(ruleId)) throw noSuchRule(ruleId);
    await this.#record(principal, 'alert_rule.remove', { rule_id: ruleId }, requestId);
    await keeper.refreshRules();
  }

  async #putRule(
    principal: Principal,
    ruleId: string,
    draft: Omit<Rule, 'ruleId'>,
    action: string,
    requestId: string,
  ): Promise<ListedRule> {
    const { clock, keeper, rules } = this.#options;
    requireWholeTenant(principal);
    const { tenantId, sub } = principal;
    const { name, severity, enabled, robotIds, condition, flap } = draft;
    const rule = { name, severity, enabled, ...(robotIds ? { robotIds } : {}), condition, flap };
    await rules.put({ tenantId, ruleId, rule }, sub, clock.epochMs());
    await this.#record(principal, action, { rule_id: ruleId }, requestId);
    await keeper.refreshRules();
    return { rule: { ruleId, ...rule }, isBuiltIn: isBuiltIn(ruleId) };
  }

  async #act(
    principal: Principal,
    change: AlertAction['change'],
    alertIds: readonly string[],
    notes: string | undefined,
    requestId: string,
  ): Promise<Alert[]> {
    const { clock, keeper, store } = this.#options;
    const unique = [...new Set(alertIds)];
    const { alerts, news, missing } = await store.act({
      change,
      tenantId: principal.tenantId,
      alertIds: unique,
      robotIds: principal.robotIds,
      actor: principal.sub,
      notes,
      nowMs: clock.epochMs(),
    });
    const [first] = missing;
    if (first !== undefined) throw noSuchAlert(first);
    if (news.length > 0) {
      const details = { alert_ids: news.map(({ alert }) => alert.alertId), notes: notes ?? '' };
      await this.#record(principal, `alert.${change}`, details, requestId);
      keeper.publish(news);
    }
    return [...alerts];
  }

  async #record(
    principal: Principal,
    action: string,
    details: Readonly<Record<string, unknown>>,
    requestId: string,
  ): Promise<void> {
    const { audit, clock } = this.#options;
    const { tenantId, sub: subject } = principal;
    await audit.append({ tenantId, subject, action, outcome: 'done', requestId, details, atMs: clock.epochMs() });
  }
}

const noSuchAlert = (alertId: string): DomainError =>
  new DomainError('not_found', `there is no alert '${alertId.slice(0, 64)}'`, {
    subject: 'alert',
    details: { alert_id: alertId.slice(0, 64) },
  });

const noSuchRule = (ruleId: string): DomainError =>
  new DomainError('not_found', `there is no rule '${ruleId.slice(0, 64)}'`, { subject: 'rule' });
