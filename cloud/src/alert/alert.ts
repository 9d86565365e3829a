import type { EpochMs } from '@outrider/shared/time';
import type { RuleKind, Severity } from './rule.ts';

/** What can happen to an alert. Each is a line of its history. */
export const ALERT_CHANGES = [
  'raised',
  'repeated',
  'reopened',
  'flapping',
  'acknowledged',
  'unacknowledged',
  'cleared',
] as const;
export type AlertChange = (typeof ALERT_CHANGES)[number];

/** Something that needs a person. Whether it is still so and whether somebody has seen it are separate facts. */
export interface Alert {
  readonly alertId: string;
  readonly tenantId: string;
  readonly robotId: string;
  readonly ruleId: string;
  readonly kind: RuleKind;
  readonly severity: Severity;
  readonly title: string;
  /** When the condition came true, by the robot's own time. */
  readonly raisedAt: EpochMs;
  /** The newest occurrence. */
  readonly lastAt: EpochMs;
  readonly clearedAt: EpochMs | null;
  /** Who cleared it; null: it went away by itself, or is not cleared. */
  readonly clearedBy: string | null;
  readonly acknowledgedAt: EpochMs | null;
  readonly acknowledgedBy: string | null;
  readonly acknowledgedNotes: string | null;
  /** How often the condition came true while the alert was open. */
  readonly occurrences: number;
  readonly flapping: boolean;
  /** Whether it was old when it became known: a robot that was away brought it along. */
  readonly backfilled: boolean;
  /** The measured value that raised it, where there is one. */
  readonly value: number | null;
  readonly details: Readonly<Record<string, unknown>>;
  readonly traceId: string;
  readonly storedAt: EpochMs;
  readonly updatedAt: EpochMs;
}

/** One line of an alert's history. */
export interface AlertHistoryEntry {
  readonly change: AlertChange;
  readonly at: EpochMs;
  readonly storedAt: EpochMs;
  /** Null: the rule. */
  readonly actor: string | null;
  readonly notes: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

/** What just happened to an alert, for whoever is told of it. */
export interface AlertNews {
  readonly change: AlertChange;
  readonly at: EpochMs;
  readonly actor: string | null;
  readonly alert: Alert;
}

/** News that was just stored, with what the one who passes it on needs to know. */
export interface FreshNews extends AlertNews {
  /** Nobody is told of this one by itself: it is of a robot's past. */
  readonly isLate: boolean;
  /** When the sample or event that decided it was recorded and stored. */
  readonly evidence?: { readonly recordedMs: number; readonly ingestedMs: number } | undefined;
}
