import { connect as connectTcp } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { outrider } from '@outrider/shared/messages';
import { downTopic, presenceTopic, upTopic } from '@outrider/shared/protocol/topics';
import t from 'tap';
import type { EmbeddedBroker } from '../src/broker/embedded-broker.ts';
import { PacketGauge } from '../src/broker/packet-gauge.ts';
import {
  createAuthority,
  exportKey,
  generateKeyPair,
  loadSigner,
  signLeaf,
  validFor,
} from '../src/certificates/x509.ts';
import { until } from '../src/testing/engines.ts';
import { type Credentials, epochOf, samples, TestEdge, telemetryRecord } from './ingest-edge.ts';
import { metric, openGround, startReplica } from './ingest-rig.ts';

const { Lane } = outrider.v1;

/** A certificate for this name from an authority that nobody trusts. */
async function foreignCredentials(commonName: string, ca: string): Promise<Credentials> {
  const validity = validFor(Date.now(), 86_400_000);
  const signer = await loadSigner(await createAuthority('Outrider Device Authority', validity));
  const keys = await generateKeyPair();
  const leaf = await signLeaf(signer, { commonName, publicKey: keys.publicKey, validity, usage: 'client' });
  return { cert: leaf.toString('pem'), key: await exportKey(keys.privateKey), ca };
}

t.test('a byte stream is measured packet by packet, however it is cut', async (t) => {
  const packet = (length: number): Buffer => {
    const header = [0x30];
    for (let left = length; ; ) {
      const byte = left % 128;
      left = Math.floor(left / 128);
      header.push(left > 0 ? byte | 0x80 : byte);
      if (left === 0) break;
    }
    return Buffer.concat([Buffer.from(header), Buffer.alloc(length)]);
  };
  const stream = Buffer.concat([packet(100), packet(0), packet(70_000), packet(5)]);
  for (const size of [1, 7, 1000, stream.length]) {
    const gauge = new PacketGauge();
    let passed = 0;
    for (let at = 0; at < stream.length; ) {
      const taken = gauge.advance(stream.subarray(at, at + size));
      at += taken;
      passed += taken;
    }
    t.equal(passed, stream.length, `cut at ${size}`);
  }
  t.equal(new PacketGauge().advance(packet(5000)), -1, 'a first packet over 4 KB');
  t.equal(new PacketGauge().advance(stream), 102, 'it stops after the first packet');
  const gauge = new PacketGauge();
  gauge.advance(packet(10));
  t.equal(gauge.advance(Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f])), -1, 'a later packet of 256 MB');
  t.equal(new PacketGauge().advance(Buffer.from([0x10, 0x80, 0x80, 0x80, 0x80])), -1, 'a length without an end');
});

t.test('the broker in this process', async (t) => {
  const ground = await openGround();
  const replica = await startReplica(ground);
  const broker = replica.bus as EmbeddedBroker;
  const edges: TestEdge[] = [];
  t.teardown(async () => {
    for (const edge of edges) await edge.end();
    await replica.stop();
    await ground.close();
  });
  const one = await ground.robot('default', 'RB-1');
  const two = await ground.robot('default', 'RB-2');
  const counter = (name: string, labels: Record<string, string>) =>
    metric(replica.metrics, `outrider_broker_${name}_total`, labels);
  const edgeOf = (own: typeof one, options: object = {}, credentials: Partial<Credentials> = {}): TestEdge => {
    const edge = new TestEdge(replica.url, own.robot, { ...own.credentials, ...credentials } as Credentials, options);
    edges.push(edge);
    return edge;
  };
  const tlsSocket = async (credentials: Credentials): Promise<TLSSocket> => {
    const socket = connectTls({ port: broker.port, host: '127.0.0.1', servername: 'localhost', ...credentials });
    socket.on('error', () => undefined);
    await until(() => socket.authorized, 'the handshake');
    return socket;
  };
  const victim = edgeOf(two);
  await victim.ready();

  await t.test('only a certificate of our authority that is on record gets in', async (t) => {
    const foreign = edgeOf(one, {}, await foreignCredentials('default.RB-1', one.credentials.ca));
    const none = edgeOf(one, { cert: undefined, key: undefined });
    await until(() => foreign.closes > 0 && none.closes > 0, 'both to be closed');
    const borrowed = edgeOf(one, { clientId: 'default.RB-2' });
    await until(() => borrowed.closes > 0, 'the borrowed name to be refused');
    t.equal(await counter('violations', { what: 'client_id' }), 1);
    const signed = await generateKeyPair();
    const unrecorded = await ground.authority.signClient('default.RB-1', signed.publicKey as never, 1);
    const unknown = edgeOf(one, {}, { cert: unrecorded.toString('pem'), key: await exportKey(signed.privateKey) });
    await until(() => unknown.closes > 0, 'the unrecorded one to be refused');
    t.notOk([foreign, none, borrowed, unknown].some((edge) => edge.client.connected));
    t.ok(await counter('refused', { reason: 'certificate' }));
    t.ok(victim.client.connected, 'and nobody lost a session by it');
    const five = edgeOf(one, { protocolVersion: 5 });
    await until(() => five.closes > 0, 'MQTT 5 to be refused');
  });

  await t.test('a foreign topic ends the session, and nothing of it is heard', async (t) => {
    for (const topic of [
      upTopic(two.robot, 'telemetry'),
      presenceTopic(two.robot),
      downTopic(one.robot, 'ack'),
      '$SYS/x',
      'other',
    ]) {
      const edge = edgeOf(one);
      await edge.ready();
      edge.client.publish(topic, 'x', { qos: 1 });
      await until(() => edge.closes > 0, `the end of the session after ${topic}`);
    }
    t.equal(await counter('violations', { what: 'publish' }), 5);
    const will = edgeOf(one, {
      will: { topic: presenceTopic(two.robot), payload: Buffer.from('x'), qos: 1, retain: true },
    });
    await until(() => will.closes > 0, 'the foreign will to be refused');
    t.equal(await counter('violations', { what: 'will' }), 1);
  });

  await t.test('only own topics can be listened to', async (t) => {
    const edge = edgeOf(one);
    await edge.ready();
    const filters = [
      '#',
      '+/+/+/down/+',
      'outrider/v1/+/down/ack',
      'outrider/v1/default.RB-2/down/+',
      '$SYS/#',
      '$share/a/outrider/v1/default.RB-1/down/+',
      'outrider/v1/default.RB-1/up/+',
      'outrider/v1/default.RB-1/#',
    ];
    for (const filter of filters) {
      const granted = await edge.client.subscribeAsync(filter, { qos: 1 }).catch(() => 'refused');
      t.equal(granted, 'refused', filter);
    }
    t.ok(await edge.client.subscribeAsync(downTopic(one.robot, 'ack')));
    await broker.publish(downTopic(two.robot, 'command'), Buffer.from('for two'));
    await broker.publish(downTopic(one.robot, 'command'), Buffer.from('for one'));
    await until(() => edge.other.length > 0 && victim.other.length > 0, 'both messages');
    t.same(
      [edge.other, victim.other].map((list) => list.map((message) => message.payload.toString())),
      [['for one'], ['for two']],
    );
  });

  await t.test(
    'nothing is retained, unknown channels of its own are ignored, and neither ends the session',
    async (t) => {
      const edge = edgeOf(one);
      await edge.ready();
      const topic = upTopic(one.robot, 'telemetry');
      await edge.client.publishAsync(topic, 'poison', { qos: 1, retain: true });
      await edge.client.publishAsync('outrider/v1/default.RB-1/up/of-tomorrow', 'x', { qos: 1 });
      const epoch = epochOf('retained');
      await edge.send(epoch, Lane.LANE_TELEMETRY, [telemetryRecord(1, samples('/r', 1, Date.UTC(2020, 0, 1)))]);
      await edge.acknowledged(epoch, Lane.LANE_TELEMETRY, 1);
      t.equal(await counter('violations', { what: 'retain' }), 1);
      t.ok(edge.client.connected);
    },
  );

  await t.test('oversized packets are refused before they are kept', async (t) => {
    const before = process.memoryUsage().rss;
    const sockets = await Promise.all(
      Array.from({ length: 8 }, () => tlsSocket(one.credentials).catch(() => undefined)),
    );
    // Three sessions a certificate; the others were turned away at the door.
    for (const socket of sockets) {
      if (!socket || socket.destroyed) continue;
      socket.write(Buffer.from([0x10, 0x80, 0x80, 0x80, 0x01]));
      const flood = setInterval(() => socket.writable && socket.write(Buffer.alloc(256 * 1024)), 1);
      socket.once('close', () => clearInterval(flood));
    }
    await until(() => sockets.every((socket) => !socket || socket.destroyed), 'all floods to be cut off');
    const edge = edgeOf(one);
    await edge.ready();
    edge.client.publish(upTopic(one.robot, 'telemetry'), Buffer.alloc(3 * 1024 * 1024), { qos: 1 });
    await until(() => edge.closes > 0, 'the 3 MB packet to be refused');
    t.ok(await counter('refused', { reason: 'connect_too_large' }));
    t.ok(await counter('refused', { reason: 'packet_too_large' }));
    t.ok(process.memoryUsage().rss - before < 64 * 1024 * 1024, 'and memory stayed where it was');
    const silent = connectTcp(broker.port, '127.0.0.1');
    silent.on('error', () => undefined);
    silent.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => silent.destroyed || silent.readableEnded, 'plain text to be refused').catch(() => undefined);
    t.ok(await counter('refused', { reason: 'tls' }));
    silent.destroy();
  });

  await t.test('what follows CONNECT in one write waits for admission and is then heard', async (t) => {
    const socket = await tlsSocket(one.credentials);
    const name = Buffer.from('default.RB-1');
    const connect = Buffer.concat([
      Buffer.from([0x10, 12 + name.length, 0, 4]),
      Buffer.from('MQTT'),
      Buffer.from([4, 2, 0, 60, 0, name.length]),
      name,
    ]);
    socket.write(Buffer.concat([connect, Buffer.from([0xc0, 0])]));
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    await until(() => Buffer.concat(chunks).length >= 6, 'CONNACK and PINGRESP');
    t.same([...Buffer.concat(chunks)], [0x20, 2, 0, 0, 0xd0, 0]);
    socket.destroy();
  });

  await t.test('a robot that stops reading is dropped and holds up nobody', async (t) => {
    const socket = await tlsSocket(one.credentials);
    const text = (value: string): Buffer => Buffer.concat([Buffer.from([0, value.length]), Buffer.from(value)]);
    const connect = Buffer.concat([text('MQTT'), Buffer.from([4, 2, 0, 60]), text('default.RB-1')]);
    const subscribe = Buffer.concat([Buffer.from([0, 1]), text('outrider/v1/default.RB-1/down/+'), Buffer.from([1])]);
    socket.write(
      Buffer.concat([Buffer.from([0x10, connect.length]), connect, Buffer.from([0x82, subscribe.length]), subscribe]),
    );
    await until(() => socket.bytesRead > 0 && broker.connected(one.robot), 'the session');
    socket.pause();
    const heard = victim.other.length;
    const large = Buffer.alloc(512 * 1024);
    const floods = Array.from({ length: 60 }, () => broker.publish(downTopic(one.robot, 'ack'), large));
    await broker.publish(downTopic(two.robot, 'command'), Buffer.from('stop'));
    await until(() => victim.other.length > heard, 'the stop for the other robot', 4000);
    await until(() => !broker.connected(one.robot), 'the end of the frozen session');
    await Promise.allSettled(floods);
    socket.destroy();
    t.equal(victim.other.at(-1)?.payload.toString(), 'stop');
  });

  await t.test('a second session of a certificate ends the first and raises the alarm', async (t) => {
    const takeovers = await counter('takeovers', {});
    const first = edgeOf(one);
    await first.ready();
    const second = edgeOf(one);
    await second.ready();
    await until(() => first.closes > 0, 'the first session to end');
    t.ok(second.client.connected);
    t.ok((await counter('takeovers', {})) > takeovers);
    t.ok(broker.connected(one.robot));
  });

  await t.test('a revoked certificate loses its session at once and does not come back', async (t) => {
    const edge = edgeOf(one);
    await edge.ready();
    await ground.certificates.revokeCertificate(one.robot.robotPk, one.serialNumber, 'stolen');
    await until(() => edge.closes > 0, 'the session to end');
    const again = edgeOf(one);
    await until(() => again.closes > 0, 'the certificate to be refused');
    t.notOk(broker.connected(one.robot));
    const pem = await ground.certificates.revocationListPem();
    t.match(pem, /^-----BEGIN X509 CRL-----/);
    await t.rejects(ground.certificates.revokeCertificate(one.robot.robotPk, 'ff', 'x'), { code: 'not_found' });
  });

  await t.test('a revocation by another replica shows at the regular check', async (t) => {
    await ground.database.query('update robot set deregistered_at = now() where robot_pk = $1', [two.robot.robotPk]);
    t.ok(victim.client.connected);
    await broker.recheck();
    await until(() => victim.closes > 0, 'the session to end');
    t.notOk(broker.connected(two.robot));
  });
});
