import type { outrider } from '@outrider/shared/messages';
import t from 'tap';
import type { Command } from '../src/command/command.ts';
import { until } from '../src/testing/engines.ts';
import { describeRobot, type SentInstruction, startHarness } from './api-harness.ts';

t.setTimeout(590_000);

const harness = await startHarness();
const { call, bus, database, api } = harness;
const token = await harness.token('default');
t.teardown(() => harness.close());
const ROBOTS = ['RB-1', 'RB-2', 'RB-3', 'RB-4', 'RB-5', 'RB-6', 'RB-7'];
for (const robotId of ROBOTS) {
  const { robot_descriptor } = describeRobot(robotId);
  const joints = { knee_l: { position_min_rad: -1, position_max_rad: 1, velocity_max_radps: 2 }, hip_l: {} };
  await call('POST', '/v1/robots', {
    token,
    body: { robot_descriptor: { ...robot_descriptor, capabilities: { joints } } },
  });
}

/** What the robot says of its failsafe, as it is stored. */
async function report(robotId: string, phase = 'ARMED', motionEpoch = 4): Promise<void> {
  await database.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
     select robot_pk, 'failsafe', now(), now(), ($2::text)::jsonb from robot where robot_id = $1
     on conflict (robot_pk, key) do update set value = excluded.value, at = excluded.at`,
    [robotId, JSON.stringify({ phase, latch_id: 7, motion_epoch: motionEpoch, causes: [{ cause: 'estop' }] })],
  );
}
const path = (robotId: string): string => `/api/v1/robots/${robotId}/commands`;
const move = (more: object = {}, joint: object = {}) => ({
  command: 'set_joint_positions',
  parameters: { joints: [{ name: 'knee_l', position_rad: 0.4, ...joint }] },
  ...more,
});
const dispatch = (robotId: string, body: unknown = move(), headers: Record<string, string> = {}) =>
  call('POST', path(robotId), { token, body, headers });
const device = (robotId: string) => ({ tenantId: 'default', robotId });
const read = async (robotId: string, id: string): Promise<Record<string, never>> =>
  (await call('GET', `${path(robotId)}/${id}`, { token })).json;
const reaches = async (robotId: string, id: string, status: string): Promise<Record<string, never>> => {
  let seen = await read(robotId, id);
  await until(async () => {
    seen = await read(robotId, id);
    return seen['status'] === status;
  }, `${id} to be ${status}, now ${seen['status']}`);
  return seen;
};
/** Instructions that went to a robot, of one verb. */
const sentTo = (robotId: string, verb = 'command'): SentInstruction[] =>
  bus.sent.map(({ trigger }) => trigger).filter((sent) => sent.robotId === robotId && sent.verb === verb);
const say = (robotId: string, commandId: string, reply: outrider.v1.CommandReply.$Properties): void =>
  bus.reply(device(robotId), { commandId, verb: 'command', ...reply });
const step = (commandId: string, stage: string, progress = 0): outrider.v1.CommandReply.$Properties => ({
  commandId,
  stage,
  progress,
});
const steps = (command: { readonly [key: string]: unknown }): string[] =>
  (command['history'] as { status: string }[]).map(({ status }) => status);

t.test('a command goes out signed and numbered, and what the robot says is its history', async (t) => {
  await report('RB-1');
  bus.online.add('default.RB-1');
  const asked = await dispatch('RB-1', move({ reason: 'test', timeout_ms: 5000 }, { velocity_max_radps: 1 }), {
    'x-request-id': 'why-1',
  });
  t.match(asked, { status: 202, json: { status: 'accepted', motion_epoch: 4, trace_id: 'why-1', progress: 0 } });
  const id = String(asked.json['command_id']);
  await until(() => sentTo('RB-1').length === 1, 'the instruction');
  const [sent] = sentTo('RB-1');
  t.match(sent, {
    ...device('RB-1'),
    commandId: id,
    motionEpoch: 4,
    traceId: 'why-1',
    reason: 'test',
    command: {
      kind: 'set_joint_positions',
      timeoutMs: 5000,
      joints: [{ name: 'knee_l', positionRad: 0.4, velocityMaxRadps: 1 }],
    },
  });
  t.ok(
    (sent?.counter ?? 0) > 0 && (sent?.ttlMs ?? 0) > 0 && (sent?.ttlMs ?? 0) <= 30_000,
    'numbered, and not for ever',
  );
  const heard: [string, number][] = [];
  const robot = await api.core.robots.find({ kind: 'client', sub: 's', tenantId: 'default', scopes: [] }, 'RB-1');
  const stop = await api.core.commands.watch(robot, id, (now: Command) => void heard.push([now.status, now.progress]));
  say('RB-1', id, step(id, 'delivered'));
  say('RB-1', id, step(id, 'executing', 0.25));
  say('RB-1', id, step(id, 'executing', 0.5));
  say('RB-1', id, { done: true, outcome: 'done', detail: 'there' });
  say('RB-1', id, step(id, 'executing', 0.9));
  const done = await reaches('RB-1', id, 'completed');
  t.match(done, { progress: 1, detail: 'there' });
  t.same(steps(done), ['accepted', 'delivered', 'executing', 'completed']);
  await until(() => heard.at(-1)?.[0] === 'completed', 'the watcher');
  t.equal(heard[0]?.[0], 'accepted', 'as it is now, first');
  t.ok(
    heard.some(([status, progress]) => status === 'executing' && progress === 0.5),
    JSON.stringify(heard),
  );
  stop();
  stop();
  const audit = await database.query<{ action: string; outcome: string; request_id: string }>(
    `select action, outcome, request_id from audit_entry where details->>'command_id' = $1 order by audit_id`,
    [id],
  );
  t.match(audit, [
    { action: 'command.dispatch', outcome: 'accepted', request_id: 'why-1' },
    { action: 'command.answer', outcome: 'completed' },
  ]);
});

t.test('what a robot cannot do now, or at all, is refused before it is stored', async (t) => {
  const cases: [unknown, number, object][] = [
    [{}, 400, { details: [{ field: 'command' }] }],
    [{ command: 'dance' }, 400, { details: [{ field: 'command' }] }],
    [{ command: 'set_joint_positions' }, 400, { details: [{ field: 'parameters.joints' }] }],
    [move({}, { name: 'tail' }), 400, { details: [{ field: 'parameters.joints[0].name' }] }],
    [move({}, { position_rad: 1.1 }), 400, { details: [{ field: 'parameters.joints[0].position_rad' }] }],
    [move({}, { position_rad: 'x' }), 400, { details: [{ field: 'parameters.joints[0].position_rad' }] }],
    [move({}, { velocity_max_radps: 3 }), 400, { details: [{ field: 'parameters.joints[0].velocity_max_radps' }] }],
    [{ ...move(), command: 'hold' }, 400, { details: [{ field: 'parameters.joints' }] }],
    [move({ expires_in_ms: 5 }), 400, { details: [{ field: 'expires_in_ms' }] }],
    [move({ expires_at: '2020-01-01T00:00:00Z' }), 400, { details: [{ field: 'expires_at' }] }],
    [move({ expires_at: '2100-01-01T00:00:00Z' }), 400, { details: [{ field: 'expires_at' }] }],
    [move({ timeout_ms: 100_000 }), 400, { details: [{ field: 'timeout_ms' }] }],
    [move({ force: true }), 400, { details: [{ field: 'force' }] }],
    [move({ idempotency_key: 'a b' }), 400, { details: [{ field: 'idempotency_key' }] }],
  ];
  await report('RB-2');
  for (const [body, status, error] of cases) t.match(await dispatch('RB-2', body), { status, json: { error } });
  t.match(await dispatch('RB-2', move({ require_online: true })), {
    status: 503,
    json: { error: { code: 'UNAVAILABLE' } },
  });
  await report('RB-2', 'LATCHED');
  t.match(await dispatch('RB-2'), {
    status: 409,
    json: {
      error: { code: 'FAILED_PRECONDITION', details: [{ field: 'failsafe' }, { field: 'cause', reason: 'estop' }] },
    },
  });
  await report('RB-2');
  await database.query(`update robot set status_override = 'maintenance' where robot_id = 'RB-2'`);
  t.match(await dispatch('RB-2'), { status: 409, json: { error: { message: /maintenance/ } } });
  t.match(await dispatch('RB-3'), { status: 409, json: { error: { message: /not reported its failsafe/ } } });
  t.match(await dispatch('nobody'), { status: 404 });
  const reader = await harness.token('default', ['telemetry:read']);
  t.match(await call('POST', path('RB-2'), { token: reader, body: move() }), { status: 403 });
  const stranger = await harness.token('other');
  for (const [method, at] of [
    ['POST', path('RB-1')],
    ['GET', path('RB-1')],
    ['GET', `${path('RB-1')}/cmd_1`],
    ['DELETE', `${path('RB-1')}/cmd_1`],
  ] as const)
    t.match(await call(method, at, { token: stranger, ...(method === 'POST' ? { body: move() } : {}) }), {
      status: 404,
    });
  t.match(await call('GET', path('RB-2'), { token }), { json: { commands: [], next_cursor: null } });
  const refused = await database.query(
    `select 1 from audit_entry where action = 'command.dispatch' and outcome = 'rejected'`,
  );
  t.ok(refused.length > 0, 'refusals are on record');
});

t.test('one key is one command, and another request under it is refused', async (t) => {
  await report('RB-3');
  const key = { 'idempotency-key': 'k-1' };
  const answers = await Promise.all(Array.from({ length: 8 }, () => dispatch('RB-3', move(), key)));
  t.same(new Set(answers.map(({ status }) => status)), new Set([202]));
  t.equal(new Set(answers.map(({ json }) => json['command_id'])).size, 1);
  t.equal(answers.filter(({ headers }) => headers.get('idempotency-replayed') === 'true').length, 7);
  const inBody = await dispatch('RB-3', move({ idempotency_key: 'k-1' }));
  t.equal(inBody.json['command_id'], answers[0]?.json['command_id'], 'the header and the body say the same');
  t.match(await dispatch('RB-3', move({}, { position_rad: 0.5 }), key), {
    status: 409,
    json: { error: { code: 'ALREADY_EXISTS' } },
  });
  t.match(await dispatch('RB-3', move({ idempotency_key: 'k-2' }), key), { status: 400 });
  await report('RB-3', 'LATCHED');
  t.match(await dispatch('RB-3', move(), key), { status: 202 }, 'a repetition is answered, whatever has come since');
});

t.test('commands wait for their robot, in order, until they expire', async (t) => {
  await report('RB-4');
  const dead = String((await dispatch('RB-4', move({ expires_in_ms: 100 }))).json['command_id']);
  const [first, second] = [
    String((await dispatch('RB-4')).json['command_id']),
    String((await dispatch('RB-4', { command: 'hold' })).json['command_id']),
  ];
  t.match(await reaches('RB-4', dead, 'expired'), { detail: /not connected in time/ });
  t.same(sentTo('RB-4'), [], 'nothing goes to a robot that is away');
  bus.appear(device('RB-4'));
  await until(() => sentTo('RB-4').length > 0, 'the first');
  t.match(sentTo('RB-4'), [{ commandId: first }], 'the second waits for the first');
  await until(() => sentTo('RB-4').length > 1, 'the first again');
  t.equal(sentTo('RB-4')[1]?.commandId, first, 'what is not answered is sent again');
  t.ok((sentTo('RB-4')[1]?.counter ?? 0) > (sentTo('RB-4')[0]?.counter ?? 0), 'under a new number');
  say('RB-4', first, step(first, 'delivered'));
  await until(() => sentTo('RB-4').some(({ commandId }) => commandId === second), 'the second');
  bus.reply(device('RB-1'), { commandId: second, verb: 'command', done: true, outcome: 'done' });
  say('RB-4', second, { outcome: 'refused', detail: 'the gate is closed' });
  t.match(await reaches('RB-4', second, 'rejected'), { detail: 'the gate is closed' }, 'not another robot’s word');
  // The end of the first came while nobody listened: the event lane brings it.
  await database.query(
    `insert into robot_event (robot_pk, epoch, seq, event_id, type, occurred_at, ingested_at, trace_id, content_hash, payload)
     select robot_pk, '0123456789abcdef', 1, $1, 'command.answered.v1', now(), now(), 't', '\\x00', ($2::text)::jsonb
       from robot where robot_id = 'RB-4'`,
    [`evt_command_${first}`, JSON.stringify({ command_id: first, outcome: 'done', detail: 'done offline' })],
  );
  t.match(await reaches('RB-4', first, 'completed'), { detail: 'done offline' });
});

t.test('a command that was sent and not confirmed is not called expired before the robot says so', async (t) => {
  await report('RB-5');
  bus.online.add('default.RB-5');
  const id = String((await dispatch('RB-5', move({ expires_in_ms: 1_500 }))).json['command_id']);
  await until(() => sentTo('RB-5').length === 1, 'the command');
  await until(() => sentTo('RB-5', 'cancel').length > 0, 'the question');
  t.match(sentTo('RB-5', 'cancel')[0], { counter: 0, cancel: { commandId: id, onlyUnbegun: true } });
  t.match(await read('RB-5', id), { status: 'accepted' });
  say('RB-5', id, { outcome: 'expired', detail: 'its time was over before it came' });
  t.match(await reaches('RB-5', id, 'expired'), { detail: /before it came/ });
  t.equal(sentTo('RB-5').length, 1, 'it is not sent after its time');
});

t.test('a cancellation is the robot’s to confirm, unless the robot cannot have the command', async (t) => {
  await report('RB-6');
  const unsent = String((await dispatch('RB-6')).json['command_id']);
  t.match(await call('DELETE', `${path('RB-6')}/${unsent}`, { token }), { status: 200, json: { status: 'cancelled' } });
  t.match(await call('DELETE', `${path('RB-6')}/${unsent}`, { token }), { status: 200 }, 'twice is harmless');
  bus.online.add('default.RB-6');
  const id = String((await dispatch('RB-6')).json['command_id']);
  await until(() => sentTo('RB-6').length === 1, 'the command');
  say('RB-6', id, step(id, 'executing', 0.1));
  await reaches('RB-6', id, 'executing');
  const pending = call('DELETE', `${path('RB-6')}/${id}`, { token });
  await until(() => sentTo('RB-6', 'cancel').length > 0, 'the cancellation');
  t.match(sentTo('RB-6', 'cancel')[0], { cancel: { commandId: id, onlyUnbegun: false } });
  say('RB-6', id, { outcome: 'cancelled', detail: 'called off by client' });
  t.match(await pending, { status: 200, json: { status: 'cancelled', cancel_requested_at: String } });
  const silent = String((await dispatch('RB-6')).json['command_id']);
  await until(() => sentTo('RB-6').some(({ commandId }) => commandId === silent), 'another');
  t.match(await call('DELETE', `${path('RB-6')}/${silent}`, { token }), { status: 202, json: { status: 'accepted' } });
  const asked = sentTo('RB-6', 'cancel').length;
  await until(() => sentTo('RB-6', 'cancel').length > asked, 'it to be asked again');
  say('RB-6', silent, { done: true, outcome: 'done', detail: 'too late' });
  await reaches('RB-6', silent, 'completed');
  t.match(await call('DELETE', `${path('RB-6')}/${silent}`, { token }), {
    status: 409,
    json: { error: { message: /completed/ } },
  });
  t.match(await call('DELETE', `${path('RB-6')}/cmd_nothing`, { token }), { status: 404 });

  const ids: unknown[] = [];
  let cursor: unknown = '';
  do {
    const page = await call('GET', `${path('RB-6')}?limit=1${cursor ? `&cursor=${cursor}` : ''}`, { token });
    ids.push(...(page.json['commands'] as unknown as { command_id: string }[]).map(({ command_id }) => command_id));
    cursor = page.json['next_cursor'];
  } while (cursor);
  t.same(ids, [silent, id, unsent], 'each on a page of its own, the newest first');
  t.match(await call('GET', `${path('RB-6')}?status=cancelled`, { token }), { json: { commands: { length: 2 } } });
  t.match(await call('GET', `${path('RB-6')}?cursor=x`, { token }), { status: 400 });
});

t.test('commands end with their robot, and another one of its name is not meant', async (t) => {
  await report('RB-2');
  await database.query(`update robot set status_override = null where robot_id = 'RB-2'`);
  const id = String((await dispatch('RB-2')).json['command_id']);
  await database.query(`update robot set deregistered_at = now() where robot_id = 'RB-2'`);
  t.match(await call('POST', '/v1/robots', { token, body: describeRobot('RB-2') }), { status: 201 });
  bus.appear(device('RB-2'));
  await until(async () => {
    const [row] = await database.query<{ status: string }>('select status from command where command_id = $1', [id]);
    return row?.status === 'cancelled';
  }, 'the command to end');
  t.same(sentTo('RB-2'), []);
});

t.test(
  'numbers catch up with the robot’s; an overtaken command is rejected; an unbelieved one is sent anew',
  async (t) => {
    await report('RB-7');
    bus.online.add('default.RB-7');
    const id = String((await dispatch('RB-7')).json['command_id']);
    await until(() => sentTo('RB-7').length === 1, 'the command');
    say('RB-7', id, { outcome: 'stale', counterSeen: 5000, detail: 'old' });
    await until(() => sentTo('RB-7').length === 2, 'it to be sent again');
    t.ok((sentTo('RB-7')[1]?.counter ?? 0) > 5000, 'the database was restored from an older copy');
    const lists = bus.lists.length;
    say('RB-7', id, { outcome: 'unauthentic', detail: 'key is not known' });
    await until(() => sentTo('RB-7').length === 3, 'it to be sent with the keys');
    t.ok(bus.lists.length > lists);
    say('RB-7', id, { outcome: 'stale', counterSeen: sentTo('RB-7').at(-1)?.counter ?? 0, detail: 'overtaken' });
    t.match(await reaches('RB-7', id, 'rejected'), { detail: 'overtaken' });
  },
);
