import { request } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import { WebSocket } from 'ws';
import { FailsafeDispatcher } from '../src/failsafe/dispatcher.ts';
import { InstructionLine } from '../src/failsafe/instruction-line.ts';
import { PgFleetStore } from '../src/storage/fleet-store.ts';
import { PgInstructionStore } from '../src/storage/instruction-store.ts';
import { until } from '../src/testing/engines.ts';
import { ScriptedBus, startHarness } from './api-harness.ts';

const harness = await startHarness({ answerTimeoutMs: 100 });
const { call, bus } = harness;
const token = await harness.token('default');
const other = await harness.token('other');
t.teardown(() => harness.close());
const describe = (robotId: string) => ({
  robot_descriptor: { robot_id: robotId, robot_name: robotId, robot_type: 'arm' },
});
for (const robotId of ['RB-1', 'RB-2', 'RB-3', 'RB-4'])
  await call('POST', '/v1/robots', { token, body: describe(robotId) });
await call('POST', '/v1/robots', { token: other, body: describe('RB-1') });

const STREAM = '/api/v1/dashboard/stream';
let clock = Date.UTC(2026, 0, 11);
/** A new event each time: the same content would be the same event. */
async function report(robotId: string, by = token): Promise<void> {
  clock += 1000;
  const body = { robot_id: robotId, timestamp: new Date(clock).toISOString(), power: { battery_soc: 0.5 } };
  const answer = await call('POST', '/api/v1/telemetry/events', { token: by, body });
  if (answer.status !== 202) throw new Error(answer.text);
}

interface Message {
  readonly type: string;
  readonly data: Record<string, unknown>;
}

/** Messages as they come, and a way to wait for one. */
function collect(): {
  push(message: Message): void;
  until(matches: (message: Message) => boolean): Promise<Message>;
  all: Message[];
} {
  const all: Message[] = [];
  const waiting = new Set<() => void>();
  return {
    all,
    push(message) {
      all.push(message);
      for (const wake of [...waiting]) wake();
    },
    until: (matches) =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = all.find(matches);
          if (!found) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
      }),
  };
}

const isFrom = (robotId: string) => (message: Message) =>
  message.type === 'telemetry' && message.data['robot_id'] === robotId;

function openSocket(
  query: string,
  headers: Record<string, string>,
): { socket: WebSocket; inbox: ReturnType<typeof collect>; closed: Promise<[number, string]> } {
  const socket = new WebSocket(`${harness.url.replace('http', 'ws')}${STREAM}${query}`, { headers });
  const inbox = collect();
  socket.on('message', (data) => inbox.push(JSON.parse(String(data)) as Message));
  const closed = new Promise<[number, string]>((resolve) => {
    socket.on('close', (code, reason) => resolve([code, reason.toString()]));
    socket.on('error', () => undefined);
    socket.on('unexpected-response', (_request, response) => resolve([response.statusCode ?? 0, '']));
  });
  return { socket, inbox, closed };
}

t.test('a WebSocket gets its tenant’s telemetry and nobody else’s', async (t) => {
  const mine = openSocket('', { authorization: `Bearer ${token}` });
  const one = openSocket('?robot_id=RB-2&kind=power', { authorization: `Bearer ${token}` });
  const theirs = openSocket('', { authorization: `Bearer ${other}` });
  for (const { inbox } of [mine, one, theirs]) await inbox.until((message) => message.type === 'welcome');
  await report('RB-1');
  await report('RB-2');
  await report('RB-1', other);
  const update = await mine.inbox.until(isFrom('RB-1'));
  t.match(update, {
    type: 'telemetry',
    timestamp: /^2026-01-11T/,
    data: { stream: 'api/power', kind: 'power', values: { state_of_charge: [0.5] }, sample_count: 1 },
  });
  await one.inbox.until(isFrom('RB-2'));
  await theirs.inbox.until(isFrom('RB-1'));
  t.same(
    one.inbox.all.filter((message) => message.type === 'telemetry' && message.data['robot_id'] !== 'RB-2'),
    [],
    'only the robot that was asked for',
  );
  t.equal(
    theirs.inbox.all.filter((message) => message.type === 'telemetry').length,
    1,
    'the other tenant saw its own event only',
  );
  mine.socket.send(JSON.stringify({ type: 'ping' }));
  await mine.inbox.until((message) => message.type === 'pong');
  mine.socket.send('not json');
  mine.socket.send('x'.repeat(70_000));
  t.same((await mine.closed)[0], 1009, 'a message that is too large ends the stream');
  one.socket.close();
  theirs.socket.close();
  await Promise.all([one.closed, theirs.closed]);
});

t.test('a stream without a right to it is refused before it opens', async (t) => {
  t.same((await openSocket('', {}).closed)[0], 401);
  t.same((await openSocket('?token=x', { authorization: `Bearer ${token}` }).closed)[0], 400, 'a token in the URL');
  t.same((await openSocket('?robot_id=RB-404', { authorization: `Bearer ${token}` }).closed)[0], 404);
  const nobody = await harness.token('default', ['sim:read']);
  t.same((await openSocket('', { authorization: `Bearer ${nobody}` }).closed)[0], 403);
  const { ticket, expires_in: expiresIn } = (await call('POST', '/api/v1/auth/ticket', { token })).json as unknown as {
    ticket: string;
    expires_in: number;
  };
  t.equal(expiresIn, 30);
  const first = openSocket(`?ticket=${ticket}`, {});
  await first.inbox.until((message) => message.type === 'welcome');
  t.same((await openSocket(`?ticket=${ticket}`, {}).closed)[0], 401, 'a ticket is good once');
  first.socket.close();
  await first.closed;
  t.notOk(harness.log.join('').includes(ticket), 'and it is not in the log');
});

/** Server-sent events over HTTP/1.1. */
function openEvents(path: string): Promise<{
  inbox: ReturnType<typeof collect>;
  headers: Record<string, unknown>;
  close(): void;
  ended: Promise<void>;
}> {
  return new Promise((resolve, reject) => {
    const ask = request(
      `${harness.url}${path}`,
      { headers: { authorization: `Bearer ${token}`, accept: 'text/event-stream' } },
      (reply) => {
        const inbox = collect();
        const ended = new Promise<void>((end) => reply.on('close', end));
        reply.on('data', eventParser(inbox.push));
        reply.on('error', () => undefined);
        resolve({ inbox, headers: reply.headers, close: () => ask.destroy(), ended });
      },
    );
    ask.on('error', reject);
    ask.end();
  });
}

function eventParser(push: (message: Message) => void): (chunk: Buffer) => void {
  let text = '';
  return (chunk) => {
    text += chunk.toString();
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1];
      const type = /^event: (.*)$/m.exec(text.slice(0, end))?.[1] ?? '';
      if (data !== undefined) push({ data: {}, ...(JSON.parse(data) as object), type });
      text = text.slice(end + 2);
    }
  };
}

t.test('server-sent events over HTTP/1.1', async (t) => {
  const stream = await openEvents(`${STREAM}?robot_id=RB-1`);
  t.match(stream.headers, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' });
  await stream.inbox.until((message) => message.type === 'welcome');
  await report('RB-1');
  t.match(await stream.inbox.until(isFrom('RB-1')), { data: { kind: 'power' } });
  t.equal(harness.api.streams.clientCount, 1);
  stream.close();
  await stream.ended;
  while (harness.api.streams.clientCount > 0) await new Promise((resolve) => setImmediate(resolve));
});

t.test('server-sent events and requests over HTTP/2 leave the server standing', async (t) => {
  const session = connectHttp2(harness.tlsUrl, { ca: harness.caPem });
  session.on('error', (error) => t.fail(error.message));
  const stream = session.request({
    ':path': `${STREAM}?robot_id=RB-1`,
    accept: 'text/event-stream',
    authorization: `Bearer ${token}`,
  });
  const headers = await new Promise<Record<string, unknown>>((resolve) => stream.on('response', resolve));
  t.match(headers, { ':status': 200, 'content-type': 'text/event-stream; charset=utf-8' });
  t.notOk('transfer-encoding' in headers || 'connection' in headers);
  const inbox = collect();
  stream.on('data', eventParser(inbox.push));
  await inbox.until((message) => message.type === 'welcome');
  await report('RB-1');
  await inbox.until(isFrom('RB-1'));
  const health = session.request({ ':path': '/health' });
  health.resume();
  t.equal(
    (await new Promise<Record<string, unknown>>((resolve) => health.on('response', resolve)))[':status'],
    200,
    'beside an open stream',
  );
  stream.close();
  await new Promise<void>((resolve) => session.close(resolve));
  while (harness.api.streams.clientCount > 0) await new Promise((resolve) => setImmediate(resolve));
  t.equal((await call('GET', '/health')).status, 200);
});

t.test('a client that does not read is dropped, and its memory with it', async (t) => {
  const slow = openSocket('', { authorization: `Bearer ${token}` });
  await slow.inbox.until((message) => message.type === 'welcome');
  slow.socket.pause();
  const events = await openEvents(STREAM);
  await events.inbox.until((message) => message.type === 'welcome');
  const name = 'n'.repeat(128);
  let sent = 0;
  while (harness.api.streams.clientCount > 1 && sent < 2_000) {
    sent += 1;
    clock += 1000;
    const joints = Array.from({ length: 256 }, (_, index) => ({
      name: `${index}-${name}`.slice(0, 128),
      position: sent + index,
    }));
    const batch = ['RB-1', 'RB-2', 'RB-3', 'RB-4'].map((robot_id) => ({
      robot_id,
      timestamp: new Date(clock).toISOString(),
      joint_state: joints,
    }));
    t.equal((await call('POST', '/api/v1/telemetry/events', { token, body: batch })).status, 202);
    // Telemetry is merged per stream: the next round starts when this one has been sent.
    const round = new Date(clock).toISOString();
    await events.inbox.until((message) => (message as { timestamp?: string }).timestamp === round);
    events.inbox.all.length = 0;
  }
  t.equal(harness.api.streams.clientCount, 1, `dropped after ${sent} rounds`);
  slow.socket.resume();
  const [code] = await slow.closed;
  // A machine that takes long to fill what may wait for it finds first that it does not answer pings either.
  t.ok([1001, 1013, 1006].includes(code), `closed with ${code}`);
  t.match(
    (await call('GET', '/metrics')).text,
    /outrider_live_streams_dropped_total\{reason="(slow|unresponsive)"\} 1/,
  );
  events.close();
  await events.ended;
});

t.test('a stop is confirmed by the robot or kept until it is', async (t) => {
  const trigger = (
    robotId: string,
    body: unknown = { mode: 'emergency_stop', reason: 'test' },
    headers: Record<string, string> = {},
  ) => call('POST', `/api/v1/robots/${robotId}/failsafe/trigger`, { token, body, headers });
  bus.answer = () => ({ done: true, latchId: 41, detail: 'latched' });
  bus.online.add('default.RB-1');
  const done = await trigger('RB-1', undefined, { 'x-request-id': 'why-1' });
  t.match(done, { status: 200, json: { robot_id: 'RB-1', mode: 'emergency_stop', latch_id: 41, triggered: true } });
  const [first] = bus.sent;
  t.match(first, {
    topic: 'outrider/v1/default.RB-1/down/command',
    trigger: { mode: 'emergency_stop', reason: 'test', traceId: 'why-1' },
  });

  bus.answer = () => ({ done: false, detail: 'no such mode here' });
  t.match(await trigger('RB-1'), {
    status: 409,
    json: { error: { code: 'FAILED_PRECONDITION', message: /no such mode here/ } },
  });

  t.match(await trigger('RB-2'), { status: 503, json: { error: { code: 'UNAVAILABLE' } } }, 'offline');
  t.match(await trigger('RB-2'), { status: 503 }, 'asked again');
  bus.answer = () => ({ done: true, latchId: 7 });
  const before = bus.sent.length;
  bus.appear({ tenantId: 'default', robotId: 'RB-2' });
  t.equal(bus.sent.length, before + 1, 'one stop is delivered when the robot appears, although it was asked for twice');
  t.equal(harness.api.core.failsafe.pendingCount, 0);
  bus.appear({ tenantId: 'default', robotId: 'RB-2' });
  t.equal(bus.sent.length, before + 1, 'and it is not sent again');

  bus.answer = () => undefined;
  bus.online.add('default.RB-3');
  t.match(await trigger('RB-3', { mode: 'mechanical_lock' }), {
    status: 504,
    json: { error: { code: 'DEADLINE_EXCEEDED' } },
  });
  const waiting = bus.sent.at(-1)?.trigger.commandId ?? '';
  bus.reply({ tenantId: 'other', robotId: 'RB-3' }, { commandId: waiting, done: true, latchId: 1 });
  t.equal(harness.api.core.failsafe.pendingCount, 1, 'the answer of another tenant’s robot counts for nothing');
  bus.reply({ tenantId: 'default', robotId: 'RB-3' }, { commandId: waiting, done: true, latchId: 1 });
  t.equal(harness.api.core.failsafe.pendingCount, 0);

  for (const [body, field] of [
    [{}, 'mode'],
    [{ mode: 'self_destruct' }, 'mode'],
    [{ mode: 'emergency_stop', robot: 'RB-2' }, 'robot'],
    [{ mode: 'emergency_stop', reason: 'x'.repeat(513) }, 'reason'],
  ] as const)
    t.match(await trigger('RB-1', body), { status: 400, json: { error: { details: [{ field }] } } });

  const audit = await harness.database.query<{ action: string; outcome: string; request_id: string }>(
    'select action, outcome, request_id from audit_entry where action like $1 order by audit_id',
    ['failsafe.%'],
  );
  t.match(audit.slice(0, 2), [
    { action: 'failsafe.trigger', outcome: 'pending', request_id: 'why-1' },
    { action: 'failsafe.answer', outcome: 'done', request_id: 'why-1' },
  ]);
});

t.test('a stop that nobody answered outlives the server', async (t) => {
  const answer = await call('POST', '/api/v1/robots/RB-4/failsafe/trigger', { token, body: { mode: 'geofence_lock' } });
  t.equal(answer.status, 503);
  const store = new PgFleetStore(harness.database, systemClock);
  const unanswered = async (): Promise<string[]> => (await store.unansweredStops(10)).map(({ robotId }) => robotId);
  await until(async () => String(await unanswered()) === 'RB-4', 'its stop alone to be on record');
  const line = new ScriptedBus();
  line.answer = () => ({ done: true, latchId: 3 });
  const log = createLogger('test', 'silent');
  const keys = harness.api.core.instructionKeys;
  const instructions = new PgInstructionStore(harness.database);
  const signer = new InstructionLine({ bus: line, keys, store: instructions, clock: systemClock, log });
  const restarted = new FailsafeDispatcher({ bus: line, line: signer, audit: store, store, clock: systemClock, log });
  const stop = new AbortController();
  const running = restarted.run(stop.signal);
  await until(() => restarted.pendingCount > 0, 'the stop to be taken up');
  line.appear({ tenantId: 'default', robotId: 'RB-4' });
  t.match(line.sent, [{ topic: 'outrider/v1/default.RB-4/down/command', trigger: { mode: 'geofence_lock' } }]);
  await until(async () => (await unanswered()).length === 0, 'the answer to be on record');
  stop.abort();
  await running;
  bus.reply({ tenantId: 'default', robotId: 'RB-4' }, { commandId: line.sent[0]?.trigger.commandId ?? '', done: true });
});

t.test('without a database a known robot can still be stopped', async (t) => {
  await call('GET', '/v1/robots/RB-4/telemetry/counts', { token });
  bus.online.add('default.RB-4');
  bus.answer = () => ({ done: true, latchId: 9 });
  await harness.database.close();
  const answer = await call('POST', '/api/v1/robots/RB-4/failsafe/trigger', {
    token,
    body: { mode: 'thermal_shutdown' },
  });
  t.match(answer, { status: 200, json: { latch_id: 9 } });
  t.match(await call('GET', '/v1/robots', { token }), {
    status: 503,
    json: { status: 'error', error: { code: 'SERVICE_UNAVAILABLE' } },
  });
  t.match(
    await call('POST', '/api/v1/telemetry/events', {
      token,
      body: { robot_id: 'RB-1', timestamp: new Date(clock + 5000).toISOString(), flags: ['x'] },
    }),
    { status: 503 },
  );
  t.match(await call('GET', '/ready'), { status: 503, json: { ready: false, reasons: [/^database: /] } });
});
