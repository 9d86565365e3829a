import type { JsonSchema } from '@outrider/shared/event-schemas';
import { STREAM_KINDS } from '@outrider/shared/telemetry';
import { LIVE_TYPES, RATE_HZ_MAX, ROBOTS_MAX } from '../../dashboard/live-filter.ts';

const text = { type: 'string' } as const;
const time = { type: 'string', format: 'date-time' } as const;
const count = { type: 'integer', minimum: 0 } as const;
const object = (properties: JsonSchema, required: readonly string[] = Object.keys(properties)): JsonSchema => ({
  type: 'object',
  properties,
  required,
});
const about = { robot_id: text, ingested_at: time };
const position = { type: 'string', description: 'Where to go on after a break: `last_event_id`, or Last-Event-ID.' };

/** A message to the client. */
const frame = (type: string, data: JsonSchema, isPlaced = true): JsonSchema =>
  object({ ...(isPlaced ? { id: position } : {}), type: { const: type }, timestamp: time, data });

const strings = { type: 'array', items: text };
const filter = {
  robot_ids: {
    ...strings,
    maxItems: ROBOTS_MAX,
    description: 'Only these robots; absent: all that the token may see.',
  },
  kinds: { type: 'array', items: { enum: STREAM_KINDS }, description: 'Only these kinds of telemetry.' },
  include: { type: 'array', items: { enum: LIVE_TYPES }, description: 'Only these types of message.' },
  max_rate_hz: {
    type: 'number',
    exclusiveMinimum: 0,
    maximum: RATE_HZ_MAX,
    description: 'Telemetry of a stream comes at most this often; its newest sample is kept.',
  },
};

const FRAMES: Readonly<Record<string, readonly [summary: string, schema: JsonSchema]>> = {
  welcome: [
    'The first message',
    frame(
      'welcome',
      object({ tenant_id: text, robot_ids: { type: ['array', 'null'], items: text }, heartbeat_s: count }),
    ),
  ],
  telemetry: [
    'The newest sample of a stream',
    frame(
      'telemetry',
      object({
        ...about,
        stream: text,
        kind: { enum: STREAM_KINDS },
        names: strings,
        values: {
          type: 'object',
          additionalProperties: { type: 'array', items: { type: ['number', 'null'] } },
          description: 'By field, in SI units; what JSON cannot hold is null.',
        },
        flags: strings,
        sample_count: { ...count, description: 'Samples stored since the last message of the stream.' },
      }),
    ),
  ],
  event: [
    'An event of a robot',
    frame('event', object({ ...about, event_id: text, event_type: text, trace_id: text, payload: {} })),
  ],
  state: ['A part of the robot’s shadow changed', frame('state', object({ ...about, key: text, value: {} }))],
  presence: ['The robot’s connection changed', frame('presence', object({ ...about, presence: text }))],
  alert: ['An alert was raised or changed', frame('alert', object({ robot_id: text }))],
  gap: [
    'Messages were left out: read what you need over HTTP',
    frame(
      'gap',
      object(
        {
          reason: { enum: ['slow', 'expired', 'unknown_position'] },
          skipped: { ...count, description: 'How many, if known.' },
        },
        ['reason'],
      ),
      false,
    ),
  ],
  subscribed: ['What the stream brings from now on', frame('subscribed', object({}), false)],
  error: [
    'A message of the client was refused; the stream goes on as it was',
    frame(
      'error',
      object({ code: text, message: text, details: { type: 'array', items: object({ field: text, reason: text }) } }),
      false,
    ),
  ],
  pong: ['The answer to ping', object({ type: { const: 'pong' }, timestamp: time })],
};

const REQUESTS: Readonly<Record<string, readonly [summary: string, schema: JsonSchema]>> = {
  subscribe: [
    'Changes what the stream brings; what is absent is not limited',
    object({ type: { const: 'subscribe' }, ...filter }, ['type']),
  ],
  ping: ['Asks for a pong', object({ type: { const: 'ping' } })],
};

/** The live stream's part of the document. */
export function liveChannel(): Record<'channels' | 'operations' | 'messages' | 'schemas', JsonSchema> {
  const all = Object.entries({ ...FRAMES, ...REQUESTS });
  const component = (name: string): string => `live_${name}`;
  const refs = (names: readonly string[]): JsonSchema[] =>
    names.map((name) => ({ $ref: `#/channels/live/messages/${name}` }));
  return {
    channels: {
      live: {
        address: '/api/v1/dashboard/stream',
        title: 'Live telemetry and incidents',
        servers: [{ $ref: '#/servers/live' }],
        messages: Object.fromEntries(all.map(([name]) => [name, { $ref: `#/components/messages/${component(name)}` }])),
      },
    },
    operations: {
      stream: { action: 'send', channel: { $ref: '#/channels/live' }, messages: refs(Object.keys(FRAMES)) },
      changeStream: { action: 'receive', channel: { $ref: '#/channels/live' }, messages: refs(Object.keys(REQUESTS)) },
    },
    messages: Object.fromEntries(
      all.map(([name, [summary]]) => [
        component(name),
        {
          name,
          summary,
          contentType: 'application/json',
          payload: { $ref: `#/components/schemas/${component(name)}` },
        },
      ]),
    ),
    schemas: Object.fromEntries(all.map(([name, [, schema]]) => [component(name), schema])),
  };
}
