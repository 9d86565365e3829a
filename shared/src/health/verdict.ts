/** How much a robot's state should worry somebody. */
export const RISK_LEVELS = ['low', 'medium', 'high', 'critical', 'unknown'] as const;
export type RiskLevel = (typeof RISK_LEVELS)[number];

/** A signal that costs health. */
export interface SignalCost {
  /** Stream and signal: `/joint_states:shoulder.velocity`. */
  readonly signal: string;
  /** How odd it is by itself, 0 to 1. */
  readonly score: number;
  /** What it takes from the health score. All together take what the anomaly takes. */
  readonly cost: number;
  readonly sinceMs: number;
}

/** What the analyser says of a robot. */
export interface HealthVerdict {
  /** `learning`: no stream has been learnt yet. */
  readonly state: 'learning' | 'watching';
  /** Of the learning, 0 to 1. */
  readonly progress: number;
  /** 0 to 1, 0.5 where an alarm begins; null while nothing is learnt. */
  readonly anomalyScore: number | null;
  /** 1 less what the signals cost. */
  readonly healthScore: number;
  readonly riskLevel: RiskLevel;
  readonly signals: readonly SignalCost[];
  /** Since when the alarm stands; absent without one. [ms since 1970] */
  readonly alarmSinceMs: number | undefined;
  /** Time of the newest sample behind it. [ms since 1970] */
  readonly updatedAtMs: number;
  /** What the alarm level rests on; absent while nothing is learnt. */
  readonly evidence: Evidence | undefined;
}

/** How much normal work was seen, and how much shows that the false-alarm rate is what was set. [h] */
export interface Evidence {
  readonly normalHours: number;
  readonly neededHours: number;
}

/** With less the rate is an extrapolation: it may hold, and nothing has shown it yet. */
export const isShown = ({ normalHours, neededHours }: Evidence): boolean => normalHours >= neededHours;

/** Below this an anomaly costs nothing; at 1 it costs everything. */
const FREE_ANOMALY = 0.4;
/** An alarm from here on is a high risk. A critical risk is for stops, which the analyser does not decide. */
const HIGH_ANOMALY = 0.7;

/** What an anomaly takes from the health score. */
export const costOf = (anomaly: number): number => Math.max(0, (anomaly - FREE_ANOMALY) / (1 - FREE_ANOMALY));

export const riskOf = (anomaly: number, isAlarm: boolean): RiskLevel =>
  !isAlarm ? 'low' : anomaly >= HIGH_ANOMALY ? 'high' : 'medium';

/** The verdict as the state lane carries it under the key `health`. */
export function encodeVerdict(verdict: HealthVerdict): Record<string, unknown> {
  return {
    state: verdict.state,
    progress: round(verdict.progress),
    anomaly_score: verdict.anomalyScore === null ? null : round(verdict.anomalyScore),
    health_score: round(verdict.healthScore),
    risk_level: verdict.riskLevel,
    signals: verdict.signals.map(({ signal, score, cost, sinceMs }) => ({
      signal,
      score: round(score),
      cost: round(cost),
      since_ms: Math.round(sinceMs),
    })),
    alarm_since_ms: verdict.alarmSinceMs === undefined ? null : Math.round(verdict.alarmSinceMs),
    updated_at_ms: Math.round(verdict.updatedAtMs),
    ...(verdict.evidence && {
      normal_h: round(verdict.evidence.normalHours),
      needed_h: round(verdict.evidence.neededHours),
    }),
  };
}

/** Reads what a robot says of itself, which may be anything. @returns `undefined` when it is not a verdict. */
export function decodeVerdict(value: unknown): HealthVerdict | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const said = value as Record<string, unknown>;
  const state = said['state'];
  const riskLevel = RISK_LEVELS.find((known) => known === said['risk_level']);
  const updatedAtMs = said['updated_at_ms'];
  const healthScore = ratio(said['health_score']);
  if ((state !== 'learning' && state !== 'watching') || riskLevel === undefined || healthScore === undefined)
    return undefined;
  if (!isTime(updatedAtMs)) return undefined;
  const alarmSinceMs = said['alarm_since_ms'];
  return {
    state,
    progress: ratio(said['progress']) ?? 0,
    anomalyScore: ratio(said['anomaly_score']) ?? null,
    healthScore,
    riskLevel,
    signals: Array.isArray(said['signals']) ? said['signals'].slice(0, SIGNALS_READ_MAX).flatMap(decodeSignal) : [],
    alarmSinceMs: isTime(alarmSinceMs) ? alarmSinceMs : undefined,
    updatedAtMs,
    evidence: evidenceOf(said['normal_h'], said['needed_h']),
  };
}

const evidenceOf = (normalHours: unknown, neededHours: unknown): Evidence | undefined =>
  isHours(normalHours) && isHours(neededHours) ? { normalHours, neededHours } : undefined;

const isHours = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value < 1e9;

const SIGNALS_READ_MAX = 64;

function decodeSignal(value: unknown): SignalCost[] {
  if (typeof value !== 'object' || value === null) return [];
  const said = value as Record<string, unknown>;
  const { signal, since_ms: sinceMs } = said as { signal?: unknown; since_ms?: unknown };
  const score = ratio(said['score']);
  const cost = ratio(said['cost']);
  if (typeof signal !== 'string' || score === undefined || cost === undefined || !isTime(sinceMs)) return [];
  return [{ signal, score, cost, sinceMs }];
}

/** What `Date` can hold. */
const isTime = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value) && Math.abs(value) <= 8.64e15;

const ratio = (value: unknown): number | undefined =>
  typeof value === 'number' && value >= 0 && value <= 1 ? value : undefined;

const round = (value: number): number => Math.round(value * 1000) / 1000;
