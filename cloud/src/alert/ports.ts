import type { RobotRef } from '../telemetry/ports.ts';
import type { Alert, AlertHistoryEntry, FreshNews } from './alert.ts';
import type { Finding } from './finding.ts';
import type { Rule, Severity } from './rule.ts';
import type { KnownAlert } from './telemetry-watch.ts';

/** An event of a robot that the rules have not looked at. */
export interface PendingEvent {
  readonly robot: RobotRef;
  readonly eventId: string;
  readonly type: string;
  readonly occurredMs: number;
  readonly ingestedMs: number;
  readonly traceId: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** What is stored about a robot's events, by their own time. */
export interface EventPast {
  /** Events of a type in a stretch of time, its start excluded. */
  count(robotPk: number, type: string, afterMs: number, untilMs: number): Promise<number>;
  /** When the robot first left its latched state after that time. */
  unlatchedAfter(robotPk: number, afterMs: number): Promise<number | undefined>;
}

/** A tenant's stored rule: its own, or its change of a built-in one. */
export interface StoredRule {
  readonly tenantId: string;
  readonly ruleId: string;
  readonly rule: Omit<Rule, 'ruleId'>;
}

export interface AlertQuery {
  readonly severities?: readonly Severity[] | undefined;
  readonly robotIds?: readonly string[] | undefined;
  readonly ruleIds?: readonly string[] | undefined;
  readonly status?: 'active' | 'cleared' | undefined;
  readonly acknowledged?: boolean | undefined;
  /** Alerts that were open at some time in this window, ends included. */
  readonly fromMs?: number | undefined;
  readonly toMs?: number | undefined;
  /** Where the page before ended. */
  readonly after?: { readonly raisedMs: number; readonly alertId: string } | undefined;
  readonly limit: number;
}

/** What a person does to alerts. */
export interface AlertAction {
  readonly change: 'acknowledged' | 'unacknowledged' | 'cleared';
  readonly tenantId: string;
  readonly alertIds: readonly string[];
  /** Absent: every robot of the tenant. */
  readonly robotIds?: readonly string[] | undefined;
  readonly actor: string;
  readonly notes: string | undefined;
  readonly nowMs: number;
}

/** What became of a person's action. An alert that was in that state already is in `alerts` only. */
export interface ActionOutcome {
  readonly alerts: readonly Alert[];
  readonly news: readonly FreshNews[];
  readonly missing: readonly string[];
}

/** Rules that time alone decides, by tenant. */
export interface SweepRule {
  readonly tenantId: string;
  readonly rule: Rule;
}

/** Keeps alerts. Every writing call is one transaction, and one process writes at a time. */
export interface AlertStore {
  /** Turns findings into alerts and their notifications. A finding that changes nothing gives no news. */
  apply(findings: readonly Finding[], nowMs: number): Promise<FreshNews[]>;
  /** Judges events that nobody has looked at, and applies the findings in the same transaction. */
  judgePending(
    judge: (events: readonly PendingEvent[], past: EventPast) => Promise<readonly Finding[]>,
    limit: number,
    nowMs: number,
  ): Promise<{ readonly events: number; readonly news: readonly FreshNews[] }>;
  /** Raises and clears what time alone decides: offline, no data, alerts whose cause has passed. */
  sweep(rules: readonly SweepRule[], nowMs: number): Promise<FreshNews[]>;
  /** Clears open alerts of rules that are not there any more, and of robots that are not. */
  clearOrphans(tenantId: string, activeRuleIds: readonly string[], nowMs: number): Promise<FreshNews[]>;
  act(action: AlertAction): Promise<ActionOutcome>;
  query(tenantId: string, query: AlertQuery): Promise<Alert[]>;
  read(tenantId: string, alertId: string): Promise<Alert | undefined>;
  history(alertId: string): Promise<AlertHistoryEntry[]>;
  /** Alerts of signal rules that are open, or were closed after `closedSinceMs`. */
  known(closedSinceMs: number): Promise<KnownAlert[]>;
  /** When alerts were raised since then, by tenant and key. */
  raisesSince(sinceMs: number): Promise<{ tenantId: string; dedupeKey: string; raisedMs: number }[]>;
}

export interface RuleStore {
  tenantIds(): Promise<string[]>;
  rules(): Promise<StoredRule[]>;
  /** A mark that changes when any rule does. */
  revision(): Promise<string>;
  put(rule: StoredRule, by: string, nowMs: number): Promise<void>;
  /** @returns false when there was none. */
  remove(tenantId: string, ruleId: string, by: string, nowMs: number): Promise<boolean>;
}
