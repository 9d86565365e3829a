import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EVENT_TYPES } from '@outrider/shared/events';
import { freePort } from '@outrider/shared/free-port';
import { outrider } from '@outrider/shared/messages';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { connect } from 'mqtt';
import t from 'tap';
import type { EmbeddedBroker } from '../src/broker/embedded-broker.ts';
import { writeMosquittoConfig } from '../src/broker/mosquitto.ts';
import { clientCommonName } from '../src/certificates/client-certificates.ts';
import { issueClientFiles } from '../src/certificates/client-files.ts';
import { insertBusEvents } from '../src/storage/event-store.ts';
import { noMosquitto, noPostgres, startMosquitto, startPostgres, until } from '../src/testing/engines.ts';
import { CLOUD_EVENTS, EDGE_PAYLOADS, runEvents, Subscriber } from './events-rig.ts';
import { epochOf, eventRecord, samples, TestEdge, telemetryRecord } from './ingest-edge.ts';
import { metric, openGround, SECRET_KEY, startReplica } from './ingest-rig.ts';

const { Lane } = outrider.v1;
const PROGRAM = fileURLToPath(new URL('../../bin/outrider-cloud.js', import.meta.url));
const ORDER = { kind: 'events', tenantId: 'default', scopes: ['telemetry:read'] } as const;

t.test('a program with its own certificate hears its tenant’s events and nothing else', async (t) => {
  const ground = await openGround();
  const replica = await startReplica(ground);
  const broker = replica.bus as EmbeddedBroker;
  const events = runEvents(ground.database, broker);
  const folder = t.testdir();
  t.teardown(async () => {
    await events.stop();
    await replica.stop();
    await ground.close();
  });
  await ground.robot('default', 'RB-1');
  await ground.robot('other', 'RB-1');
  const clientOf = async (tenantId: string, name: string, clientId?: string) => {
    const issued = await ground.clientCertificates.issue({ ...ORDER, tenantId, name });
    const got: string[] = [];
    const client = connect(replica.url, {
      protocolVersion: 4,
      clientId: clientId ?? issued.commonName,
      reconnectPeriod: 0,
      servername: 'localhost',
      cert: issued.certificatePem,
      key: issued.privateKeyPem,
      ca: issued.caPem,
    });
    let closes = 0;
    client.on('error', () => undefined);
    client.on('close', () => {
      closes += 1;
    });
    client.on('message', (topic) => got.push(topic));
    t.teardown(() => client.endAsync(true));
    return { client, got, closes: () => closes };
  };
  const audit = await clientOf('default', 'audit');
  await until(() => audit.client.connected, 'the session');
  for (const filter of [
    '#',
    'events/#',
    'events/+/#',
    'events/other/#',
    'events/default',
    'outrider/v1/default.RB-1/down/+',
    '$SYS/#',
  ])
    t.equal(await audit.client.subscribeAsync(filter, { qos: 1 }).catch(() => 'refused'), 'refused', filter);
  await audit.client.subscribeAsync('events/default/+/RB-1', { qos: 1 });
  const started = (tenantId: string) =>
    insertBusEvents(
      ground.database,
      [{ type: 'edge.started.v1', tenantId, robotId: 'RB-1', occurredAtMs: 1, traceId: 'x', payload: {} }],
      1,
    );
  await started('other');
  await started('default');
  await until(() => audit.got.length > 0, 'an event');
  t.same(audit.got, ['events/default/edge.started.v1/RB-1']);
  t.ok(broker.hasEventListeners());

  audit.client.publish('events/default/failsafe.triggered.v1/RB-1', 'forged', { qos: 1 });
  await until(() => audit.closes() > 0, 'the end of a session that publishes');
  t.equal(await metric(replica.metrics, 'outrider_broker_violations_total', { what: 'publish' }), 1);
  const thief = await clientOf('default', 'thief', 'default.RB-1');
  await until(() => thief.closes() > 0, 'a robot’s client id to be refused');
  await t.rejects(ground.clientCertificates.issue({ ...ORDER, name: 'one', robotIds: ['RB-1'] }), { code: 'invalid' });

  const files = await issueClientFiles(ground.clientCertificates, folder, { ...ORDER, name: 'late' });
  t.equal(files['common_name'], clientCommonName({ ...ORDER, name: 'late' }));
  const revoked = await clientOf('default', 'gone');
  await until(() => revoked.client.connected, 'the session');
  await ground.clientCertificates.revoke({ ...ORDER, name: 'gone' }, 'test');
  await broker.recheck();
  await until(() => revoked.closes() > 0, 'the end of a session whose certificate was taken back');
  t.notOk(broker.hasEventListeners(), 'and then nobody listens');
});

interface Server {
  readonly url: string;
  readonly token: string;
  /** Kills it as a power cut would. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

t.test('mosquitto_sub and a JSON Schema validator', { skip: noPostgres || noMosquitto }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'outrider-events-'));
  const postgres = await startPostgres();
  const ground = await openGround(postgres.url);
  const { robot, credentials } = await ground.robot('default', 'RB-1');
  const [listenPort, cloudPort] = [await freePort(), await freePort()];
  await issueClientFiles(ground.clientCertificates, folder, { ...ORDER, name: 'audit' });
  const { authority, certificates: registry, clientCertificates: clients } = ground;
  const dir = await mkdtemp(join(tmpdir(), 'outrider-mosquitto-'));
  const conf = await writeMosquittoConfig({
    dir,
    host: '127.0.0.1',
    listenPort,
    cloudPort,
    serverNames: [],
    authority,
    registry,
    clients,
  });
  const mosquitto = await startMosquitto(conf, dir, cloudPort, ground.lines);
  const children = new Set<ChildProcess>();
  const subscribers: Subscriber[] = [];
  t.teardown(async () => {
    for (const child of children) child.kill('SIGKILL');
    for (const subscriber of subscribers) await subscriber.end();
    await mosquitto.stop();
    await ground.close();
    await postgres.stop();
    await rm(folder, { recursive: true, force: true });
    await rm(dir, { recursive: true, force: true });
  });

  const serve = async (name: string): Promise<Server> => {
    const readyFile = join(folder, `${name}.json`);
    const ports = ['--http-port', '0', '--https-port', '0', '--grpc-port', '0'];
    const child = spawn(
      process.execPath,
      [PROGRAM, 'serve', '--state-dir', folder, '--ready-file', readyFile, ...ports],
      {
        env: {
          PATH: process.env['PATH'],
          HOME: process.env['HOME'],
          DATABASE_URL: postgres.url,
          MQTT_URL: `mqtts://localhost:${cloudPort}`,
          OUTRIDER_SECRET_KEY: SECRET_KEY,
          LOG_LEVEL: 'warn',
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    children.add(child);
    let text = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
    const ended = new Promise<void>((resolve) =>
      child.on('close', () => {
        children.delete(child);
        resolve();
      }),
    );
    await until(
      () => {
        if (child.exitCode !== null) throw new Error(text);
        return existsSync(readyFile);
      },
      'the server',
      60_000,
    );
    const { http_url: url } = JSON.parse(readFileSync(readyFile, 'utf8')) as { http_url: string };
    const made = JSON.parse(readFileSync(join(folder, 'bootstrap.json'), 'utf8')) as Record<string, string>;
    const grant = {
      grant_type: 'client_credentials',
      client_id: made['client_id'],
      client_secret: made['client_secret'],
    };
    const reply = await fetch(`${url}/api/v1/auth/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(grant),
    });
    const { access_token: token } = (await reply.json()) as { access_token: string };
    const end = (signal: NodeJS.Signals) => async (): Promise<void> => {
      child.kill(signal);
      await ended;
    };
    return { url, token, kill: end('SIGKILL'), stop: end('SIGTERM') };
  };
  const report = async (server: Server, at: string): Promise<string> => {
    const reply = await fetch(`${server.url}/api/v1/telemetry/events`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${server.token}`,
        'content-type': 'application/json',
        'x-request-id': 'req-why',
      },
      body: JSON.stringify({ robot_id: 'RB-1', timestamp: at, power: { draw_w: 300 } }),
    });
    t.equal(reply.status, 202);
    return ((await reply.json()) as { event_id: string }).event_id;
  };
  const listen = async (): Promise<Subscriber> => {
    const subscriber = new Subscriber({ port: listenPort, folder, name: 'audit', filter: '#' });
    subscribers.push(subscriber);
    await until(() => {
      if (subscriber.hasEnded) throw new Error(subscriber.output);
      return subscriber.isSubscribed;
    }, 'the subscription');
    return subscriber;
  };

  const server = await serve('first');
  const subscriber = await listen();
  const edge = new TestEdge(`mqtts://127.0.0.1:${listenPort}`, robot, credentials);
  await edge.ready();
  const epoch = epochOf('events');
  const at = Date.now();
  await edge.send(epoch, Lane.LANE_TELEMETRY, [telemetryRecord(1, samples('/joint_states', 5, at))]);
  await edge.send(
    epoch,
    Lane.LANE_EVENT,
    Object.entries(EDGE_PAYLOADS).map(([type, payload], index) =>
      eventRecord(index + 1, {
        eventId: `evt_edge_${index}`,
        type,
        occurredAtMs: at,
        traceId: 'req_edge',
        payloadJson: JSON.stringify(payload),
      }),
    ),
  );
  const foreign = CLOUD_EVENTS.map((event) => ({ ...event, tenantId: 'other' }));
  await ground.database.transaction((tx) => insertBusEvents(tx, [...foreign, ...CLOUD_EVENTS], at));
  const httpEvent = await report(server, '2026-01-11T05:12:00Z');
  const seen = (type: string) => subscriber.lines.filter(({ envelope }) => envelope.event_type === type);
  await until(
    () => EVENT_TYPES.every((type) => seen(type).length > 0) && seen('telemetry.ingested.v1').length > 1,
    'all five mandatory events',
  );
  const ajv = new Ajv2020({ strict: true, formats: { 'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/ } });
  for (const type of EVENT_TYPES) {
    const served = await fetch(`${server.url}/schemas/events/${type}.json`);
    const validate = ajv.compile((await served.json()) as object);
    for (const { topic, envelope } of seen(type)) {
      t.ok(validate(envelope), `${topic} ${JSON.stringify(validate.errors)}`);
      t.equal(topic, `events/default/${type}/${envelope.robot_id ?? envelope.swarm_id}`);
    }
  }
  t.match(
    seen('telemetry.ingested.v1').find(({ envelope }) => envelope.event_id === httpEvent)?.envelope,
    { trace_id: 'req-why', payload: { samples: 1, streams: [{ stream: 'api/power' }] } },
    'the event has the id that the caller was told, and the request as its trace',
  );
  t.equal((await fetch(`${server.url}/schemas/events/nothing.json`)).status, 404);
  t.same(
    subscriber.topics.filter((topic) => !topic.startsWith('events/default/')),
    [],
    'of everything that passes through the broker it hears its own tenant’s events only',
  );

  await t.test('the server is killed between the commit and the publishing', async (t) => {
    await edge.end();
    await subscriber.end();
    await mosquitto.pause();
    const orphan = await report(server, '2026-01-11T05:13:00Z');
    await server.kill();
    const [row] = await ground.database.query<{ count: number }>(
      'select count(*)::int8 as count from bus_event where payload like $1',
      [`%${orphan}%`],
    );
    t.equal(row?.count, 1, 'it was committed');
    await mosquitto.resume();
    const again = await listen();
    const second = await serve('second');
    const heard = () => again.lines.filter(({ envelope }) => envelope.event_id === orphan);
    await until(() => heard().length > 0, 'the event of the server that died', 60_000);
    t.equal(new Set(heard().map(({ envelope }) => JSON.stringify(envelope))).size, 1);
    t.equal(await report(second, '2026-01-11T05:13:00Z'), orphan, 'the same report again is the same event');
    const last = await report(second, '2026-01-11T05:14:00Z');
    await until(() => again.lines.some(({ envelope }) => envelope.event_id === last), 'a later event');
    t.equal(heard().length, 1, 'and is not sent again');
    await second.stop();
  });
});
