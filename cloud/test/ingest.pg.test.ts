import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@outrider/shared/free-port';
import { outrider } from '@outrider/shared/messages';
import { downTopic, presenceTopic, upTopic } from '@outrider/shared/protocol/topics';
import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import { writeMosquittoConfig } from '../src/broker/mosquitto.ts';
import type { MqttClientBus } from '../src/broker/mqtt-client-bus.ts';
import { InstructionKeys } from '../src/failsafe/instruction-keys.ts';
import { PgInstructionStore } from '../src/storage/instruction-store.ts';
import type { LiveUpdate } from '../src/telemetry/ports.ts';
import { type Engine, noMosquitto, noPostgres, startMosquitto, startPostgres, until } from '../src/testing/engines.ts';
import { epochOf, samples, TestEdge, telemetryRecord } from './ingest-edge.ts';
import { type Ground, metric, openGround, type Replica, startReplica } from './ingest-rig.ts';
import { ingestSuite } from './ingest-suite.ts';

const { CommandReply, Lane } = outrider.v1;
const { LANE_TELEMETRY } = Lane;
const presence = (word: string): Buffer =>
  Buffer.from(outrider.v1.PresenceReport.encode({ presence: word, bootId: 'b1', atMs: Date.now() }).finish());
/** Whoever is being thrown out may be met by it a second time; a fifth time is no accident. */
const COMEBACKS_MAX = 5;
const skip = noPostgres || noMosquitto;

interface Site {
  readonly ground: Ground;
  readonly postgres: Engine;
  readonly robotUrl: string;
  readonly cloudUrl: string;
  /** Writes the configuration anew and has the broker read it. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

async function openSite(): Promise<Site> {
  const postgres = await startPostgres();
  const ground = await openGround(postgres.url);
  const dir = await mkdtemp(join(tmpdir(), 'outrider-mosquitto-'));
  const [listenPort, cloudPort] = [await freePort(), await freePort()];
  const { authority, certificates: registry, clientCertificates: clients } = ground;
  const host = '127.0.0.1';
  const write = () =>
    writeMosquittoConfig({ dir, host, listenPort, cloudPort, serverNames: [], authority, registry, clients });
  const broker = await startMosquitto(await write(), dir, cloudPort, ground.lines);
  return {
    ground,
    postgres,
    robotUrl: `mqtts://127.0.0.1:${listenPort}`,
    cloudUrl: `mqtts://localhost:${cloudPort}`,
    async reload() {
      await write();
      await broker.reload();
    },
    async close() {
      await ground.close();
      await broker.stop();
      await postgres.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** A robot that comes again until a session holds for long enough to say that it is there. */
async function comeBack(connect: () => TestEdge): Promise<TestEdge> {
  for (let tries = 1; ; tries += 1) {
    const edge = connect();
    try {
      await edge.ready();
      await edge.client.publishAsync(presenceTopic(edge.device), presence('ONLINE'), { qos: 1 });
      return edge;
    } catch (error) {
      await edge.end();
      if (tries >= COMEBACKS_MAX) throw error;
    }
  }
}

const onBroker = async (site: Site): Promise<Replica> => {
  const replica = await startReplica(site.ground, site.cloudUrl);
  const bus = replica.bus as MqttClientBus;
  await until(() => bus.isReady, 'the subscriptions of the replica');
  return replica;
};

const RESEND_MS = 5000;

t.test('PostgreSQL and Mosquitto', { skip }, async (t) => {
  const site = await openSite();
  const { ground } = site;
  let replica = await onBroker(site);
  t.teardown(async () => {
    await replica.stop();
    await site.close();
  });

  await t.test('ingest on PostgreSQL and the broker in this process', async (t) => {
    const local = await openGround(site.postgres.url);
    let own = await startReplica(local);
    await ingestSuite(t, {
      ground: local,
      replica: () => own,
      url: () => own.url,
      async restart() {
        await own.stop();
        own = await startReplica(local);
      },
    });
    await own.stop();
    for (const table of [
      'ingest_ahead',
      'ingest_cursor',
      'ingest_origin',
      'telemetry_block',
      'telemetry_gap',
      'latest_sample',
      'robot_event',
      'robot_shadow',
      'quarantine',
      'robot_presence',
      'robot_certificate',
      'robot_energy_hour',
      'robot',
    ])
      await local.database.query(`delete from ${table}`);
    await local.close();
  });

  await t.test('ingest on PostgreSQL and Mosquitto', async (t) => {
    await ingestSuite(t, {
      ground,
      replica: () => replica,
      url: () => site.robotUrl,
      async restart() {
        await replica.stop();
        replica = await onBroker(site);
      },
    });
  });

  await t.test('two replicas share the ingest: each record is stored once, and both hear of all', async (t) => {
    const second = await onBroker(site);
    const robots = await Promise.all(['S-1', 'S-2', 'S-3'].map((id) => ground.robot('default', id)));
    const edges = robots.map(({ robot, credentials }) => new TestEdge(site.robotUrl, robot, credentials));
    for (const edge of edges) await edge.ready();
    const heard: LiveUpdate[][] = [[], []];
    const stops = [replica, second].map((each, i) =>
      each.telemetry.live.subscribe({ tenantId: 'default' }, (update) => heard[i]?.push(update)),
    );
    const epoch = epochOf('shared');
    const base = Date.UTC(2021, 0, 1);
    const sends: Promise<void>[] = [];
    for (let seq = 1; seq <= 60; seq += 1) {
      for (const edge of edges) {
        const record = telemetryRecord(seq, samples('/shared', 10, base + seq * 100));
        sends.push(edge.send(epoch, LANE_TELEMETRY, [record]));
        // Now and then the same again, as after a lost acknowledgement.
        if (seq % 7 === 0) sends.push(edge.send(epoch, LANE_TELEMETRY, [record]));
      }
    }
    await Promise.all(sends);
    // As a robot does it: what is not acknowledged in time is sent again, as often as it takes.
    const resend = setInterval(() => {
      for (const edge of edges)
        for (let seq = 1; seq <= 60; seq += 1)
          void edge.send(epoch, LANE_TELEMETRY, [telemetryRecord(seq, samples('/shared', 10, base + seq * 100))]);
    }, RESEND_MS);
    t.teardown(() => clearInterval(resend));
    for (const edge of edges) await edge.acknowledged(epoch, LANE_TELEMETRY, 60);
    clearInterval(resend);
    for (const { robot } of robots)
      t.match(await second.telemetry.reader.counts(robot.robotPk), [{ samples: 600, blocks: 60 }]);
    const shares = [];
    for (const each of [replica, second])
      shares.push(await metric(each.metrics, 'outrider_ingest_batches_total', { channel: 'telemetry' }));
    t.ok(
      shares.every((share) => share > 0),
      `both took part: ${shares.join(' and ')}`,
    );
    t.same(await ground.database.query('select 1 from ingest_ahead where epoch = $1', [epoch]), []);
    await until(
      () => heard.every((list) => new Set(list.map((update) => update.robotId)).size === 3),
      'both replicas to hear of all robots',
    );
    const replies: string[] = [];
    for (const each of [replica, second])
      each.bus.onReply((device, reply) => replies.push(`${device.robotId} ${reply.commandId}`));
    await edges[0]?.raw('reply', CommandReply.encode({ commandId: 'cmd_1', done: true }).finish());
    await until(() => replies.length === 2, 'both replicas to hear the reply');
    await edges[1]?.presence('ONLINE');
    await until(
      () => [replica, second].every((each) => robots[1] && each.bus.connected(robots[1].robot)),
      'both to know who is there',
    );
    for (const stop of stops) stop();
    for (const edge of edges) await edge.end();
    await second.stop();
  });

  await t.test('a database that goes away stops acknowledgements, and nothing else', async (t) => {
    const { robot, credentials } = await ground.robot('default', 'D-1');
    const edge = new TestEdge(site.robotUrl, robot, credentials);
    await edge.ready();
    const epoch = epochOf('away');
    const one = (seq: number) => telemetryRecord(seq, samples('/away', 1, Date.UTC(2021, 0, 1) + seq));
    await edge.send(epoch, LANE_TELEMETRY, [one(1)]);
    await edge.acknowledged(epoch, LANE_TELEMETRY, 1);
    await site.postgres.pause();
    for (let seq = 2; seq <= 20; seq += 1) await edge.send(epoch, LANE_TELEMETRY, [one(seq)]);
    await until(
      async () => (await metric(replica.metrics, 'outrider_ingest_commit_failures_total')) > 0,
      'a commit to fail',
    );
    t.equal(edge.upto(epoch, LANE_TELEMETRY), 1);
    t.ok(edge.client.connected);
    await site.postgres.resume();
    // What was dropped meanwhile comes again, as from any edge.
    await until(async () => {
      if (edge.upto(epoch, LANE_TELEMETRY) >= 20) return true;
      await edge.send(
        epoch,
        LANE_TELEMETRY,
        Array.from({ length: 20 }, (_, i) => one(i + 1)),
      );
      return false;
    }, 'everything to be acknowledged');
    t.match(await replica.telemetry.reader.counts(robot.robotPk), [{ samples: 20 }]);
    await edge.end();
  });

  await t.test('two replicas give no robot a number twice, and make one instruction key', async (t) => {
    const other = await openGround(site.postgres.url);
    const grounds = [ground, other];
    const stores = grounds.map(({ database }) => new PgInstructionStore(database));
    const robot = { tenantId: 'default', robotId: 'S-1' };
    const numbers = await Promise.all(
      stores.flatMap((store) => Array.from({ length: 100 }, () => store.nextCounter(robot, 0))),
    );
    t.equal(new Set(numbers).size, 200);
    const keys = grounds.map(
      ({ secrets, authority, log }, index) =>
        new InstructionKeys({
          store: stores[index] as PgInstructionStore,
          secrets,
          authority,
          clock: systemClock,
          log,
        }),
    );
    await Promise.all(keys.map((each) => each.open()));
    t.equal(keys[0]?.signer.keyId, keys[1]?.signer.keyId);
    t.equal(keys[0]?.list.serial, keys[1]?.list.serial);
    await other.close();
  });

  await t.test('Mosquitto gives the same rights as the broker in this process', async (t) => {
    const [one, two] = [await ground.robot('default', 'M-1'), await ground.robot('default', 'M-2')];
    const edge = new TestEdge(site.robotUrl, one.robot, one.credentials, { clientId: 'default.M-2' });
    const victim = new TestEdge(site.robotUrl, two.robot, two.credentials);
    await victim.ready();
    await edge.ready();
    t.ok(victim.client.connected, 'a borrowed client id ends nobody’s session');
    for (const filter of [
      '#',
      'outrider/v1/+/down/ack',
      downTopic(two.robot, 'ack'),
      upTopic(one.robot, 'hello'),
      'outrider/internal/live',
    ])
      await edge.client.subscribeAsync(filter, { qos: 1 }).catch(() => undefined);
    const before = await metric(replica.metrics, 'outrider_ingest_batches_total');
    for (const topic of [
      upTopic(two.robot, 'telemetry'),
      presenceTopic(two.robot),
      downTopic(two.robot, 'command'),
      'outrider/internal/live',
    ])
      await edge.client.publishAsync(topic, 'x', { qos: 1 });
    await replica.bus.publish(downTopic(two.robot, 'command'), Buffer.from('for two'));
    await replica.bus.publish(downTopic(one.robot, 'command'), Buffer.from('for one'));
    await until(() => edge.other.length > 0 && victim.other.length > 0, 'both messages');
    t.same(
      [edge, victim].map((each) => each.other.map((message) => message.payload.toString())),
      [['for one'], ['for two']],
    );
    t.equal(await metric(replica.metrics, 'outrider_ingest_batches_total'), before, 'a foreign topic is not heard');
    const intruder = new TestEdge(site.cloudUrl, one.robot, one.credentials);
    const nobody = new TestEdge(site.robotUrl, one.robot, { ca: one.credentials.ca } as never);
    await until(() => intruder.closes > 0 && nobody.closes > 0, 'both to be refused');
    edge.client.publish(upTopic(one.robot, 'telemetry'), Buffer.alloc(3 * 1024 * 1024), { qos: 1 });
    await until(() => edge.closes > 0, 'the 3 MB packet to be refused');
    const live = new TestEdge(site.robotUrl, one.robot, one.credentials);
    await live.ready();
    await live.client.publishAsync(presenceTopic(one.robot), presence('ONLINE'), { qos: 1 });
    const bus = replica.bus as MqttClientBus;
    await until(() => bus.connected(one.robot), 'the robot to be known as online');
    const bystanders = victim.closes;
    await ground.certificates.revokeRobotCertificates(one.robot.robotPk, 'stolen');
    await until(() => live.closes > 0, 'the live session to end');
    // The broker has not read its list yet: whoever comes back gets in, until it has and the next look ends it.
    const back = await comeBack(() => new TestEdge(site.robotUrl, one.robot, one.credentials));
    await until(() => bus.connected(one.robot), 'the robot to be known as online again');
    await site.reload();
    await bus.recheck();
    await until(() => back.closes > 0, 'the session to end for good');
    t.equal(victim.closes, bystanders, 'and nobody else’s');
    for (const each of [live, back]) await each.end();
    const revoked = new TestEdge(site.robotUrl, one.robot, one.credentials);
    await until(() => revoked.closes > 0, 'the revoked certificate to be refused');
    t.notOk(revoked.client.connected);
    for (const each of [edge, victim, intruder, nobody, revoked]) await each.end();
  });
});
