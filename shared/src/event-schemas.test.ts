import { Ajv2020 } from 'ajv/dist/2020.js';
import t from 'tap';
import { EVENT_SCHEMAS } from './event-schemas.ts';
import { EVENT_TYPES } from './events.ts';

const ajv = new Ajv2020({ strict: true, formats: { 'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/ } });

t.test('the five mandatory events have schemas that hold their envelope', async (t) => {
  t.ok(EVENT_TYPES.length === 5);
  for (const type of EVENT_TYPES) {
    const schema = EVENT_SCHEMAS.get(type);
    t.ok(schema, type);
    t.doesNotThrow(() => ajv.compile(schema ?? false), `${type} compiles in strict mode`);
    const required = schema?.['required'] as string[];
    for (const field of ['event_id', 'event_type', 'occurred_at', 'trace_id', 'payload'])
      t.ok(required.includes(field));
    t.ok(required.includes('robot_id') !== required.includes('swarm_id'), `${type} is about a robot or a swarm`);
  }
});

t.test('an event that lies about its kind, lacks its trace or brings extra fields does not pass', async (t) => {
  const validate = ajv.getSchema('https://outrider.invalid/schemas/events/failsafe.triggered.v1.json');
  const event = {
    event_id: 'evt_1',
    event_type: 'failsafe.triggered.v1',
    occurred_at: '2026-01-11T05:12:00.000Z',
    robot_id: 'RB-1022',
    trace_id: 'req_1',
    payload: {
      mode: 'thermal_shutdown',
      action: 'STOP1',
      causes: [{ cause: 'thermal_shutdown', action: 'STOP1', detail: 'knee_l 96.0 °C' }],
      latch_id: 3,
      motion_epoch: 1,
      requested_by: '',
      reason: '',
      decision_latency_ms: 21.5,
    },
  };
  t.ok(validate?.(event), JSON.stringify(validate?.errors));
  t.notOk(validate?.({ ...event, event_type: 'anomaly.detected.v1' }));
  t.notOk(validate?.({ ...event, trace_id: '' }));
  t.notOk(validate?.({ ...event, occurred_at: 'yesterday' }));
  t.notOk(validate?.({ ...event, swarm_id: 'x' }));
  t.notOk(validate?.({ ...event, payload: { ...event.payload, mode: 'party' } }));
});
