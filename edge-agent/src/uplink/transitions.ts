import type { outrider } from '@outrider/shared/messages';
import type { OutboxEvent } from '../outbox/records.ts';

/**
 * What a transition of the guard is reported as: always a transition, and a trigger when a latch is new. The ids
 * come from the transition, so that one reported twice is one event.
 *
 * @param previousLatchId The latch before it, as far as known: a cause that comes up while latched is a new latch.
 */
export function transitionEvents(
  transition: outrider.v1.Transition.$Properties,
  previousLatchId: number | undefined,
): OutboxEvent[] {
  const id = transition.transitionId ?? 0;
  const occurredAtMs = transition.atMs ?? 0;
  const suffix = `${Math.round(occurredAtMs)}_${id}`;
  const traceId = transition.traceId || `transition_${suffix}`;
  const shared = {
    mode: transition.mode ?? '',
    action: transition.action || 'NONE',
    causes: (transition.causes ?? []).map(({ cause, action, detail }) => ({
      cause: cause ?? '',
      action: action || 'NONE',
      detail: detail ?? '',
    })),
    latch_id: transition.latchId ?? 0,
    motion_epoch: transition.motionEpoch ?? 0,
    requested_by: transition.requestedBy ?? '',
    reason: transition.reason ?? '',
    decision_latency_ms: Math.max(0, transition.decisionLatencyMs ?? 0),
  };
  const { fromPhase = '', toPhase = '' } = transition;
  const events: OutboxEvent[] = [
    {
      eventId: `evt_transition_${suffix}`,
      type: 'failsafe.transition.v1',
      occurredAtMs,
      traceId,
      payload: { transition_id: id, from_phase: fromPhase, to_phase: toPhase, ...shared },
    },
  ];
  const isNewLatch = previousLatchId !== undefined && shared.latch_id > previousLatchId;
  if (toPhase === 'LATCHED' && (fromPhase !== 'LATCHED' || isNewLatch))
    events.push({
      eventId: `evt_triggered_${suffix}`,
      type: 'failsafe.triggered.v1',
      occurredAtMs,
      traceId,
      payload: shared,
    });
  return events;
}
