import { once } from 'node:events';
import { status } from '@grpc/grpc-js';
import { outrider } from '@outrider/shared/protocol/api-messages';
import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import type { NewEvent } from '../src/events/ports.ts';
import { insertBusEvents } from '../src/storage/event-store.ts';
import { until } from '../src/testing/engines.ts';
import { describeRobot } from './api-harness.ts';
import { detailsOf, drain, methodOf, startGrpcRig } from './grpc-rig.ts';

const api = outrider.api.v1;
const COMMANDS = 'outrider.api.v1.CommandService';
const DISPATCH = methodOf(COMMANDS, 'Dispatch', api.DispatchRequest, api.Command);
const WATCH_COMMAND = methodOf(COMMANDS, 'WatchCommand', api.CommandRef, api.Command);
const GET_COMMAND = methodOf(COMMANDS, 'GetCommand', api.CommandRef, api.Command);
const CANCEL = methodOf(COMMANDS, 'CancelCommand', api.CommandRef, api.Command);
const EVENTS = methodOf('outrider.api.v1.EventService', 'WatchEvents', api.WatchEventsRequest, api.Event);

const rig = await startGrpcRig();
t.teardown(() => rig.close());
const token = await rig.token('default');
await rig.token('other');
for (const id of ['RB-1', 'RB-2']) await rig.call('POST', '/v1/robots', { token, body: describeRobot(id) });
await rig.database.query(
  `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
   select robot_pk, 'failsafe', now(), now(),
          case robot_id when 'RB-1' then '{"phase":"ARMED","latch_id":1,"motion_epoch":3}'::jsonb
                        else '{"phase":"LATCHED","latch_id":2,"motion_epoch":3}'::jsonb end from robot`,
);
const service = rig.caller(await rig.service('default', ['telemetry:read', 'command:write']));
const other = rig.caller(await rig.service('other', ['telemetry:read', 'command:write']));

t.test('a command is dispatched and followed to its end', async (t) => {
  const stream = service.watch(DISPATCH, { robot_id: 'RB-1', command: 'hold', idempotency_key: 'k-1', reason: 'test' });
  const result = drain(stream);
  const [accepted] = (await once(stream, 'data')) as [outrider.api.v1.Command];
  t.match(accepted, { robot_id: 'RB-1', command: 'hold', status: 'accepted', motion_epoch: 3, reason: 'test' });
  t.match(accepted.requested_by, /^service:/);
  const ref = { robot_id: 'RB-1', command_id: accepted.command_id };
  const again = service.watch(DISPATCH, { robot_id: 'RB-1', command: 'hold', idempotency_key: 'k-1', reason: 'test' });
  const [same] = (await once(again, 'data')) as [outrider.api.v1.Command];
  t.equal(same.command_id, accepted.command_id, 'the same key is the same command');
  again.on('error', () => undefined);
  again.cancel();
  t.equal((await service.call(GET_COMMAND, ref)).reply?.status, 'accepted', 'ending the stream does not call it off');
  const watched = drain(service.watch(WATCH_COMMAND, ref));
  t.equal((await other.call(GET_COMMAND, ref)).error?.code, status.NOT_FOUND, 'another tenant');
  t.equal((await other.call(CANCEL, ref)).error?.code, status.NOT_FOUND);
  t.equal((await service.call(CANCEL, ref)).reply?.status, 'cancelled');
  for (const { replies, error } of [await result, await watched]) {
    t.equal(error, undefined, 'the stream ends by itself');
    t.equal(replies.at(-1)?.status, 'cancelled');
    t.same(
      replies.at(-1)?.history.map((step) => step.status),
      ['accepted', 'cancelled'],
    );
  }
});

t.test('a command that cannot be is refused as over HTTP', async (t) => {
  const ask = async (request: outrider.api.v1.DispatchRequest.$Properties) =>
    (await drain(service.watch(DISPATCH, request))).error;
  const latched = await ask({ robot_id: 'RB-2', command: 'hold' });
  t.equal(latched?.code, status.FAILED_PRECONDITION);
  t.same(detailsOf(latched).fields, ['failsafe']);
  const dance = await ask({ robot_id: 'RB-1', command: 'dance' });
  t.equal(dance?.code, status.INVALID_ARGUMENT);
  t.same(detailsOf(dance).fields, ['command']);
  const blank = await ask({
    robot_id: 'RB-1',
    command: 'set_joint_positions',
    parameters: { joints: [{ name: 'knee' }] },
  });
  t.same(detailsOf(blank).fields, ['parameters.joints[0].position_rad']);
  t.equal((await ask({ robot_id: 'RB-404', command: 'hold' }))?.code, status.NOT_FOUND);
});

const PADDING = 'x'.repeat(4_000);
const eventOf = (robotId: string, n: number): NewEvent => ({
  type: 'edge.started.v1',
  tenantId: 'default',
  robotId,
  occurredAtMs: systemClock.epochMs(),
  traceId: `req_${n}`,
  eventId: `evt_${robotId}_${n}`,
  payload: { boot_id: String(n), agent_version: PADDING, epoch: 'e' },
});
const publish = (events: readonly NewEvent[]): Promise<void> =>
  rig.database.transaction((tx) => insertBusEvents(tx, events, systemClock.epochMs()));

t.test('events are watched, and a watcher goes on from its cursor', async (t) => {
  await publish([eventOf('RB-1', 1), eventOf('RB-2', 1)]);
  const first = service.watch(EVENTS, { after: 0, types: ['edge.started.v1'] });
  const seen: outrider.api.v1.Event[] = [];
  first.on('data', (event: outrider.api.v1.Event) => seen.push(event));
  first.on('error', () => undefined);
  await until(() => seen.length === 2, 'the events before');
  t.match(seen[0], { event_id: 'evt_RB-1_1', event_type: 'edge.started.v1', trace_id: 'req_1', robot_id: 'RB-1' });
  t.match(JSON.parse(seen[0]?.payload_json ?? ''), { boot_id: '1' });
  await publish([eventOf('RB-1', 2)]);
  await until(() => seen.length === 3, 'the event that came while it watched');
  first.cancel();
  await publish([eventOf('RB-1', 3), eventOf('RB-2', 3)]);
  const later: string[] = [];
  const second = service.watch(EVENTS, { after: seen[2]?.cursor ?? 0, robot_ids: ['RB-1'] });
  second.on('data', (event: outrider.api.v1.Event) => later.push(event.event_id));
  second.on('error', () => undefined);
  await until(() => later.length === 1, 'what came in between');
  t.same(later, ['evt_RB-1_3'], 'nothing twice, nothing lost, and only the robot that was asked for');
  second.cancel();

  const foreign = other.watch(EVENTS, { after: 0 });
  const leaked: unknown[] = [];
  foreign.on('data', (event: unknown) => leaked.push(event));
  foreign.on('error', () => undefined);
  const refused = await drain(other.watch(EVENTS, { robot_ids: ['RB-1'] }));
  t.equal(refused.error?.code, status.NOT_FOUND);
  const unknown = await drain(service.watch(EVENTS, { types: ['nothing.v1'] }));
  t.same(detailsOf(unknown.error).fields, ['types[0]']);
  t.same(leaked, [], 'another tenant sees nothing');
  foreign.cancel();
});

t.test('a reader that stands still costs the server a few pages, and loses nothing', async (t) => {
  const count = 2_000;
  for (let from = 0; from < count; from += 500)
    await publish(Array.from({ length: 500 }, (_, n) => eventOf('RB-2', 10_000 + from + n)));
  const { events } = rig.api.core;
  const query = events.query.bind(events);
  let given = 0;
  Object.defineProperty(events, 'query', {
    value: async (...parameters: Parameters<typeof query>) => {
      const page = await query(...parameters);
      given += page.events.length;
      return page;
    },
  });
  const stream = service.watch(EVENTS, { after: 0, robot_ids: ['RB-2'] });
  stream.on('error', () => undefined);
  const ids = new Set<string>();
  // This client holds its connection back only once it has begun to read.
  const [first] = (await once(stream, 'data')) as [outrider.api.v1.Event];
  stream.pause();
  ids.add(first.event_id);
  // Nobody reads: the server must stop when the connection and its own small buffer are full.
  let stillSinceMs = systemClock.monotonicMs();
  let before = 0;
  await until(() => {
    const nowMs = systemClock.monotonicMs();
    if (given !== before) stillSinceMs = nowMs;
    before = given;
    return given > 0 && nowMs - stillSinceMs > 500;
  }, 'the server to stand still');
  t.ok(given <= 400, `${given} of ${count} events were read for a reader that stands still`);
  stream.on('data', (event: outrider.api.v1.Event) => ids.add(event.event_id));
  stream.resume();
  await until(() => ids.has(`evt_RB-2_${10_000 + count - 1}`), 'the last of them');
  const missing = Array.from({ length: count }, (_, n) => `evt_RB-2_${10_000 + n}`).filter((id) => !ids.has(id));
  t.same(missing, [], 'every one of them came');
  stream.cancel();
});
