import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { grpc, outrider } from '@outrider/shared/protocol/api-messages';
import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import {
  createAuthority,
  exportKey,
  generateKeyPair,
  loadSigner,
  signLeaf,
  validFor,
} from '../src/certificates/x509.ts';
import { describeRobot } from './api-harness.ts';
import { type Caller, detailsOf, drain, methodOf, startGrpcRig } from './grpc-rig.ts';

const api = outrider.api.v1;
const HEALTH = methodOf('outrider.api.v1.RobotHealthService', 'GetHealth', api.GetHealthRequest, api.HealthReport);
const WATCH = methodOf('outrider.api.v1.RobotHealthService', 'WatchHealth', api.WatchHealthRequest, api.HealthReport);
const TRIGGER = methodOf('outrider.api.v1.FailsafeService', 'Trigger', api.TriggerRequest, api.TriggerReply);
const RECOVER = methodOf('outrider.api.v1.FailsafeService', 'Recover', api.RecoverRequest, api.RecoverReply);
const TELEMETRY = methodOf('outrider.api.v1.TelemetryService', 'StreamTelemetry', api.TelemetryFrame, api.TelemetryAck);
const probes = grpc.health.v1;
const CHECK = methodOf('grpc.health.v1.Health', 'Check', probes.HealthCheckRequest, probes.HealthCheckResponse);
const WATCH_PROBE = methodOf('grpc.health.v1.Health', 'Watch', probes.HealthCheckRequest, probes.HealthCheckResponse);

const rig = await startGrpcRig({ answerTimeoutMs: 20_000, recoverTimeoutMs: 20_000 });
t.teardown(() => rig.close());
const token = await rig.token('default');
const foreignToken = await rig.token('other');
for (const id of ['RB-1', 'RB-2']) await rig.call('POST', '/v1/robots', { token, body: describeRobot(id) });
const full = await rig.service('default', ['telemetry:read', 'telemetry:write', 'command:write']);
const service = rig.caller(full);

const eventOf = (robotId: string, second: number): outrider.api.v1.TelemetryEvent.$Properties => ({
  robot_id: robotId,
  timestamp: new Date(Date.UTC(2026, 0, 11, 5, 12, second)).toISOString(),
  joint_state: [{ name: 'knee_l', position: 0.42, torque_nm: 6.1 }],
  power: { battery_soc: 0.77, draw_w: 312 },
  thermal: [{ name: 'motor_max', celsius: 64.2 }],
  imu: { pitch: 0.03, roll: -0.01, yaw: 1.22, linear_acceleration: { z: 9.81 } },
  flags: ['nominal'],
});

t.test('nobody gets past the handshake without a certificate of the installation', async (t) => {
  const stranger = await createAuthority('Stranger', validFor(Date.now(), 86_400_000));
  const keys = await generateKeyPair();
  const leaf = await signLeaf(await loadSigner(stranger), {
    commonName: 'service:default:planner',
    publicKey: keys.publicKey,
    validity: validFor(Date.now(), 86_400_000),
    usage: 'client',
  });
  const foreign = { cert: leaf.toString('pem'), key: await exportKey(keys.privateKey) };
  for (const [name, pair] of [
    ['no certificate', undefined],
    ['a certificate of another authority', foreign],
  ] as const) {
    const { error } = await rig.caller(pair).call(HEALTH, { robot_id: 'RB-1' }, { deadlineMs: 30_000 });
    t.equal(error?.code, status.UNAVAILABLE, name);
  }
  const unrecorded = rig.caller(await rig.certified('service:default:planner'));
  t.equal((await unrecorded.call(HEALTH, { robot_id: 'RB-1' })).error?.code, status.UNAUTHENTICATED);
  const reader = rig.caller(await rig.certified('events:default:reader'));
  t.equal((await reader.call(HEALTH, { robot_id: 'RB-1' })).error?.code, status.UNAUTHENTICATED);
  const nameless = rig.caller(await rig.certified('planner'));
  t.equal((await nameless.call(HEALTH, { robot_id: 'RB-1' })).error?.code, status.UNAUTHENTICATED);
});

t.test('a service may do what its certificate says, and a token narrows it', async (t) => {
  const { error, requestId } = await service.call(
    HEALTH,
    { robot_id: 'RB-404' },
    { metadata: { 'x-request-id': 'trace.1' } },
  );
  t.equal(error?.code, status.NOT_FOUND);
  t.equal(requestId, 'trace.1', 'in the initial metadata');
  t.equal(error?.metadata.get('x-request-id')[0], 'trace.1', 'and in the trailers');
  t.match(detailsOf(error), { reason: 'not_found', requestId: 'trace.1' });
  t.match((await service.call(HEALTH, { robot_id: 'RB-1' })).requestId, /^req_/);

  const other = rig.caller(await rig.service('other', ['telemetry:read']));
  t.equal((await other.call(HEALTH, { robot_id: 'RB-1' })).error?.code, status.NOT_FOUND, 'another tenant');
  t.equal(
    (await other.call(TRIGGER, { robot_id: 'RB-1', mode: 'emergency_stop' })).error?.code,
    status.PERMISSION_DENIED,
  );
  const bound = rig.caller(await rig.service('default', ['telemetry:read'], ['RB-2']));
  t.equal((await bound.call(HEALTH, { robot_id: 'RB-1' })).error?.code, status.PERMISSION_DENIED);
  t.equal((await bound.call(HEALTH, { robot_id: 'RB-2' })).error, undefined);

  const ask = async (metadata: Record<string, string>) =>
    (await service.call(HEALTH, { robot_id: 'RB-1' }, { metadata })).error?.code ?? status.OK;
  t.equal(await ask({ authorization: `Bearer ${token}` }), status.OK);
  t.equal(
    await ask({ authorization: `Bearer ${await rig.token('default', ['work:read'])}` }),
    status.PERMISSION_DENIED,
  );
  t.equal(
    await ask({ authorization: `Bearer ${foreignToken}` }),
    status.PERMISSION_DENIED,
    'a token of another tenant',
  );
  t.equal(await ask({ authorization: 'Bearer nonsense' }), status.UNAUTHENTICATED);
  t.equal(await ask({ 'x-tenant-id': 'other' }), status.PERMISSION_DENIED);
  t.equal(await ask({ 'x-tenant-id': 'default' }), status.OK);
  const widened = await bound.call(HEALTH, { robot_id: 'RB-1' }, { metadata: { authorization: `Bearer ${token}` } });
  t.equal(widened.error?.code, status.PERMISSION_DENIED, 'a token does not widen a certificate');
});

t.test('a caller has one allowance for HTTP and gRPC, and a stop needs none', async (t) => {
  await rig.identity.accounts.createTenant('small', 'Small', 'free');
  const [caller, another] = [await rig.token('small'), await rig.token('small')];
  const pair = rig.caller(await rig.service('small', ['telemetry:read', 'command:write']));
  const ask = async (bearer: string) =>
    pair.call(HEALTH, { robot_id: 'RB-1' }, { metadata: { authorization: `Bearer ${bearer}` } });
  const remaining = async () =>
    (await rig.call('GET', '/v1/robots', { token: caller })).headers.get('x-rate-limit-remaining');
  t.equal(await remaining(), '99');
  for (let call = 0; call < 60; call += 1) t.equal((await ask(caller)).error?.code, status.NOT_FOUND);
  t.equal(await remaining(), '38', 'what gRPC has taken is gone for HTTP');
  for (let request = 0; request < 38; request += 1) await rig.call('GET', '/v1/robots', { token: caller });
  const { error } = await ask(caller);
  t.equal(error?.code, status.RESOURCE_EXHAUSTED);
  t.match(detailsOf(error), { reason: 'too_many' });
  t.equal((await ask(another)).error?.code, status.NOT_FOUND, 'another caller has its own');
  const stop = await pair.call(
    TRIGGER,
    { robot_id: 'RB-1', mode: 'emergency_stop' },
    { metadata: { authorization: `Bearer ${caller}` } },
  );
  t.equal(stop.error?.code, status.NOT_FOUND, 'not throttled');
});

t.test('telemetry is acknowledged after its commit, frame by frame, and stored as over HTTP', async (t) => {
  const call = service.stream(TELEMETRY);
  const result = drain(call as never);
  for (const sequence of [7, 8])
    call.write({ sequence, events: [eventOf('RB-1', sequence), eventOf('RB-2', sequence)] });
  call.end();
  const { replies, error } = (await result) as { replies: outrider.api.v1.TelemetryAck[]; error: unknown };
  t.equal(error, undefined);
  t.same(
    replies.map(({ sequence, event_ids }) => [sequence, event_ids.length]),
    [
      [7, 2],
      [8, 2],
    ],
  );
  const over = await rig.call('POST', '/api/v1/telemetry/events', {
    token,
    body: {
      ...eventOf('RB-1', 7),
      thermal: { motor_max_c: 64.2 },
      imu: { pitch: 0.03, roll: -0.01, yaw: 1.22, linear_acceleration: { x: 0, y: 0, z: 9.81 } },
    },
  });
  t.equal(over.json['event_id'], replies[0]?.event_ids[0], 'the same content over HTTP is the same event');
  const { json } = await rig.call('GET', '/v1/robots/RB-2/telemetry/counts', { token });
  t.match(json, { data: { streams: [{ samples: 2 }] } });
});

t.test('a frame that is refused ends the stream and names the field; what came before is kept', async (t) => {
  const call = service.stream(TELEMETRY);
  const result = drain(call as never);
  call.write({ sequence: 1, events: [eventOf('RB-1', 20)] });
  call.write({ sequence: 2, events: [{ robot_id: 'RB-1', timestamp: 'yesterday', flags: ['x'] }] });
  const { replies, error } = await result;
  t.equal(replies.length, 1);
  t.equal(error?.code, status.INVALID_ARGUMENT);
  t.same(detailsOf(error).fields, ['events[0].timestamp']);
  const foreign = service.stream(TELEMETRY);
  const ended = drain(foreign as never);
  foreign.write({ sequence: 1, events: [eventOf('RB-404', 20)] });
  t.equal((await ended).error?.code, status.NOT_FOUND);
});

t.test('a robot streams its own telemetry and does nothing else', async (t) => {
  const robot = rig.caller(await rig.robot('default', 'RB-1'));
  const send = async (caller: Caller, robotId: string) => {
    const call = caller.stream(TELEMETRY);
    const result = drain(call as never);
    call.write({ sequence: 1, events: [eventOf(robotId, 30)] });
    call.end();
    return await result;
  };
  const own = await send(robot, 'RB-1');
  t.equal(own.error, undefined);
  t.equal(own.replies.length, 1);
  t.equal((await send(robot, 'RB-2')).error?.code, status.PERMISSION_DENIED);
  t.equal((await robot.call(HEALTH, { robot_id: 'RB-1' })).error?.code, status.PERMISSION_DENIED);
  t.equal(
    (await robot.call(TRIGGER, { robot_id: 'RB-1', mode: 'emergency_stop' })).error?.code,
    status.PERMISSION_DENIED,
  );
  const impostor = rig.caller(await rig.certified('default.RB-1'));
  t.equal((await send(impostor, 'RB-1')).error?.code, status.UNAUTHENTICATED, 'a certificate that is not on record');
});

t.test('a robot is stopped and recovered, with the robot’s own answer', async (t) => {
  rig.bus.online.add('default.RB-2');
  rig.bus.answer = () => ({ done: true, latchId: 4, detail: 'latched', outcome: 'done', motionEpoch: 2 });
  const stop = await service.call(
    TRIGGER,
    { robot_id: 'RB-2', mode: 'mechanical_lock', reason: 'test' },
    { metadata: { 'x-request-id': 'trace.stop' } },
  );
  t.match(stop.reply, { robot_id: 'RB-2', mode: 'mechanical_lock', latch_id: 4, detail: 'latched' });
  t.match(rig.bus.sent.at(-1)?.trigger, { mode: 'mechanical_lock', traceId: 'trace.stop', reason: 'test' });
  t.match(rig.bus.sent.at(-1)?.trigger.requestedBy, /^service:service-/);
  const recovered = await service.call(RECOVER, { robot_id: 'RB-2', latch_id: 4, confirmed: ['area_clear'] });
  t.match(recovered.reply, { robot_id: 'RB-2', motion_epoch: 2 });
  const wrong = await service.call(TRIGGER, { robot_id: 'RB-2', mode: 'dance' });
  t.equal(wrong.error?.code, status.INVALID_ARGUMENT);
  t.same(detailsOf(wrong.error).fields, ['mode']);
  const blank = await service.call(RECOVER, { robot_id: 'RB-2' });
  t.same(detailsOf(blank.error).fields, ['latch_id']);
  rig.bus.online.delete('default.RB-2');
  const away = await service.call(TRIGGER, { robot_id: 'RB-2', mode: 'thermal_shutdown' });
  t.equal(away.error?.code, status.UNAVAILABLE);
  t.equal(detailsOf(away.error).reason, 'offline');
});

t.test('a deadline ends a call, and a caller may cancel a stream', async (t) => {
  rig.bus.online.add('default.RB-1');
  rig.bus.answer = () => undefined;
  const late = await service.call(TRIGGER, { robot_id: 'RB-1', mode: 'geofence_lock' }, { deadlineMs: 1_000 });
  t.equal(late.error?.code, status.DEADLINE_EXCEEDED);
  await until(() => rig.bus.sent.some(({ trigger }) => trigger.mode === 'geofence_lock'));
  t.pass('the stop went out all the same');
  const watched = await drain(service.watch(WATCH, { robot_id: 'RB-1' }, 2_500));
  t.equal(watched.error?.code, status.DEADLINE_EXCEEDED);
  t.equal(watched.replies.length, 1, 'the report now, and no other while nothing changes');

  await until(async () => (await streamCount('WatchHealth')) === 0);
  const call = service.watch(WATCH, { robot_id: 'RB-1' });
  const ended = drain(call);
  await once(call, 'data');
  t.equal(await streamCount('WatchHealth'), 1);
  call.cancel();
  t.equal((await ended).error?.code, status.CANCELLED);
  await until(async () => (await streamCount('WatchHealth')) === 0);
  t.pass('the server has let go of it');
  const sending = service.stream(TELEMETRY);
  const cancelled = drain(sending as never);
  sending.write({ sequence: 1, events: [eventOf('RB-1', 40)] });
  await once(sending, 'data');
  sending.cancel();
  t.equal((await cancelled).error?.code, status.CANCELLED);
  await until(async () => (await streamCount('StreamTelemetry')) === 0);
});

t.test('what is no message, and what is too large, is refused', async (t) => {
  const raw = { ...HEALTH, request: { encode: () => ({ finish: () => Buffer.from([0xff, 0xff, 0xff]) }) } };
  t.equal((await service.call(raw, {})).error?.code, status.INVALID_ARGUMENT);
  const giant = await service.call(HEALTH, { robot_id: 'x'.repeat(2 * 1024 * 1024) });
  t.equal(giant.error?.code, status.RESOURCE_EXHAUSTED);
  const frame = service.stream(TELEMETRY);
  const result = drain(frame as never);
  frame.write({ sequence: 1, events: [{ ...eventOf('RB-1', 1), flags: ['x'.repeat(2 * 1024 * 1024)] }] });
  t.equal((await result).error?.code, status.RESOURCE_EXHAUSTED);
  const unknown = methodOf('outrider.api.v1.Nothing', 'Here', api.GetHealthRequest, api.HealthReport);
  t.equal((await service.call(unknown, {})).error?.code, status.UNIMPLEMENTED);
});

t.test('garbage on the port ends that connection and no other', async (t) => {
  const plain = connect(rig.grpc.port, '127.0.0.1');
  plain.on('error', () => undefined);
  plain.write(Buffer.alloc(4_096, 0x5a));
  plain.resume();
  await closed(plain);
  const options = { host: 'localhost', port: rig.grpc.port, ca: rig.caPem, ...full };
  const noise = connectTls({ ...options, ALPNProtocols: ['h2'] });
  noise.on('error', () => undefined);
  noise.write(Buffer.alloc(4_096, 0x5a));
  noise.resume();
  await closed(noise);
  const old = connectTls({ ...options, ALPNProtocols: ['http/1.1'] });
  old.on('error', () => undefined);
  old.write('GET / HTTP/1.1\r\n\r\n');
  old.resume();
  await closed(old);
  t.equal((await service.call(HEALTH, { robot_id: 'RB-1' })).error, undefined);
});

t.test('reflection lists the services and describes them', async (t) => {
  for (const version of ['v1', 'v1alpha']) {
    const { ServerReflectionRequest: Ask, ServerReflectionResponse: Answer } = grpc.reflection.v1;
    const call = service.stream(
      methodOf(`grpc.reflection.${version}.ServerReflection`, 'ServerReflectionInfo', Ask, Answer),
    );
    const result = drain(call as never) as Promise<{ replies: grpc.reflection.v1.ServerReflectionResponse[] }>;
    const symbols = [
      'outrider.api.v1.TelemetryService',
      'outrider.api.v1.HealthReport',
      `grpc.reflection.${version}.ServerReflection`,
    ];
    call.write({ list_services: '' });
    for (const file_containing_symbol of [...symbols, 'no.such.Thing']) call.write({ file_containing_symbol });
    call.write({ file_by_filename: 'grpc_health_v1.proto' });
    call.end();
    const { replies } = await result;
    const listed = (replies[0]?.list_services_response?.service ?? []).map(({ name }) => name);
    for (const name of [
      'outrider.api.v1.FailsafeService',
      'outrider.api.v1.RobotHealthService',
      'grpc.health.v1.Health',
      ...symbols.slice(0, 1),
    ])
      t.ok(listed.includes(name), `${name} is listed`);
    t.same(listed, [...new Set(listed)].sort());
    for (const reply of replies.slice(1, 4)) t.equal(reply.file_descriptor_response?.file_descriptor_proto?.length, 1);
    t.equal(replies[4]?.error_response?.error_code, status.NOT_FOUND);
    t.ok((replies[5]?.file_descriptor_response?.file_descriptor_proto?.[0]?.length ?? 0) > 100);
  }
});

t.test('what is served and what reflection lists are the same', async (t) => {
  const { describeApiSchema } = await import('@outrider/shared/protocol/api-schema');
  for (const file of describeApiSchema())
    for (const name of file.services) {
      const { error } = await service.call(CHECK, { service: name });
      t.equal(error, undefined, `${name} is known to the health service`);
    }
  t.equal((await service.call(CHECK, { service: 'no.such.Service' })).error?.code, status.NOT_FOUND);
});

t.test('a program whose certificate was taken back is let in no more', async (t) => {
  const issued = await rig.clientCertificates.issue({
    kind: 'service',
    tenantId: 'default',
    name: 'short-lived',
    scopes: ['telemetry:read'],
  });
  await rig.clientCertificates.revoke({ kind: 'service', tenantId: 'default', name: 'short-lived' }, 'test');
  const caller = rig.caller({ cert: issued.certificatePem, key: issued.privateKeyPem });
  const { error } = await caller.call(HEALTH, { robot_id: 'RB-1' });
  t.equal(error?.code, status.UNAUTHENTICATED);
  t.match(error?.details, /revoked/);
  await t.rejects(
    rig.clientCertificates.issue({ kind: 'service', tenantId: 'default', name: 'a.b', scopes: [] }),
    { code: 'invalid' },
    'a name with a dot could be a robot’s',
  );
});

t.test('without a database the probe says so, and a stop still goes out', async (t) => {
  const { SERVING, NOT_SERVING } = probes.HealthCheckResponse.ServingStatus;
  t.equal((await service.call(CHECK, { service: '' })).reply?.status, SERVING);
  const watch = service.watch(WATCH_PROBE, { service: '' });
  const seen: number[] = [];
  watch.on('data', (reply: grpc.health.v1.HealthCheckResponse) => seen.push(reply.status));
  watch.on('error', () => undefined);
  await until(() => seen.length === 1);
  rig.bus.online.add('default.RB-1');
  rig.bus.answer = () => ({ done: true, latchId: 9, detail: 'latched' });
  await rig.database.close();
  await until(() => seen.length === 2);
  t.same(seen, [SERVING, NOT_SERVING]);
  t.equal((await service.call(CHECK, { service: '' })).reply?.status, NOT_SERVING);
  t.equal((await service.call(CHECK, { service: 'outrider.api.v1.RobotHealthService' })).reply?.status, NOT_SERVING);
  t.equal((await service.call(CHECK, { service: 'outrider.api.v1.FailsafeService' })).reply?.status, SERVING);
  const { reply, error } = await service.call(TRIGGER, { robot_id: 'RB-1', mode: 'emergency_stop' });
  t.equal(reply?.latch_id, 9, String(error?.details));
  t.equal((await service.call(HEALTH, { robot_id: 'RB-1' })).error?.code, status.UNAVAILABLE);
  watch.cancel();
});

t.test('a stop of the server ends streams with a reason and lets calls end', async (t) => {
  const watch = drain(service.watch(WATCH_PROBE, { service: '' }));
  await until(async () => (await streamCount('Watch')) >= 1);
  await rig.stopGrpc();
  t.equal((await watch).error?.code, status.UNAVAILABLE);
});

/** Open streams of a method, by the metrics. */
async function streamCount(method: string): Promise<number> {
  const text = await rig.metrics.getSingleMetricAsString('outrider_grpc_streams');
  const line = text.split('\n').find((each) => each.includes(`/${method}"`));
  return Number(line?.split(' ').at(-1) ?? 0);
}

const closed = (socket: Socket): Promise<unknown> => new Promise((resolve) => socket.once('close', resolve));

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 60_000;
  while (!(await condition())) {
    if (systemClock.monotonicMs() > deadlineMs) throw new Error('the condition did not come true');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
