import { EVENT_TYPES, type EventType, OWN_EVENT_TYPES } from './events.ts';
import { FAILSAFE_ACTIONS, REPORTED_MODES } from './failsafe/modes.ts';

/** A JSON Schema (draft 2020-12) document. */
export type JsonSchema = Readonly<Record<string, unknown>>;

const text = { type: 'string', minLength: 1 } as const;
const time = { type: 'string', format: 'date-time' } as const;
const ratio = { type: 'number', minimum: 0, maximum: 1 } as const;
const count = { type: 'integer', minimum: 0 } as const;
const object = (properties: JsonSchema, required: readonly string[] = Object.keys(properties)): JsonSchema => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
});

/** What both failsafe events say of the latched state. */
const failsafeFacts = {
  action: { enum: FAILSAFE_ACTIONS },
  causes: {
    type: 'array',
    items: object({ cause: text, action: { enum: FAILSAFE_ACTIONS }, detail: { type: 'string' } }),
  },
  latch_id: count,
  motion_epoch: count,
  requested_by: { type: 'string' },
  reason: { type: 'string' },
  decision_latency_ms: { type: 'number', minimum: 0 },
};

/** About which thing an event of this type is. */
type About = 'robot_id' | 'swarm_id';

const PAYLOADS: Readonly<Record<EventType, readonly [About, JsonSchema]>> = {
  'telemetry.ingested.v1': [
    'robot_id',
    object({
      streams: { type: 'array', items: object({ stream: text, samples: count, from: time, to: time }) },
      samples: count,
      ingested_at: time,
    }),
  ],
  'anomaly.detected.v1': [
    'robot_id',
    object({
      anomaly_score: ratio,
      risk_level: { enum: ['low', 'medium', 'high', 'critical'] },
      signals: { type: 'array', items: object({ signal: text, score: ratio, since: time }) },
    }),
  ],
  'failsafe.triggered.v1': ['robot_id', object({ mode: { enum: REPORTED_MODES }, ...failsafeFacts })],
  'swarm.leader_elected.v1': [
    'swarm_id',
    object({ leader_robot_id: text, term: count, previous_leader_robot_id: { type: ['string', 'null'] } }),
  ],
  'twin.simulation.completed.v1': [
    'robot_id',
    object({
      simulation_id: text,
      mode: text,
      physics_backend: text,
      failure_probability: ratio,
      maintenance_window_hours: { type: 'number', minimum: 0 },
      risk_heatmap_uri: { type: ['string', 'null'] },
    }),
  ],
  'failsafe.transition.v1': [
    'robot_id',
    object({
      transition_id: count,
      from_phase: text,
      to_phase: text,
      /** Empty when nothing is latched. */
      mode: { enum: ['', ...REPORTED_MODES] },
      ...failsafeFacts,
    }),
  ],
  'telemetry.gap.v1': [
    'robot_id',
    object({ lane: text, epoch: text, seq_from: count, seq_to: count, samples: count, reason: text }),
  ],
  // What became of an instruction, whoever hears the answer.
  'command.answered.v1': [
    'robot_id',
    object({
      command_id: text,
      verb: { type: 'string' },
      outcome: text,
      detail: { type: 'string' },
      unmet: { type: 'array', items: text },
      confirmed: { type: 'array', items: text },
      latch_id: count,
      motion_epoch: count,
      counter: count,
      requested_by: { type: 'string' },
      reason: { type: 'string' },
    }),
  ],
  // Something on the command channel that nobody who may had signed: an alarm.
  'command.unauthentic.v1': [
    'robot_id',
    object({
      problem: text,
      key_id: { type: 'string' },
      claimed_verb: { type: 'string' },
      claimed_command_id: { type: 'string' },
      count,
    }),
  ],
  'edge.started.v1': ['robot_id', object({ boot_id: text, agent_version: text, epoch: text })],
  'blackbox.recorded.v1': [
    'robot_id',
    object({
      box_id: text,
      tripped_at: text,
      mode: { type: 'string' },
      latch_id: count,
      transition_id: count,
      from: text,
      to: text,
      samples: count,
      bytes: count,
      cut_short: { type: ['string', 'null'] },
    }),
  ],
};

/** The whole event, envelope and payload, as its JSON Schema. */
export function eventSchema(type: EventType): JsonSchema {
  const [about, payload] = PAYLOADS[type];
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: `https://outrider.invalid/schemas/events/${type}.json`,
    title: type,
    ...object({
      event_id: text,
      event_type: { const: type },
      occurred_at: time,
      [about]: text,
      trace_id: text,
      payload,
    }),
  };
}

/** Every event's schema. */
export const EVENT_SCHEMAS: ReadonlyMap<EventType, JsonSchema> = new Map(
  [...EVENT_TYPES, ...OWN_EVENT_TYPES].map((type) => [type, eventSchema(type)]),
);
