import { newId } from '@outrider/shared/ids';
import type { EpochMs } from '@outrider/shared/time';
import type { Alert, AlertChange, FreshNews } from './alert.ts';
import type { Finding } from './finding.ts';
import { dedupeKeyOf } from './rule.ts';

/** Alerts of a robot's past that become known within this time are one. */
const MERGE_LATE_MS = 15 * 60_000;

/** An alert and whose it is in the tables. */
export interface LedgerAlert {
  readonly robotPk: number;
  readonly dedupeKey: string;
  readonly alert: Alert;
}

export interface LedgerEntry {
  readonly alertId: string;
  readonly change: AlertChange;
  readonly atMs: number;
  readonly details: Readonly<Record<string, unknown>>;
}

/**
 * Works out what findings make of the alerts that are there. It has no database: the caller loads what the keys have,
 * and stores what changed.
 */
export class Ledger {
  readonly #nowMs: EpochMs;
  /** By key: the open alert, else the newest. */
  readonly #current: Map<string, LedgerAlert>;
  /** By key: the newest alert of the past that is closed. */
  readonly #past: Map<string, LedgerAlert>;
  readonly #changed = new Map<string, LedgerAlert>();
  readonly entries: LedgerEntry[] = [];
  readonly news: FreshNews[] = [];

  constructor(current: readonly LedgerAlert[], past: readonly LedgerAlert[], nowMs: number) {
    const byKey = (list: readonly LedgerAlert[]): Map<string, LedgerAlert> =>
      new Map(list.map((entry) => [keyOf(entry.alert.tenantId, entry.dedupeKey), entry]));
    this.#nowMs = nowMs as EpochMs;
    this.#current = byKey(current);
    this.#past = byKey(past);
  }

  get changed(): readonly LedgerAlert[] {
    return [...this.#changed.values()];
  }

  enter(finding: Finding): void {
    const dedupeKey = dedupeKeyOf(finding.rule.ruleId, finding.robot.robotId);
    const key = keyOf(finding.robot.tenantId, dedupeKey);
    const known = this.#current.get(key);
    const open = known?.alert.clearedAt === null ? known : undefined;
    switch (finding.action) {
      case 'raise':
      case 'occur':
        if (open) this.#occur(key, open, finding);
        else this.#raise(key, dedupeKey, known, finding);
        return;
      case 'clear':
        if (open) this.#clear(key, open, finding);
        return;
      case 'episode':
        this.#episode(key, dedupeKey, finding);
        return;
    }
  }

  #raise(key: string, dedupeKey: string, known: LedgerAlert | undefined, finding: Finding): void {
    const isRecentPast = known?.alert.backfilled === true && this.#nowMs - known.alert.storedAt < MERGE_LATE_MS;
    if (known && (finding.isFlapping === true || (finding.isLate && isRecentPast))) {
      const { alert } = known;
      const atMs = finding.atMs as EpochMs;
      const reopened: Alert = {
        ...alert,
        clearedAt: null,
        clearedBy: null,
        // Somebody acknowledged what was then; what is now, nobody has seen.
        acknowledgedAt: null,
        acknowledgedBy: null,
        acknowledgedNotes: null,
        lastAt: Math.max(alert.lastAt, atMs) as EpochMs,
        occurrences: alert.occurrences + 1,
        flapping: finding.isFlapping === true,
        value: finding.value ?? alert.value,
        updatedAt: this.#nowMs,
      };
      const change = finding.isFlapping === true ? 'flapping' : 'reopened';
      this.#note(key, { ...known, alert: reopened }, change, finding);
      return;
    }
    const alert = newAlert(finding, this.#nowMs);
    this.#note(key, { robotPk: finding.robot.robotPk, dedupeKey, alert }, 'raised', finding);
  }

  #occur(key: string, open: LedgerAlert, finding: Finding): void {
    const { alert } = open;
    if (finding.action === 'raise' || isSameLatch(alert.details, finding.details)) return;
    const repeated: Alert = {
      ...alert,
      raisedAt: Math.min(alert.raisedAt, finding.atMs) as EpochMs,
      lastAt: Math.max(alert.lastAt, finding.atMs) as EpochMs,
      occurrences: alert.occurrences + 1,
      value: finding.value ?? alert.value,
      details: finding.details,
      updatedAt: this.#nowMs,
    };
    this.#note(key, { ...open, alert: repeated }, 'repeated', finding);
  }

  #clear(key: string, open: LedgerAlert, finding: Finding): void {
    const clearedAt = Math.max(open.alert.raisedAt, finding.atMs) as EpochMs;
    const alert: Alert = { ...open.alert, clearedAt, clearedBy: null, flapping: false, updatedAt: this.#nowMs };
    this.#note(key, { ...open, alert }, 'cleared', { ...finding, atMs: clearedAt });
  }

  /** Something that came and went before now: never open, and one alert however often it did. */
  #episode(key: string, dedupeKey: string, finding: Finding): void {
    const clearedAtMs = Math.max(finding.atMs, finding.clearedAtMs ?? finding.atMs) as EpochMs;
    const before = this.#past.get(key);
    const isMerged = finding.isLate && before !== undefined && this.#nowMs - before.alert.storedAt < MERGE_LATE_MS;
    const base = isMerged ? before.alert : newAlert(finding, this.#nowMs);
    const occurrences = finding.occurrences ?? 1;
    const alert: Alert = {
      ...base,
      raisedAt: Math.min(base.raisedAt, finding.atMs) as EpochMs,
      lastAt: Math.max(base.lastAt, finding.atMs) as EpochMs,
      clearedAt: Math.max(base.clearedAt ?? clearedAtMs, clearedAtMs) as EpochMs,
      occurrences: isMerged ? base.occurrences + occurrences : occurrences,
      updatedAt: this.#nowMs,
    };
    const placed = { robotPk: finding.robot.robotPk || (before?.robotPk ?? 0), dedupeKey, alert };
    this.#past.set(key, placed);
    this.#write(placed, isMerged ? 'reopened' : 'raised', finding);
    this.#write(placed, 'cleared', { ...finding, atMs: clearedAtMs, details: {} });
    // Later findings of the same call see the open alert, if there is one, and not this.
    if (!this.#current.has(key)) this.#current.set(key, placed);
  }

  #note(key: string, placed: LedgerAlert, change: AlertChange, finding: Finding): void {
    this.#current.set(key, placed);
    this.#write(placed, change, finding);
  }

  #write(placed: LedgerAlert, change: AlertChange, { atMs, details, evidence, isLate }: Finding): void {
    const { alert } = placed;
    this.#changed.set(alert.alertId, placed);
    this.entries.push({ alertId: alert.alertId, change, atMs, details });
    this.news.push({ change, at: atMs as EpochMs, actor: null, alert, isLate, evidence });
  }
}

const keyOf = (tenantId: string, dedupeKey: string): string => `${tenantId}/${dedupeKey}`;

function newAlert(finding: Finding, nowMs: EpochMs): Alert {
  const { robot, rule } = finding;
  const raisedAt = finding.atMs as EpochMs;
  return {
    alertId: newId('alr'),
    tenantId: robot.tenantId,
    robotId: robot.robotId,
    ruleId: rule.ruleId,
    kind: rule.condition.kind,
    severity: rule.severity,
    title: rule.name,
    raisedAt,
    lastAt: raisedAt,
    clearedAt: null,
    clearedBy: null,
    acknowledgedAt: null,
    acknowledgedBy: null,
    acknowledgedNotes: null,
    occurrences: 1,
    flapping: finding.isFlapping === true,
    backfilled: finding.isLate,
    value: finding.value ?? null,
    details: finding.details,
    traceId: finding.traceId ?? newId('trc'),
    storedAt: nowMs,
    updatedAt: nowMs,
  };
}

/** A stop shows as a transition and as a trigger: the same latch in the same mode is the same occurrence. */
const isSameLatch = (known: Finding['details'], next: Finding['details']): boolean =>
  next['latch_id'] !== undefined && next['latch_id'] === known['latch_id'] && next['mode'] === known['mode'];
