import { decodeVerdict, type HealthVerdict, isShown } from '@outrider/shared/health/verdict';
import { EDGE_KEY } from '../health/ports.ts';
import type { ShadowEntry } from '../telemetry/ports.ts';

/** A verdict older than this is none. [ms] */
const FRESH_MS = 60_000;
/** The robot's own verdict comes first: it saw every sample. The control plane judges only robots that do not. */
const SOURCES = [
  { by: 'edge', key: EDGE_KEY },
  { by: 'cloud', key: 'cloud_health' },
] as const;

export interface Analysis {
  readonly by: (typeof SOURCES)[number]['by'];
  readonly verdict: HealthVerdict;
}

/** The one place that decides whose analysis of a robot counts. */
export function analysisOf(shadow: readonly ShadowEntry[], nowMs: number): Analysis | undefined {
  for (const { by, key } of SOURCES) {
    const entry = shadow.find((candidate) => candidate.key === key);
    const verdict = entry && nowMs - entry.ingestedAt <= FRESH_MS ? decodeVerdict(entry.value) : undefined;
    if (verdict) return { by, verdict };
  }
  return undefined;
}

/** What a person should know of the analysis: what costs how much since when, or why there is no score. */
export function reasonsOf(analysis: Analysis | undefined): string[] {
  if (!analysis) return ['no anomaly score: no analyser has reported in the last minute'];
  const { verdict } = analysis;
  if (verdict.anomalyScore === null)
    return [`no anomaly score yet: learning what is normal, ${Math.round(verdict.progress * 100)} % done`];
  const costs = verdict.signals
    .filter(({ cost }) => cost >= 0.005)
    .map(({ signal, cost, sinceMs }) => `${signal} costs ${cost.toFixed(2)} since ${new Date(sinceMs).toISOString()}`);
  return [...costs, ...doubtsOf(verdict)];
}

/** An alarm whose level rests on little is worth less: said where there is one. */
function doubtsOf({ evidence, alarmSinceMs }: HealthVerdict): string[] {
  if (!evidence || isShown(evidence) || alarmSinceMs === undefined) return [];
  const { normalHours, neededHours } = evidence;
  return [
    `the alarm level is an extrapolation: it rests on ${normalHours.toFixed(1)} h of normal work, ${neededHours.toFixed(0)} h would show its false-alarm rate`,
  ];
}
