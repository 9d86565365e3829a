/** Bus events that must exist (SigmaPrompt §11). The version is part of the name: a new payload is a new type. */
export const EVENT_TYPES = [
  'telemetry.ingested.v1',
  'anomaly.detected.v1',
  'failsafe.triggered.v1',
  'swarm.leader_elected.v1',
  'twin.simulation.completed.v1',
] as const;
export type MandatoryEventType = (typeof EVENT_TYPES)[number];

/** Events beyond the mandatory five that the programs exchange. */
export const OWN_EVENT_TYPES = [
  'failsafe.transition.v1',
  'telemetry.gap.v1',
  'edge.started.v1',
  'blackbox.recorded.v1',
  'command.answered.v1',
  'command.unauthentic.v1',
] as const;
export type EventType = MandatoryEventType | (typeof OWN_EVENT_TYPES)[number];

/** What every event on the bus carries. Exactly one of `robot_id` and `swarm_id` is there. */
export interface EventEnvelope<P = unknown> {
  readonly event_id: string;
  readonly event_type: EventType;
  /** ISO 8601, UTC. When it happened, not when it was sent. */
  readonly occurred_at: string;
  readonly robot_id?: string;
  readonly swarm_id?: string;
  /** The X-Request-ID of what caused it, else an id of its own. */
  readonly trace_id: string;
  readonly payload: P;
}
