import { FAILSAFE_ACTIONS, type FailsafeAction } from '@outrider/shared/failsafe/modes';
import { RISK_LEVELS, type RiskLevel, type SignalCost } from '@outrider/shared/health/verdict';
import { SAMPLE_FLAGS } from '@outrider/shared/telemetry';
import type { LatestSample, ShadowEntry } from '../telemetry/ports.ts';
import { type Analysis, analysisOf, reasonsOf } from './analysis.ts';
import { batteryPercentage, type FailsafeView, failsafeOf, newestOfKind, temperaturesOf } from './readings.ts';
import type { Robot } from './robot.ts';

/** Newer than this, data counts in full. [ms] */
const FRESH_MS = 5_000;
/** Older than this, nothing is known. [ms] */
const STALE_MS = 60_000;
/** Temperature that costs nothing, and the one that costs everything. [°C] */
const WARM_C = 70;
const HOT_C = 95;
/** State of charge from which the battery costs nothing, and at which it costs everything. [%] */
const BATTERY_FULL_SCORE = 20;
const BATTERY_NO_SCORE = 5;
const ODD_FLAGS = SAMPLE_FLAGS.nonFinite | SAMPLE_FLAGS.outOfRange | SAMPLE_FLAGS.malformed;

const ACTION_SCORE: Readonly<Record<FailsafeAction, number>> = {
  NONE: 1,
  WARN: 0.8,
  DERATE: 0.6,
  HOLD: 0.4,
  STOP1: 0.2,
  STOP0: 0,
};
const ACTION_RISK: Readonly<Record<FailsafeAction, RiskLevel>> = {
  NONE: 'low',
  WARN: 'medium',
  DERATE: 'medium',
  HOLD: 'high',
  STOP1: 'critical',
  STOP0: 'critical',
};

export interface HealthAssessment {
  /** 0 to 1; null when nothing recent is known. */
  readonly score: number | null;
  readonly risk: RiskLevel;
  /** 0 to 1, 0.5 where the analyser raises an alarm; null while nobody can tell. */
  readonly anomalyScore: number | null;
  /** Who looked at the signals: the robot's own agent, or the control plane for a robot that does not. */
  readonly analysedBy: Analysis['by'] | null;
  readonly signals: readonly SignalCost[];
  /** Why the score is below 1, a sentence each, which stays the same as long as it is true. */
  readonly reasons: readonly string[];
  readonly failsafe: FailsafeView | undefined;
  /** When the newest thing that went into this was recorded. [ms since 1970] */
  readonly updatedAtMs: number | undefined;
}

/**
 * Judges a robot's health by rules and by what an analyser learnt to be normal:
 *
 * - The score is the lowest of its parts: the failsafe's action (NONE 1, WARN 0.8, DERATE 0.6, HOLD 0.4, STOP1 0.2,
 *   STOP0 0), the hottest temperature (1 up to 70 °C, 0 from 95 °C), the battery (1 from 20 %, 0 at 5 %), the age of
 *   the newest data (1 up to 5 s, 0.5 up to 60 s), odd samples (0.7) and the analyser (1 less what its signals cost).
 * - Nothing newer than 60 s: the score is null and the risk `unknown`, except that a latched stop stays what it is.
 * - The risk is the failsafe's: `critical` for a stop, `high` for HOLD, `medium` for WARN and DERATE; a score below
 *   0.3 raises it to `high`, below 0.6 to `medium`, and an analyser's alarm to what it says.
 */
export function assessHealth(
  robot: Pick<Robot, 'presence'>,
  latest: readonly LatestSample[],
  shadow: readonly ShadowEntry[],
  nowMs: number,
): HealthAssessment {
  const failsafe = failsafeOf(shadow);
  const analysis = analysisOf(shadow, nowMs);
  const action = FAILSAFE_ACTIONS.find((known) => known === failsafe?.action) ?? 'NONE';
  const isLatched = failsafe?.phase === 'LATCHED';
  const reasons: string[] = [];
  const newestMs = latest.reduce(
    (newest, entry) => Math.max(newest, Math.min(entry.recordedAt, entry.ingestedAt)),
    Number.NEGATIVE_INFINITY,
  );
  const times = [...latest.map((entry) => entry.recordedAt), ...(failsafe ? [failsafe.at] : [])];
  const updatedAtMs = times.length === 0 ? undefined : Math.max(...times);
  const ageMs = nowMs - newestMs;
  const failsafeRisk: RiskLevel =
    isLatched || action !== 'NONE' ? ACTION_RISK[action === 'NONE' ? 'HOLD' : action] : 'low';
  if (isLatched)
    reasons.push(`failsafe latched: ${failsafe?.mode ?? (failsafe?.causes.join(', ') || 'no cause given')}`);
  else if (action !== 'NONE')
    reasons.push(`failsafe action ${action}: ${failsafe?.causes.join(', ') || 'no cause given'}`);
  if (!(ageMs <= STALE_MS)) {
    reasons.push(latest.length === 0 ? 'no telemetry yet' : `no telemetry since ${isoTime(newestMs)}`);
    const risk = failsafeRisk === 'low' ? 'unknown' : failsafeRisk;
    return { score: null, risk, ...NOT_ANALYSED, reasons, failsafe, updatedAtMs };
  }
  const parts = [
    ACTION_SCORE[isLatched && action === 'NONE' ? 'HOLD' : action],
    ...dataScores(latest, nowMs, newestMs, reasons),
    analysis?.verdict.healthScore ?? 1,
  ];
  reasons.push(...reasonsOf(analysis));
  if (robot.presence === 'CONNECTION_BROKEN' || robot.presence === 'OFFLINE') reasons.push(`link ${robot.presence}`);
  const score = Math.round(Math.min(...parts) * 1000) / 1000;
  return {
    score,
    risk: worse(raise(failsafeRisk, score), analysis?.verdict.riskLevel),
    anomalyScore: analysis?.verdict.anomalyScore ?? null,
    analysedBy: analysis?.by ?? null,
    signals: analysis?.verdict.signals ?? [],
    reasons,
    failsafe,
    updatedAtMs,
  };
}

const isoTime = (epochMs: number): string => new Date(epochMs).toISOString();

const NOT_ANALYSED = { anomalyScore: null, analysedBy: null, signals: [] } as const;

function dataScores(latest: readonly LatestSample[], nowMs: number, newestMs: number, reasons: string[]): number[] {
  const scores = [1];
  if (nowMs - newestMs > FRESH_MS) {
    scores.push(0.5);
    reasons.push(`newest telemetry is of ${isoTime(newestMs)}`);
  }
  const hottestC = Math.max(...latest.flatMap((entry) => temperaturesOf(entry.sample)), Number.NEGATIVE_INFINITY);
  if (hottestC > WARM_C) {
    scores.push(fraction(HOT_C - hottestC, HOT_C - WARM_C));
    reasons.push(`hottest temperature ${hottestC.toFixed(1)} °C`);
  }
  const power = newestOfKind(latest, 'power');
  const percentage = power ? batteryPercentage(power.sample) : null;
  if (percentage !== null && percentage < BATTERY_FULL_SCORE) {
    scores.push(fraction(percentage - BATTERY_NO_SCORE, BATTERY_FULL_SCORE - BATTERY_NO_SCORE));
    reasons.push(`battery ${percentage.toFixed(1)} %`);
  }
  const odd = latest.filter((entry) => (entry.sample.flags & ODD_FLAGS) !== 0);
  if (odd.length > 0) {
    scores.push(0.7);
    reasons.push(`odd samples on ${odd.map((entry) => entry.stream).join(', ')}`);
  }
  return scores;
}

const fraction = (value: number, whole: number): number => Math.min(1, Math.max(0, value / whole));

function raise(risk: RiskLevel, score: number): RiskLevel {
  const byScore: RiskLevel = score < 0.3 ? 'high' : score < 0.6 ? 'medium' : 'low';
  return worse(risk, byScore);
}

/** The worse of two; what an analyser does not know makes nothing worse. */
function worse(risk: RiskLevel, other: RiskLevel | undefined): RiskLevel {
  if (other === undefined || other === 'unknown') return risk;
  return RISK_LEVELS.indexOf(other) > RISK_LEVELS.indexOf(risk) ? other : risk;
}
