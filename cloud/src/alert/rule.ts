import type { StreamKind } from '@outrider/shared/telemetry';

/** How much an alert matters: the three levels that monitoring systems share. */
export const SEVERITIES = ['info', 'warning', 'critical'] as const;
export type Severity = (typeof SEVERITIES)[number];

export const RULE_KINDS = ['threshold', 'duration', 'repetition', 'no_data', 'anomaly', 'failsafe', 'offline'] as const;
export type RuleKind = (typeof RULE_KINDS)[number];

export const OPERATORS = ['>', '>=', '<', '<='] as const;
export type Operator = (typeof OPERATORS)[number];

/** Which measured value a rule looks at. SI units, as `StreamLayout` says. */
export interface Signal {
  readonly kind: StreamKind;
  /** `temperature`, `state_of_charge`, `position`, … */
  readonly field: string;
  /** One joint or sensor. Absent: whichever of them is worst. */
  readonly name?: string | undefined;
  /** One stream. Absent: each stream of the kind by itself. */
  readonly stream?: string | undefined;
}

/** A value beyond a limit. */
export interface Comparison {
  readonly signal: Signal;
  readonly operator: Operator;
  readonly value: number;
  /** Clears only past this one: the hysteresis. Absent: the limit itself. */
  readonly clearValue?: number | undefined;
}

/** What a rule waits for. */
export type Condition =
  | ({ readonly kind: 'threshold' } & Comparison)
  | ({ readonly kind: 'duration' /** How long it must hold. */; readonly forS: number } & Comparison)
  | {
      readonly kind: 'repetition';
      /** How many times … */
      readonly count: number;
      /** … within how long. */
      readonly withinS: number;
      /** An event of a robot, or a value that goes beyond a limit: one of the two. */
      readonly eventType?: string | undefined;
      readonly comparison?: Comparison | undefined;
    }
  | {
      readonly kind: 'no_data';
      readonly forS: number;
      /** Absent: any telemetry. A robot that is known to be away has no missing data, it is offline. */
      readonly streamKind?: StreamKind | undefined;
    }
  | {
      readonly kind: 'anomaly' /** The least risk that raises it. */;
      readonly riskLevel: 'medium' | 'high' | 'critical';
    }
  | { readonly kind: 'failsafe' /** Absent: any mode. */; readonly modes?: readonly string[] | undefined }
  | {
      readonly kind: 'offline';
      readonly forS: number /** Whether a robot that said goodbye counts. */;
      readonly orderly: boolean;
    };

/** How an alert is kept from coming and going. */
export interface FlapControl {
  /** The condition must be gone for this long before the alert clears. */
  readonly clearForS: number;
  /** Raised more often than this within `windowS`: flapping. It then stays open until it was quiet for `windowS`. */
  readonly raises: number;
  readonly windowS: number;
}

/** What to watch for, and how much it matters. */
export interface Rule {
  readonly ruleId: string;
  readonly name: string;
  readonly severity: Severity;
  readonly enabled: boolean;
  /** Absent: every robot of the tenant. */
  readonly robotIds?: readonly string[] | undefined;
  readonly condition: Condition;
  readonly flap: FlapControl;
}

export const FLAP_DEFAULT: FlapControl = { clearForS: 10, raises: 4, windowS: 600 };

/** The comparison inside a condition, where it has one. */
export function comparisonOf(condition: Condition): Comparison | undefined {
  if (condition.kind === 'threshold' || condition.kind === 'duration') return condition;
  return condition.kind === 'repetition' ? condition.comparison : undefined;
}

/** Alerts with one key are one alert: a rule on a robot. */
export const dedupeKeyOf = (ruleId: string, robotId: string): string => `${ruleId}/${robotId}`;
