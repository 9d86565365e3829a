import { type Finding, isLate } from './finding.ts';
import type { EventPast, PendingEvent } from './ports.ts';
import type { Rule } from './rule.ts';

const RISKS = ['low', 'medium', 'high', 'critical'] as const;
type Risk = (typeof RISKS)[number];

/** How bad a risk level is; -1 when it is not known. */
export const riskRank = (risk: unknown): number => RISKS.indexOf(risk as Risk);

/** What one event means for the rules of its tenant. Events come in the order of their lane. */
export async function judgeEvent(event: PendingEvent, rules: readonly Rule[], past: EventPast): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const rule of rules) {
    if (!rule.enabled || (rule.robotIds && !rule.robotIds.includes(event.robot.robotId))) continue;
    const finding = await judgeRule(event, rule, past);
    if (finding) findings.push(finding);
  }
  return findings;
}

async function judgeRule(event: PendingEvent, rule: Rule, past: EventPast): Promise<Finding | undefined> {
  switch (rule.condition.kind) {
    case 'failsafe':
      return await judgeFailsafe(event, rule, rule.condition.modes, past);
    case 'anomaly':
      return judgeAnomaly(event, rule, rule.condition.riskLevel);
    case 'repetition': {
      const { eventType, count, withinS } = rule.condition;
      if (eventType !== event.type) return undefined;
      const { occurredMs, robot } = event;
      const seen = await past.count(robot.robotPk, event.type, occurredMs - withinS * 1000, occurredMs);
      if (seen < count) return undefined;
      return { ...found(event, rule, 'occur'), details: { event_type: event.type, count: seen, within_s: withinS } };
    }
    case 'threshold':
    case 'duration':
    case 'no_data':
    case 'offline':
      return undefined;
  }
}

async function judgeFailsafe(
  event: PendingEvent,
  rule: Rule,
  modes: readonly string[] | undefined,
  past: EventPast,
): Promise<Finding | undefined> {
  const { type, payload } = event;
  const isTransition = type === 'failsafe.transition.v1';
  if (!isTransition && type !== 'failsafe.triggered.v1') return undefined;
  if (isTransition && payload['to_phase'] !== 'LATCHED')
    return { ...found(event, rule, 'clear'), details: { to_phase: payload['to_phase'] } };
  if (modes && !modes.some((mode) => mode === payload['mode'])) return undefined;
  const { mode, action, causes, latch_id, requested_by, reason } = payload;
  const details = { event_id: event.eventId, mode, action, causes, latch_id, requested_by, reason };
  // Two replicas may store a lane out of order: the end can be here before the beginning.
  const endedMs = await past.unlatchedAfter(event.robot.robotPk, event.occurredMs);
  if (endedMs === undefined) return { ...found(event, rule, 'occur'), details };
  // A transition tells of the same stop as the trigger beside it: one episode is enough.
  if (isTransition) return undefined;
  return { ...found(event, rule, 'episode'), clearedAtMs: endedMs, occurrences: 1, details };
}

function judgeAnomaly(event: PendingEvent, rule: Rule, least: string): Finding | undefined {
  if (event.type !== 'anomaly.detected.v1') return undefined;
  const { anomaly_score, risk_level, signals } = event.payload;
  const details = { event_id: event.eventId, anomaly_score, risk_level, signals };
  const isBad = riskRank(risk_level) >= riskRank(least);
  const finding = { ...found(event, rule, isBad ? 'occur' : 'clear'), details };
  return typeof anomaly_score === 'number' ? { ...finding, value: anomaly_score } : finding;
}

function found(event: PendingEvent, rule: Rule, action: Finding['action']): Omit<Finding, 'details'> {
  return {
    robot: event.robot,
    rule,
    action,
    atMs: event.occurredMs,
    isLate: isLate(event.occurredMs, event.ingestedMs),
    traceId: event.traceId,
    evidence: { recordedMs: event.occurredMs, ingestedMs: event.ingestedMs },
  };
}
