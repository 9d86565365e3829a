import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { eventSchema } from '@outrider/shared/event-schemas';
import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { downTopic } from '@outrider/shared/protocol/topics';
import { type EpochMs, systemClock } from '@outrider/shared/time';
import t from 'tap';
import { CommandDesk, type FailsafeTarget } from '../src/commands/command-desk.ts';
import { CommandLog } from '../src/commands/command-log.ts';
import { TrustedKeys } from '../src/commands/trusted-keys.ts';
import { CertificateRenewal } from '../src/enroll/enroller.ts';
import { IdentityStore } from '../src/enroll/identity.ts';
import type { AgentStatus } from '../src/local-api/status.ts';
import type { Outbox } from '../src/outbox/outbox.ts';
import { LANE_NUMBERS } from '../src/outbox/records.ts';
import { transitionEvents } from '../src/uplink/transitions.ts';
import { Uplink, type UplinkOptions } from '../src/uplink/uplink.ts';
import { changeFile, eventOf, jointLayout, openOutbox, sampleOf, seeded, silentLog } from './outbox-rig.ts';
import { counted, DEVICE, exited, TestAuthority, TestCloud, TestRobot, until, writeRecording } from './uplink-rig.ts';

const { BodyKind } = outrider.v1;
const done: FailsafeTarget = {
  trigger: () => Promise.resolve({ done: true, detail: 'stopped', latchId: 7, unmet: [] }),
  recover: () => Promise.resolve({ done: true, detail: 'armed', latchId: 7, unmet: [] }),
  status: () => ({ motionEpoch: 0, recoverNonce: 'n' }),
};

/** An uplink in this process, with its own outbox. */
async function connect(
  t: { teardown(fn: () => Promise<void>): unknown },
  options: Partial<UplinkOptions> & { robot: TestRobot; target?: FailsafeTarget },
): Promise<{ uplink: Uplink; outbox: Outbox; stop: () => Promise<void> }> {
  const { robot, target = done, ...more } = options;
  const identities = new IdentityStore(robot.stateDir);
  const outbox = more.outbox ?? openOutbox(robot.stateDir);
  const commands = CommandLog.open(robot.stateDir, silentLog);
  const uplink = new Uplink({
    device: DEVICE,
    bootId: 'b007',
    agentVersion: '0.0.0',
    windowBatches: 4,
    ackTimeoutMs: 300,
    helloTimeoutMs: 10_000,
    connectTimeoutMs: 5000,
    keepaliveS: 20,
    backoffFirstMs: 10,
    backoffMaxMs: 50,
    identity: () => identities.load(),
    outbox,
    commands: new CommandDesk({
      device: DEVICE,
      keys: new TrustedKeys(identities, () => identities.load()?.ca),
      commands,
      target,
      record: (event) => outbox.appendEvent(event),
      clock: systemClock,
      log: silentLog,
    }),
    clock: systemClock,
    log: silentLog,
    ...more,
  });
  const controller = new AbortController();
  const outboxController = new AbortController();
  const running = [uplink.run(controller.signal), outbox.run(outboxController.signal)] as const;
  const stop = async (): Promise<void> => {
    controller.abort();
    await running[0];
    outboxController.abort();
    await running[1];
    commands.close();
  };
  t.teardown(stop);
  return { uplink, outbox, stop };
}

t.test('one robot, one cloud', async (t) => {
  const cloud = await TestCloud.start();
  const robot = new TestRobot(cloud);
  t.teardown(async () => {
    await robot.close();
    await cloud.close();
  });

  await t.test(
    'enrolment makes a key, gets a certificate, and says clearly what is wrong when it cannot',
    async (t) => {
      const wrongKey = await robot.command('enroll', '--api-key', 'rk_wrong');
      t.equal(wrongKey.code, 1);
      t.match(wrongKey.stderr, /refused the certificate \(401 INVALID_TOKEN: unknown key\)/);
      const other = await TestAuthority.create('Another');
      writeFileSync(join(robot.home, 'ca.pem'), other.pem);
      const foreign = await robot.command('enroll', '--api-key', cloud.apiKey);
      t.equal(foreign.code, 1);
      t.match(foreign.stderr, /not signed by the pinned CA/);
      writeFileSync(join(robot.home, 'ca.pem'), cloud.authority.pem);
      const mismatch = await robot.command('enroll', '--api-key', cloud.apiKey, '--ca-sha256', 'ab'.repeat(32));
      t.match(mismatch.stderr, /has SHA-256 [0-9a-f]{64}, not/);
      const enrolled = await robot.command('enroll', '--api-key', cloud.apiKey);
      t.equal(enrolled.code, 0, enrolled.stderr);
      t.match(enrolled.stdout, /enrolled default\.RB-1, certificate valid until/);
      const identity = new IdentityStore(robot.stateDir).load();
      t.equal(identity?.mqttUrl, `mqtts://localhost:${cloud.mqttPort}`);
      t.equal(statSync(join(robot.stateDir, 'identity/current/key.pem')).mode & 0o777, 0o600);
      t.match(readFileSync(join(robot.stateDir, 'identity/robot.crt'), 'utf8'), /BEGIN CERTIFICATE/);
      t.ok(statSync(join(robot.stateDir, 'latches')).isDirectory());
    },
  );

  await t.test('the authority can be pinned by its fingerprint alone', async (t) => {
    const second = new TestRobot(cloud, { cloud: { http_url: `https://localhost:${cloud.httpsPort}` } });
    t.teardown(() => second.close());
    const { fingerprintOf } = await import('../src/enroll/cloud-client.ts');
    const wrong = await second.command('enroll', '--api-key', cloud.apiKey, '--ca-sha256', 'cd'.repeat(32));
    t.match(wrong.stderr, /shows no certificate with SHA-256 cdcd/);
    const sha256 = fingerprintOf(cloud.authority.pem);
    const right = await second.command('enroll', '--api-key', cloud.apiKey, '--ca-sha256', sha256);
    t.equal(right.code, 0, right.stderr);
    const unpinned = await second.command('enroll', '--api-key', cloud.apiKey);
    t.match(unpinned.stderr, /not signed by the pinned CA/, 'without a pin only public authorities are trusted');
  });

  await t.test('events, states and samples arrive once each, and are deleted', async (t) => {
    const { outbox, uplink, stop } = await connect(t, { robot });
    for (let n = 0; n < 250; n += 1) outbox.appendSample(sampleOf(jointLayout('a'), n));
    outbox.appendState('agent', { n: 1 });
    await outbox.appendEvent(eventOf(1));
    await until('all is acknowledged', () => outbox.isDrained());
    t.equal(counted(cloud).samples, 250);
    t.equal(cloud.lane('event').length, 1);
    t.equal(cloud.lane('state').length, 1);
    t.equal(uplink.status().state, 'online');
    t.same(cloud.presences, ['ONLINE']);
    await stop();
    await until('the goodbye', () => cloud.presences.includes('OFFLINE'));
    t.same(cloud.presences, ['ONLINE', 'OFFLINE'], 'a clean stop says so, and the last will stays unsaid');
  });

  await t.test('a stop request reaches the guard and is answered; a repeated one is done once', async (t) => {
    let triggered = 0;
    const target: FailsafeTarget = {
      ...done,
      trigger: ({ mode }) => {
        triggered += 1;
        return mode === 'geofence_lock'
          ? Promise.reject(new Error('the guard is away'))
          : done.trigger({ ...request, mode });
      },
    };
    const request = { commandId: '', reason: '', requestedBy: '', traceId: '', local: false } as const;
    const { uplink } = await connect(t, { robot, target });
    await until('online', () => uplink.status().state === 'online');
    for (const [mode, id] of [
      ['emergency_stop', 'c1'],
      ['emergency_stop', 'c1'],
      ['dance', 'c2'],
      ['geofence_lock', 'c3'],
    ] as const)
      await cloud.trigger(mode, id);
    const answered = (): Set<string> => new Set(cloud.replies.map(({ commandId }) => commandId));
    await until('four answers', () => cloud.replies.length >= 4 && answered().size === 3);
    const replies = Object.fromEntries(
      cloud.replies.map(({ commandId, done, detail, latchId, traceId }) => [
        commandId,
        { done, detail, latchId, traceId },
      ]),
    );
    t.match(replies, {
      c1: { done: true, detail: 'stopped', latchId: 7, traceId: 'trace_c1' },
      c2: { done: false, detail: /mode must be one of/ },
      c3: { done: false, detail: 'the guard is away' },
    });
    t.equal(triggered, 2);
  });

  await t.test('lost batches and lost acknowledgements are sent again', async (t) => {
    const { outbox } = await connect(t, { robot });
    cloud.behaviour.loseEvery = 3;
    for (let n = 0; n < 300; n += 1) {
      outbox.appendSample(sampleOf(jointLayout('lossy'), 1000 + n));
      if (n % 10 === 9) outbox.flush();
      if (n % 100 === 0) await until('some is stored', () => outbox.stats().lanes.telemetry.records < 20);
    }
    delete cloud.behaviour.loseEvery;
    cloud.behaviour.mute = true;
    await outbox.appendEvent(eventOf(900));
    const isEvent900 = ({ body }: { body: Uint8Array }): boolean =>
      outrider.v1.EventRecord.decode(body).eventId === eventOf(900).eventId;
    await until('stored, not acknowledged', () => cloud.lane('event').some(isEvent900));
    await until('sent again', () => cloud.duplicates > 0);
    delete cloud.behaviour.mute;
    await until('drained', () => outbox.isDrained());
    t.same(cloud.problems, []);
    t.equal(counted(cloud).samples, 550);
  });

  await t.test('hostile messages are ignored: nothing is deleted, nothing falls over', async (t) => {
    const { outbox, uplink } = await connect(t, { robot, ackTimeoutMs: 60_000 });
    await until('online', () => uplink.status().state === 'online');
    cloud.behaviour.mute = true;
    await outbox.appendEvent(eventOf(901));
    const { Ack, HelloReply } = outrider.v1;
    const random = seeded(5);
    const waiting = (): number => outbox.stats().lanes.event.records;
    const { epoch } = outbox;
    for (const ack of [
      { epoch, lane: LANE_NUMBERS.event, upto: 1_000_000 },
      { epoch, lane: LANE_NUMBERS.event, upto: outbox.maxSeq('event') },
      { epoch, lane: LANE_NUMBERS.event, upto: outbox.maxSeq('event'), batchIds: [1, 2 ** 40] },
      { epoch, lane: LANE_NUMBERS.event, upto: 2 ** 60 },
      { epoch: 'ffffffffffffffff', lane: LANE_NUMBERS.event, upto: 3 },
      { epoch, lane: 99 as outrider.v1.Lane, upto: 3 },
      { epoch, lane: LANE_NUMBERS.telemetry, upto: outbox.maxSeq('telemetry') + 1 },
    ])
      await cloud.publish(downTopic(DEVICE, 'ack'), Ack.encode(ack).finish());
    await cloud.publish(downTopic(DEVICE, 'hello'), HelloReply.encode({ nonce: 'guess', epoch }).finish());
    for (const channel of ['ack', 'hello', 'keys', 'command'] as const) {
      await cloud.publish(downTopic(DEVICE, channel), Buffer.alloc(2 * 1024 * 1024, 8));
      for (let n = 0; n < 200; n += 1)
        await cloud.publish(
          downTopic(DEVICE, channel),
          Buffer.from(Array.from({ length: random() * 60 }, () => random() * 256)),
        );
    }
    await cloud.publish('outrider/v1/default.RB-1/down/ack', Buffer.alloc(0), true);
    await cloud.trigger('emergency_stop', 'after_all_that');
    await until('it still answers', () => cloud.replies.some(({ commandId }) => commandId === 'after_all_that'));
    t.ok(waiting() >= 1, 'the event is still there, and perhaps alarms beside it');
    t.equal(uplink.status().connections, 1);
    delete cloud.behaviour.mute;
    cloud.cut();
    await until('drained', () => outbox.isDrained());
  });

  await t.test(
    'what is stored under these positions and came from a copy of this database deletes nothing',
    async (t) => {
      const first = await connect(t, { robot });
      cloud.behaviour.loseEvery = 1;
      await first.outbox.appendEvent(eventOf(911));
      const [epoch, seq] = [first.outbox.epoch, first.outbox.maxSeq('event')];
      await until('sent, and lost on the way', () => first.outbox.stats().lanes.event.records > 0 && cloud.batches > 0);
      await first.stop();
      const key = `${epoch}/${LANE_NUMBERS.event}/${seq}`;
      const twin = { epoch, lane: LANE_NUMBERS.event, seq, seqTo: 0, kind: BodyKind.BODY_EVENT, origin: '' };
      cloud.records.set(key, { ...twin, body: Buffer.from('of another') });
      const { outbox, uplink } = await connect(t, { robot });
      await until('online', () => uplink.status().state === 'online');
      t.equal(cloud.watermark(epoch, LANE_NUMBERS.event), seq, 'the hello says that the position is stored');
      cloud.records.delete(key);
      delete cloud.behaviour.loseEvery;
      await until('drained', () => outbox.isDrained());
      const body = Buffer.from(cloud.records.get(key)?.body ?? []);
      t.equal(outrider.v1.EventRecord.decode(body).eventId, eventOf(911).eventId, 'it was sent again, and is stored');
    },
  );

  await t.test('a cloud that names no batches is believed as before', async (t) => {
    cloud.behaviour.isOld = true;
    const { outbox, uplink } = await connect(t, { robot });
    for (let n = 0; n < 5; n += 1) await outbox.appendEvent(eventOf(920 + n));
    await until('drained', () => outbox.isDrained());
    t.equal(uplink.status().connections, 1);
    delete cloud.behaviour.isOld;
  });

  await t.test('an old copy of the database starts a new epoch before it sends', async (t) => {
    const { outbox, stop } = await connect(t, { robot });
    const before = outbox.epoch;
    await outbox.appendEvent(eventOf(902));
    await until('drained', () => outbox.isDrained());
    await stop();
    cloud.behaviour.watermark = 1_000_000;
    const again = await connect(t, { robot });
    await again.outbox.appendEvent(eventOf(903));
    await until('drained', () => again.outbox.isDrained());
    t.not(again.outbox.epoch, before);
    t.ok(cloud.lane('event').some(({ epoch, seq }) => epoch === again.outbox.epoch && seq === 1));
  });

  await t.test('a collision starts a new epoch, and everything that waits is sent in it', async (t) => {
    const { outbox } = await connect(t, { robot });
    const before = outbox.epoch;
    cloud.behaviour.collide = true;
    await outbox.appendEvent(eventOf(904));
    await until('a new epoch', () => outbox.epoch !== before);
    await until('drained', () => outbox.isDrained());
    const again = cloud.lane('event').filter(({ epoch }) => epoch === outbox.epoch);
    t.ok(again.length > 0);
    for (const { origin, body } of again) t.same(cloud.records.get(origin)?.body, body, 'it says where it was');
  });

  await t.test('what the cloud has of a damaged file comes again with the position that it has it under', async (t) => {
    cloud.behaviour.mute = true;
    const { outbox, stop } = await connect(t, { robot });
    const before = outbox.epoch;
    for (let n = 0; n < 3; n += 1) await outbox.appendEvent(eventOf(905 + n));
    for (let i = 0; i < 40; i += 1) outbox.appendSample(sampleOf(jointLayout('salvaged'), i));
    outbox.flush();
    const lanes = ['event', 'telemetry'] as const;
    await until('stored', () =>
      lanes.every((lane) => cloud.watermark(before, LANE_NUMBERS[lane]) === outbox.maxSeq(lane)),
    );
    await stop();
    changeFile(robot.stateDir, 'ALTER TABLE state RENAME COLUMN body TO bodies');
    delete cloud.behaviour.mute;
    const second = await connect(t, { robot });
    await until('drained', () => second.outbox.isDrained());
    t.not(second.outbox.epoch, before);
    for (const lane of lanes) {
      const again = cloud.lane(lane).filter(({ epoch, origin }) => epoch === second.outbox.epoch && origin !== '');
      t.ok(again.length >= (lane === 'event' ? 3 : 1));
      for (const { origin, body } of again) {
        t.ok(origin.startsWith(before));
        t.same(cloud.records.get(origin)?.body, body, 'there it is');
      }
    }
  });

  await t.test(
    'a refused hello is shown with its sentence; silence and a record that costs the connection are got over',
    async (t) => {
      cloud.behaviour.refused = 'protocol 1 is too old; update the edge agent';
      const { uplink, stop } = await connect(t, { robot });
      await until('refused', () => uplink.status().state === 'refused');
      t.match(uplink.status().reason, /update the edge agent/);
      await stop();
      delete cloud.behaviour.refused;

      cloud.behaviour.deaf = true;
      const second = await connect(t, { robot, helloTimeoutMs: 1_000 });
      await until('no answer', () => /did not answer the hello/.test(second.uplink.status().reason));
      delete cloud.behaviour.deaf;
      await until('online', () => second.uplink.status().state === 'online');

      const poison = second.outbox.maxSeq('event') + 2;
      cloud.behaviour.poisonSeq = poison;
      for (let n = 1; n <= 3; n += 1) await second.outbox.appendEvent(eventOf(950 + n));
      await until('the poison became a gap, the others arrived', () => second.outbox.isDrained());
      const gap = cloud.lane('event').find(({ epoch, seq }) => epoch === second.outbox.epoch && seq === poison);
      t.equal(gap?.kind, BodyKind.BODY_GAP);
      delete cloud.behaviour.poisonSeq;
    },
  );

  await t.test('links that die while the cloud stores nothing cost no record', async (t) => {
    const { outbox, uplink } = await connect(t, { robot });
    await until('online', () => uplink.status().state === 'online');
    cloud.behaviour.loseEvery = 1;
    const first = outbox.maxSeq('event') + 1;
    for (let n = 1; n <= 3; n += 1) await outbox.appendEvent(eventOf(960 + n));
    for (let cut = 0; cut < 12; cut += 1) {
      const [hellos, batches] = [cloud.hellos.length, cloud.batches];
      cloud.cut();
      await until('sent again', () => cloud.hellos.length > hellos && cloud.batches > batches);
    }
    delete cloud.behaviour.loseEvery;
    await until('drained', () => outbox.isDrained());
    const kinds = cloud.lane('event').filter(({ epoch, seq }) => epoch === outbox.epoch && seq >= first);
    t.ok(kinds.length >= 3 && kinds.every(({ kind }) => kind === BodyKind.BODY_EVENT), 'no gap took a place');
  });

  await t.test('a broker under a foreign authority is not talked to, and the message says why', async (t) => {
    const other = await TestAuthority.create('Another');
    const identity = new IdentityStore(robot.stateDir).load();
    if (!identity) throw new Error('not enrolled');
    const hellos = cloud.hellos.length;
    const { uplink } = await connect(t, { robot, identity: () => ({ ...identity, ca: other.pem }) });
    await until('refused', () => /not one to trust under the pinned CA/.test(uplink.status().reason));
    t.equal(cloud.hellos.length, hellos);
    t.not(uplink.status().state, 'online');
  });

  await t.test('a certificate is renewed after two thirds of its life; a failure keeps the old one', async (t) => {
    const second = new TestRobot(cloud);
    t.teardown(() => second.close());
    cloud.validity = { ageMs: 2000, lifeMs: 86_400_000 };
    await second.enrol(cloud);
    const store = new IdentityStore(second.stateDir);
    const settings = {
      device: DEVICE,
      httpUrl: `https://localhost:${cloud.httpsPort}`,
      caFile: join(second.home, 'ca.pem'),
      caSha256: undefined,
      mqttUrl: undefined,
    };
    let renewals = 0;
    const renewal = new CertificateRenewal(settings, store, systemClock, createLogger('test', 'silent'), () => {
      renewals += 1;
    });
    t.ok(await renewal.renewIfDue());
    t.equal(renewals, 0, 'not due');
    cloud.validity = { ageMs: 70_000_000, lifeMs: 86_400_000 };
    await second.enrol(cloud);
    const old = new IdentityStore(second.stateDir).load()?.serialNumber;
    cloud.validity = { ageMs: 0, lifeMs: 86_400_000 };
    const away = new CertificateRenewal(
      { ...settings, httpUrl: 'https://localhost:1' },
      store,
      systemClock,
      silentLog,
      () => {},
    );
    t.notOk(await away.renewIfDue());
    t.equal(store.load()?.serialNumber, old);
    t.ok(await renewal.renewIfDue());
    t.equal(renewals, 1);
    t.not(store.load()?.serialNumber, old);
  });

  await t.test(
    'a robot that was away for weeks gets a new certificate by itself, whatever its clock says',
    async (t) => {
      const weeks = 28 * 86_400_000;
      for (const [name, lagMs] of [
        ['its clock is right', 0],
        ['its clock stood still', 2 * weeks],
      ] as const) {
        const second = new TestRobot(cloud);
        t.teardown(() => second.close());
        cloud.validity = { ageMs: weeks, lifeMs: 86_400_000 };
        await second.enrol(cloud);
        cloud.validity = { ageMs: 0, lifeMs: 86_400_000 };
        const identities = new IdentityStore(second.stateDir);
        const expired = identities.load()?.serialNumber;
        const clock = {
          epochMs: () => (systemClock.epochMs() - lagMs) as EpochMs,
          monotonicMs: () => systemClock.monotonicMs(),
        };
        const settings = {
          device: DEVICE,
          httpUrl: `https://localhost:${cloud.httpsPort}`,
          caFile: join(second.home, 'ca.pem'),
          caSha256: undefined,
          mqttUrl: undefined,
        };
        const lines: string[] = [];
        const log = createLogger('test', 'info', { write: (line) => void lines.push(line) });
        const renewal = new CertificateRenewal(settings, identities, clock, log, () => {});
        if (lagMs > 0) t.ok(await renewal.renewIfDue(), 'by its own clock nothing is due');
        const reasons: string[] = [];
        const { uplink, stop } = await connect(t, {
          robot: second,
          clock,
          onConnectFailed: () => {
            reasons.push(uplink.status().reason);
            void renewal.reconsider();
          },
        });
        await until(`online: ${name}`, () => uplink.status().state === 'online');
        t.not(identities.load()?.serialNumber, expired);
        if (lagMs === 0) t.match(reasons[0], /this robot's certificate (expired on|has expired)/);
        else t.match(lines.join(''), /"msg":"clock\.wrong"/, 'and the clock is said to be wrong');
        await stop();
      }
      const third = new TestRobot(cloud);
      t.teardown(() => third.close());
      await third.enrol(cloud);
      const store = new IdentityStore(third.stateDir);
      const before = store.load()?.serialNumber;
      const settings = {
        device: DEVICE,
        httpUrl: `https://localhost:${cloud.httpsPort}`,
        caFile: join(third.home, 'ca.pem'),
        caSha256: undefined,
        mqttUrl: undefined,
      };
      await new CertificateRenewal(settings, store, systemClock, silentLog, () => {}).reconsider();
      t.equal(
        store.load()?.serialNumber,
        before,
        'a certificate that has not ended is not replaced: it may be revoked',
      );
    },
  );

  await t.test('a certificate out of its time by this clock is said to be a matter of the clock', async (t) => {
    for (const [ageMs, words] of [
      [-86_400_000, /is not valid yet by this robot's clock, which says \d{4}-.*set the clock/],
      [10 * 86_400_000, /has expired by this robot's clock, which says \d{4}-.*set the clock/],
    ] as const) {
      const { key, cert } = await cloud.authority.server(ageMs);
      const server = createHttpsServer({ key, cert }, (_request, response) => response.end());
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      t.teardown(() => new Promise((resolve) => server.close(resolve)));
      const second = new TestRobot(cloud, {
        cloud: { http_url: `https://localhost:${(server.address() as AddressInfo).port}`, ca_file: 'ca.pem' },
      });
      t.teardown(() => second.close());
      const { code, stderr } = await second.command('enroll', '--api-key', cloud.apiKey);
      t.equal(code, 1);
      t.match(stderr, words);
    }
  });
  t.same(cloud.problems, []);
});

t.test('the command line: status, queue, metrics, and messages that name the option', async (t) => {
  const cloud = await TestCloud.start();
  const robot = new TestRobot(cloud, { local_api: { metrics_port: 0 } });
  t.teardown(async () => {
    await robot.close();
    await cloud.close();
  });
  const source = writeRecording(join(robot.home, 'drive.csv'), 2000);
  writeFileSync(
    robot.configFile,
    `${readFileSync(robot.configFile, 'utf8')}sources: [${JSON.stringify({ ...source, speed: 5 })}]\n`,
  );
  const away = await robot.command('status');
  t.equal(away.code, 69);
  t.match(away.stderr, /does not answer on .*edge\.sock/);
  const readyFile = join(robot.home, 'ready.json');
  const agent = robot.start('run', '--ready-file', readyFile);
  await until('ready', () => statSync(readyFile, { throwIfNoEntry: false }) !== undefined);
  const ready = JSON.parse(readFileSync(readyFile, 'utf8')) as { metrics_port: number; socket: string };
  t.equal(statSync(ready.socket).mode & 0o777, 0o600);
  const json = async (): Promise<AgentStatus> =>
    JSON.parse((await robot.command('status', '--json')).stdout) as AgentStatus;
  t.match(await json(), {
    robot: { id: 'RB-1', tenant: 'default' },
    link: { state: 'not_enrolled' },
    certificate: null,
  });
  const second = await robot.command('run');
  t.equal(second.code, 1);
  t.match(second.stderr, /in use by another agent/);
  await robot.enrol(cloud);
  await until('online', async () => (await json()).link.state === 'online');
  const { stdout } = await robot.command('status');
  t.match(stdout, /link +online mqtts:\/\/localhost/);
  t.match(stdout, /replay: (running|finished)/);
  t.match((await robot.command('queue')).stdout, /telemetry +\d+/);
  let metrics = '';
  await until('an acknowledgement of telemetry', async () => {
    metrics = await (await fetch(`http://127.0.0.1:${ready.metrics_port}/metrics`)).text();
    return metrics.includes('outrider_edge_ack_latency_ms_count{lane="telemetry"}');
  });
  t.match(metrics, /outrider_edge_link_up 1/);
  t.match(metrics, /outrider_edge_outbox_committed_samples \d+/);
  t.match(metrics, /outrider_edge_ack_latency_ms_count\{lane="telemetry"\} \d+/);
  t.equal(
    (await fetch(`http://127.0.0.1:${ready.metrics_port}/failsafe/trigger`, { method: 'POST' })).status,
    404,
    'no stop over TCP',
  );
  const stop = await robot.command('failsafe', 'trigger', 'emergency_stop');
  t.equal(stop.code, 69);
  t.match(stop.stderr, /without a guard/);
  t.match((await robot.command('failsafe', 'trigger', 'dance')).stderr, /mode: /);
  agent.kill('SIGTERM');
  t.equal(await exited(agent), 0);

  const check = async (settings: object): Promise<string> => {
    const bad = new TestRobot(cloud, settings);
    const { code, stderr } = await bad.command('config', 'check');
    await bad.close();
    return `${code} ${stderr}`;
  };
  t.match(await check({ outbox: { commit_interval_ms: 1 } }), /^78 .*outbox\.commit_interval_ms: /);
  t.match(await check({ outbox: { size: 1 } }), /^78 .*outbox: .*size/);
  t.match(await check({ robot: { id: 'a.b' } }), /^78 .*robot\.id: must be 1 to 43 characters/);
  t.match(await check({ sources: [{ type: 'serial', path: '/dev/x', baud: 1 }] }), /^78 .*sources\[0\]\.baud: /);
  t.match(await check({ state_dir: `s${'x'.repeat(120)}` }), /^78 .*local_api\.socket: .*107/);
  t.match(await check({ cloud: { http_url: 'ftp://x' } }), /^78 .*cloud\.http_url: must be a URL/);
  const usage = await robot.command('run', '--speed', 'fast');
  t.equal(usage.code, 2);
});

t.test('a transition becomes an event; a new latch becomes a trigger too', (t) => {
  const transition = {
    transitionId: 3,
    atMs: 1000,
    fromPhase: 'ARMED',
    toPhase: 'LATCHED',
    mode: 'thermal_shutdown',
    action: 'STOP1',
    latchId: 5,
    traceId: 'req_1',
  };
  const types = (from: string, to: string, latchId: number, previous?: number): string[] =>
    transitionEvents({ ...transition, fromPhase: from, toPhase: to, latchId }, previous).map(({ type }) => type);
  t.same(types('ARMED', 'LATCHED', 5), ['failsafe.transition.v1', 'failsafe.triggered.v1']);
  t.same(types('LATCHED', 'LATCHED', 6, 5), ['failsafe.transition.v1', 'failsafe.triggered.v1']);
  t.same(types('LATCHED', 'LATCHED', 5, 5), ['failsafe.transition.v1']);
  t.same(types('LATCHED', 'RECOVERING', 5, 5), ['failsafe.transition.v1']);
  const [first, again] = [transitionEvents(transition, 4), transitionEvents(transition, 4)];
  t.same(first, again, 'the same transition has the same ids');
  t.ok(first.every(({ traceId }) => traceId === 'req_1'));
  for (const { type, payload } of first) {
    const schema = eventSchema(type) as { properties: { payload: { required: string[] } } };
    t.same(Object.keys(payload as object).sort(), schema.properties.payload.required.toSorted(), type);
  }
  t.end();
});
