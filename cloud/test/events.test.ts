import { randomUUID } from 'node:crypto';
import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { systemClock } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import type { BusEvent, NewEvent } from '../src/events/ports.ts';
import { type Database, openDatabase } from '../src/storage/database.ts';
import { insertBusEvents } from '../src/storage/event-store.ts';
import { SqlIngestStore } from '../src/storage/ingest-store.ts';
import { readRecord } from '../src/telemetry/record.ts';
import { noPostgres, startPostgres, until } from '../src/testing/engines.ts';
import { EDGE_PAYLOADS, NotingTransport, runEvents } from './events-rig.ts';
import { epochOf, eventRecord, samples, telemetryRecord } from './ingest-edge.ts';

const { Lane } = outrider.v1;
const logger = createLogger('test', 'silent');
const clock = systemClock;

async function robotIn(
  database: Database,
  robotId: string,
): Promise<{ robotPk: number; tenantId: string; robotId: string }> {
  await database.query(`insert into tenant (tenant_id, name) values ('default', 'default') on conflict do nothing`);
  const [row] = await database.query<{ robot_pk: number }>(
    `insert into robot (tenant_id, robot_id, robot_name, robot_type) values ('default', $1, $1, 'test') returning robot_pk`,
    [robotId],
  );
  return { robotPk: row?.robot_pk ?? 0, tenantId: 'default', robotId };
}

const recoveryOf = (robotId: string, n: number): NewEvent => ({
  type: 'edge.started.v1',
  tenantId: 'default',
  robotId,
  occurredAtMs: Date.UTC(2026, 0, 11) + n,
  traceId: `req_${n}`,
  payload: { boot_id: String(n), agent_version: '1', epoch: 'e' },
  eventId: `evt_${robotId}_${n}`,
});

async function suite(t: Test, database: Database): Promise<void> {
  await t.test('an event exists if and only if its change was committed, and once by its id', async (t) => {
    const transport = new NotingTransport();
    const events = runEvents(database, transport);
    const heard: BusEvent[] = [];
    events.feed.subscribe({ tenantId: 'default' }, (event) => heard.push(event));
    await events.listening();
    await t.rejects(
      database.transaction(async (tx) => {
        await insertBusEvents(tx, [recoveryOf('RB-1', 1)], clock.epochMs());
        throw new Error('rolled back');
      }),
    );
    for (let again = 0; again < 2; again += 1)
      await database.transaction((tx) =>
        insertBusEvents(tx, [recoveryOf('RB-1', 2), recoveryOf('RB-2', 2)], clock.epochMs()),
      );
    await until(() => heard.length >= 2 && transport.sent.length >= 2, 'the events');
    t.match(transport.sent, [
      { topic: 'events/default/edge.started.v1/RB-1', envelope: { event_id: 'evt_RB-1_2', trace_id: 'req_2' } },
      { topic: 'events/default/edge.started.v1/RB-2', envelope: { event_id: 'evt_RB-2_2' } },
    ]);
    t.same(transport.sent[0]?.envelope.payload, { boot_id: '2', agent_version: '1', epoch: 'e' });
    t.same(
      heard.map((event) => event.eventId),
      ['evt_RB-1_2', 'evt_RB-2_2'],
    );
    const filter = { tenantId: 'default', robotIds: ['RB-2'] };
    const page = await events.feed.query(filter, 0, 10);
    t.same(
      page.events.map((event) => event.eventId),
      ['evt_RB-2_2'],
    );
    t.same((await events.feed.query(filter, page.cursor, 10)).events, []);
    t.same((await events.feed.query({ tenantId: 'other' }, 0, 10)).events, [], 'another tenant sees nothing');
    await events.stop();
  });

  await t.test('a broker that is away loses nothing and changes no order', async (t) => {
    const transport = new NotingTransport();
    transport.isDown = true;
    const events = runEvents(database, transport);
    const count = 120;
    for (let n = 0; n < count; n += 1)
      await database.transaction((tx) => insertBusEvents(tx, [recoveryOf(`RB-${10 + (n % 3)}`, n)], clock.epochMs()));
    await until(async () => (await events.log.backlog()) >= count, 'all to be numbered');
    t.equal(transport.sent.length, 0);
    transport.isDown = false;
    await until(async () => (await events.log.backlog()) === 0, 'all to be sent');
    for (const robotId of ['RB-10', 'RB-11', 'RB-12']) {
      const own = transport.sent.filter(({ envelope }) => envelope.robot_id === robotId);
      const order = [...new Set(own.map(({ envelope }) => envelope.event_id))];
      t.same(
        order,
        order.toSorted((a, b) => Number(a.split('_')[2]) - Number(b.split('_')[2])),
        robotId,
      );
      t.equal(order.length, count / 3);
    }
    await events.stop();
  });

  await t.test('a commit of the ingest tells of each robot once, and of what robots told', async (t) => {
    const transport = new NotingTransport();
    const events = runEvents(database, transport);
    const [one, two] = [await robotIn(database, 'RB-21'), await robotIn(database, 'RB-22')];
    const store = new SqlIngestStore(database);
    const at = Date.UTC(2026, 0, 11, 5);
    const read = (wire: outrider.v1.Record.$Properties, lane: outrider.v1.Lane) => {
      const found = readRecord(wire, lane, clock.epochMs());
      if (!found) throw new Error('no record');
      return found;
    };
    const telemetry = (robot: typeof one, seq: number) => ({
      robot,
      epoch: epochOf(robot.robotId),
      lane: Lane.LANE_TELEMETRY,
      records: [seq, seq + 1].map((n) =>
        read(telemetryRecord(n, samples('/js', 10, at + n * 100)), Lane.LANE_TELEMETRY),
      ),
    });
    const event = (seq: number, type: string, payload: unknown, eventId: string) =>
      read(
        eventRecord(seq, { eventId, type, occurredAtMs: at, traceId: '', payloadJson: JSON.stringify(payload) }),
        Lane.LANE_EVENT,
      );
    const told = {
      robot: one,
      epoch: epochOf(one.robotId),
      lane: Lane.LANE_EVENT,
      records: [
        event(1, 'anomaly.detected.v1', EDGE_PAYLOADS['anomaly.detected.v1'], 'evt_a'),
        event(2, 'failsafe.triggered.v1', EDGE_PAYLOADS['failsafe.triggered.v1'], 'evt_f'),
        event(3, 'failsafe.triggered.v1', { mode: 'party' }, 'evt_bad'),
        event(
          4,
          'swarm.leader_elected.v1',
          { leader_robot_id: 'RB-21', term: 1, previous_leader_robot_id: null },
          'evt_forged',
        ),
      ],
    };
    const work = [telemetry(one, 1), telemetry(two, 1), told];
    await store.commit(work, clock.epochMs());
    await store.commit(work, clock.epochMs());
    await until(() => transport.sent.length >= 4, 'the events');
    await until(async () => (await events.log.backlog()) === 0, 'all to be sent');
    t.same(
      transport.sent.map(({ topic }) => topic).sort(),
      [
        'events/default/anomaly.detected.v1/RB-21',
        'events/default/failsafe.triggered.v1/RB-21',
        'events/default/telemetry.ingested.v1/RB-21',
        'events/default/telemetry.ingested.v1/RB-22',
      ],
      'each once, and neither what breaks its schema nor what is not for a robot to say',
    );
    t.match(transport.sent.find(({ topic }) => topic.includes('telemetry'))?.envelope.payload, {
      samples: 20,
      streams: [{ stream: '/js', samples: 20, from: '2026-01-11T05:00:00.100Z', to: '2026-01-11T05:00:00.290Z' }],
    });
    t.match(transport.sent.find(({ topic }) => topic.includes('anomaly'))?.envelope, {
      event_id: 'evt_a',
      trace_id: 'evt_a',
    });
    const page = await events.feed.query(
      { tenantId: 'default', types: ['telemetry.ingested.v1'], robotIds: ['RB-22'] },
      0,
      10,
    );
    t.equal(page.events.length, 1, 'telemetry events are there for who asks');
    await events.stop();
  });

  await t.test('what is old and published goes', async (t) => {
    const transport = new NotingTransport();
    const events = runEvents(database, transport);
    await until(async () => (await events.log.backlog()) === 0, 'all to be sent');
    const [before] = await database.query<{ count: number }>('select count(*)::int8 as count from bus_event');
    const at = clock.epochMs() + 1000;
    t.equal(await events.log.removeOld({ telemetryMs: at, telemetryUnsentMs: 0, eventMs: 0 }), 0);
    const left = await database.query<{ type: string }>('select distinct type from bus_event');
    t.ok((before?.count ?? 0) > 0 && left.length > 0);
    t.notOk(
      left.some((row) => row.type === 'telemetry.ingested.v1'),
      'telemetry events',
    );
    await events.log.removeOld({ telemetryMs: at, telemetryUnsentMs: 0, eventMs: at });
    t.same(await database.query('select 1 from bus_event'), []);
    await events.stop();
  });
}

t.test('the event bus on PGlite', async (t) => {
  const database = await openDatabase({ dataDir: 'memory://', log: logger, clock });
  t.teardown(() => database.close());
  await suite(t, database);
});

t.test('the event bus on PostgreSQL', { skip: noPostgres }, async (t) => {
  const postgres = await startPostgres();
  const open = (): Promise<Database> =>
    openDatabase({ dataDir: t.testdirName, log: logger, clock, databaseUrl: postgres.url });
  const database = await open();
  t.teardown(async () => {
    await database.close();
    await postgres.stop();
  });
  await suite(t, database);

  await t.test('replicas share the work without sending twice, and one takes over from another', async (t) => {
    const second = await open();
    const [a, b] = [new NotingTransport(), new NotingTransport()];
    a.delayMs = 5;
    b.delayMs = 5;
    const [one, two] = [runEvents(database, a), runEvents(second, b)];
    const heard: string[] = [];
    two.feed.subscribe({ tenantId: 'default' }, (event) => heard.push(event.eventId));
    await two.listening();
    const write = async (from: number, to: number): Promise<void> => {
      for (let n = from; n < to; n += 1)
        await (n % 2 === 0 ? database : second).transaction((tx) =>
          insertBusEvents(tx, [recoveryOf('RB-31', n)], clock.epochMs()),
        );
    };
    const sent = (): string[] => [...a.sent, ...b.sent].map(({ envelope }) => envelope.event_id);
    await write(0, 200);
    await until(async () => sent().length >= 200 && (await one.log.backlog()) === 0, 'all to be sent');
    await one.stop();
    await write(200, 300);
    await until(
      async () => sent().length >= 300 && (await two.log.backlog()) === 0,
      'the rest to be sent by the other',
    );
    const ids = sent();
    t.equal(ids.length, 300, 'each was sent once');
    t.equal(new Set(ids).size, 300);
    await until(() => heard.length >= 300, 'the watcher to hear all');
    t.same(
      heard,
      Array.from({ length: 300 }, (_, n) => `evt_RB-31_${n}`),
      'in order, whoever committed it',
    );
    await two.stop();
    await second.close();
  });

  await t.test('a database that restarts interrupts and loses nothing', async () => {
    const transport = new NotingTransport();
    const events = runEvents(database, transport);
    const id = randomUUID();
    await database.transaction((tx) =>
      insertBusEvents(tx, [{ ...recoveryOf('RB-41', 1), eventId: `evt_${id}` }], clock.epochMs()),
    );
    await postgres.pause();
    await new Promise((resolve) => setTimeout(resolve, 300));
    await postgres.resume();
    await until(() => transport.sent.some(({ envelope }) => envelope.event_id === `evt_${id}`), 'the event');
    await events.stop();
  });
});
