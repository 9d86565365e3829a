import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import type { Clock, EpochMs, MonotonicMs } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import { cobsEncode } from './cobs.ts';
import { crc32 } from './crc.ts';
import { FakePort } from './fake-port.ts';
import { encodeFrame } from './frame.ts';
import { McuLink, type McuLinkOptions } from './link.ts';
import { McuClock } from './mcu-clock.ts';
import { decodeMessage, type McuHello, type Message, type MessageKind, type MessageOf } from './messages.ts';
import { FrameParser } from './parser.ts';
import { FrameWriter } from './writer.ts';

/** Time that the test moves. */
class SteppedClock implements Clock {
  monoMs = 10_000;
  wallMs = 1_760_000_000_000;

  epochMs(): EpochMs {
    return this.wallMs as EpochMs;
  }

  monotonicMs(): MonotonicMs {
    return this.monoMs as MonotonicMs;
  }

  pass(ms: number): void {
    this.monoMs += ms;
    this.wallMs += ms;
  }
}

const HELLO: McuHello = {
  kind: 'mcu_hello',
  mcuUs: 500_000,
  session: 0,
  hostMonoUs: 0,
  bootNonce: 0xabcd,
  state: 'DISARMED',
  stopReason: 'boot',
  capabilities: 7,
  frameBytesMax: 2060,
  leaseMs: 300,
  jointsHz: 50,
  imuHz: 50,
  powerHz: 10,
  temperatureHz: 5,
  statusHz: 10,
  firmware: 'scripted 1',
  jointNames: ['hip', 'knee'],
  sensorNames: ['board'],
};

/** The other end of the line: does what the test says and nothing more. */
class ScriptedMcu {
  readonly heard: Message[] = [];
  readonly port: FakePort;
  readonly #writer: FrameWriter;
  #hello: McuHello | undefined = HELLO;
  #changed: () => void = () => {};

  constructor(port: FakePort) {
    this.port = port;
    this.#writer = new FrameWriter((bytes) => port.write(bytes));
    const parser = new FrameParser((frame) => {
      const outcome = decodeMessage(frame);
      if (outcome.kind !== 'message') throw new Error(`the host sent ${outcome.kind}`);
      const { message } = outcome;
      this.heard.push(message);
      if (message.kind === 'host_hello' && this.#hello !== undefined) {
        this.send({ ...this.#hello, session: message.session, hostMonoUs: message.hostMonoUs });
      }
      this.#changed();
    });
    port.onData((bytes) => parser.push(bytes));
  }

  /** What it answers to HELLO; `undefined` for nothing. */
  answerHelloWith(hello: McuHello | undefined): void {
    this.#hello = hello;
  }

  send(message: Message): void {
    this.#writer.send(message);
  }

  /** All messages of a kind, once there are `count`. */
  async hears<K extends MessageKind>(kind: K, count = 1): Promise<MessageOf<K>[]> {
    for (;;) {
      const found = this.heard.filter((message): message is MessageOf<K> & Message => message.kind === kind);
      if (found.length >= count) return found;
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

function rig(t: Test, options: Partial<McuLinkOptions> = {}): { link: McuLink; mcu: ScriptedMcu; clock: SteppedClock } {
  const [near, far] = FakePort.pair();
  const clock = new SteppedClock();
  const mcu = new ScriptedMcu(far);
  const link = new McuLink({
    port: near,
    clock,
    ackTimeoutMs: 10,
    helloIntervalMs: 10,
    helloTimeoutMs: 200,
    ...options,
  });
  t.teardown(() => link.close());
  return { link, mcu, clock };
}

const samplesOf = (link: McuLink): Sample[] => {
  const samples: Sample[] = [];
  link.onSample((sample) => samples.push(sample));
  return samples;
};

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const joints = (mcuUs: number, position = [0.1, 0.2]): Message => ({
  kind: 'joints',
  mcuUs,
  positionRad: Float64Array.from(position),
  velocityRadps: Float64Array.of(0, 0),
  torqueNm: Float64Array.of(1, 2),
  temperatureC: Float64Array.of(30, 31),
});
const status = (bootNonce: number): Message => ({
  kind: 'status',
  mcuUs: 1,
  uptimeMs: 1500,
  bootNonce,
  flags: 0,
  state: 'DISARMED',
  stopReason: 'boot',
  motionEpoch: 0,
  leaseAgeMs: 0xffffffff,
  rxFramesOk: 0,
  rxCrcBad: 0,
  rxCobsBad: 0,
  rxOversize: 0,
  rxMalformed: 0,
  rxLost: 0,
  heartbeatsStale: 0,
  txDropped: 0,
});

t.test('HELLO is repeated until it is answered, and the answer to another host is not ours', async (t) => {
  const { link, mcu } = rig(t);
  mcu.answerHelloWith(undefined);
  const connected = link.connect();
  await mcu.hears('host_hello', 3);
  mcu.send({ ...HELLO, session: 1 });
  await settled();
  t.equal(link.isConnected, false);
  mcu.answerHelloWith(HELLO);
  t.equal((await connected).firmware, 'scripted 1');
  t.equal(link.isConnected, true);
});

t.test('a command is sent again under the same number until it is answered', async (t) => {
  const { link, mcu } = rig(t);
  await link.connect();
  const arming = link.arm({ motionEpoch: 4 });
  const arms = await mcu.hears('arm', 3);
  t.strictSame(new Set(arms.map(({ commandId }) => commandId)).size, 1);
  t.match(arms[0], { bootNonce: 0xabcd, motionEpoch: 4 });
  const commandId = arms[0]?.commandId ?? 0;
  mcu.send({
    kind: 'nack',
    mcuUs: 1,
    commandId: commandId + 1,
    commandType: 5,
    state: 'DISARMED',
    reason: 'bad_nonce',
  });
  mcu.send({ kind: 'ack', mcuUs: 1, commandId, commandType: 5, state: 'ARMED', reason: 'none' });
  t.strictSame(await arming, { kind: 'accepted', state: 'ARMED' });
});

t.test('a command that nobody answers fails after its retries, and a closed line fails it at once', async (t) => {
  const { link, mcu } = rig(t, { ackRetries: 2 });
  await link.connect();
  t.strictSame(await link.hold(), { kind: 'failed', reason: 'timeout' });
  t.equal((await mcu.hears('hold')).length, 3);
  const stopping = link.stop();
  link.close();
  t.strictSame(await stopping, { kind: 'failed', reason: 'closed' });
  t.strictSame(await link.stop(), { kind: 'failed', reason: 'closed' });
});

t.test('stop and hold cancel what could still start motion, and nothing else', async (t) => {
  const { link, mcu } = rig(t, { ackTimeoutMs: 5000 });
  await link.connect();
  const arming = link.arm({ motionEpoch: 1 });
  const rate = link.setRate('imu', 10);
  void link.stop();
  t.strictSame(await arming, { kind: 'failed', reason: 'cancelled' });
  const [sent] = await mcu.hears('set_rate');
  mcu.send({
    kind: 'ack',
    mcuUs: 1,
    commandId: sent?.commandId ?? 0,
    commandType: 8,
    state: 'STOPPED',
    reason: 'none',
  });
  t.match(await rate, { kind: 'accepted' });
});

t.test('commands before the handshake fail, but a stop is sent', async (t) => {
  const { link, mcu } = rig(t);
  t.strictSame(await link.arm({ motionEpoch: 1 }), { kind: 'failed', reason: 'not_connected' });
  void link.stop();
  t.equal((await mcu.hears('stop')).length, 1);
});

t.test('at most 64 commands wait; a stop always finds room', async (t) => {
  const { link, mcu } = rig(t, { ackTimeoutMs: 5000 });
  await link.connect();
  const waiting = Array.from({ length: 65 }, () => link.setRate('imu', 1));
  t.strictSame(await waiting[64], { kind: 'failed', reason: 'busy' });
  void link.stop();
  t.equal((await mcu.hears('stop')).length, 1);
  link.close();
  t.match(await waiting[0], { reason: 'closed' });
});

t.test('a value that cannot stand on the line is refused to the caller, and nothing waits for it', async (t) => {
  const { link } = rig(t);
  await link.connect();
  await t.rejects(link.arm({ motionEpoch: -1 }), { message: /-1 is not a whole number/ });
  t.throws(() => link.sendHeartbeat({ gateOpen: true, motionEpoch: 1.5 }), { message: /1\.5/ });
});

t.test('another protocol version is named as the reason', async (t) => {
  const { link, mcu } = rig(t);
  mcu.answerHelloWith(undefined);
  const plain = new Uint8Array(16);
  plain.set([2, 0x81, 4]);
  new DataView(plain.buffer).setUint32(12, crc32(plain.subarray(0, 12)), true);
  mcu.port.write(Uint8Array.from([...cobsEncode(plain), 0]));
  await t.rejects(link.connect(), { code: 'unsupported', message: /speaks protocol 2, this program 1/ });
});

t.test('an MCU that sends but does not hear is named as such, and giving up ends the asking', async (t) => {
  const { link, mcu } = rig(t);
  mcu.answerHelloWith(undefined);
  mcu.send(status(1));
  await t.rejects(link.connect(), { code: 'timeout', message: /does not hear us/ });
  const giveUp = new AbortController();
  const waiting = link.connect(giveUp.signal);
  giveUp.abort();
  await t.rejects(waiting, { code: 'unavailable' });
});

t.test('a reset is seen by the STATUS alone, and fails what was waiting', async (t) => {
  const { link, mcu } = rig(t, { ackTimeoutMs: 5000 });
  await link.connect();
  const samples = samplesOf(link);
  const arming = link.arm({ motionEpoch: 1 });
  const reset = new Promise<McuHello>((resolve) => link.onReset(resolve));
  mcu.answerHelloWith({ ...HELLO, bootNonce: 0x9999, jointNames: ['knee', 'hip'] });
  mcu.send(status(0x9999));
  t.strictSame(await arming, { kind: 'failed', reason: 'reset' });
  t.equal((await reset).bootNonce, 0x9999);
  mcu.send(joints(10));
  mcu.send(joints(20));
  await settled();
  t.strictSame(
    samples.map(({ layout, flags }) => [layout.names, flags]),
    [
      [['knee', 'hip'], SAMPLE_FLAGS.namesChanged],
      [['knee', 'hip'], 0],
    ],
  );
  t.match(link.stats, { mcuResets: 1, unexpected: 1 }, 'the STATUS before the handshake is no sample');
});

t.test('what is unknown, malformed or not as announced is counted and passed over', async (t) => {
  const { link, mcu } = rig(t);
  mcu.send(joints(1));
  await settled();
  await link.connect();
  const samples = samplesOf(link);
  const three = new Float64Array(3);
  mcu.send({
    kind: 'joints',
    mcuUs: 2,
    positionRad: three,
    velocityRadps: three,
    torqueNm: three,
    temperatureC: three,
  });
  mcu.send({ kind: 'temperature', mcuUs: 3, temperatureC: Float64Array.of(1, 2) });
  mcu.port.write(encodeFrame({ type: 0xee, sequence: 0, payload: new Uint8Array() }));
  mcu.port.write(encodeFrame({ type: 0x91, sequence: 0, payload: new Uint8Array(47) }));
  mcu.send(joints(4));
  await settled();
  t.equal(samples.length, 1);
  t.match(link.stats, { unexpected: 3, unknownTypes: 1, malformed: 1 });
});

t.test('values keep their bits, and oddities become flags', async (t) => {
  const { link, mcu, clock } = rig(t);
  await link.connect();
  const samples = samplesOf(link);
  const odd = Math.fround(0.1);
  mcu.send(joints(1000, [odd, -0]));
  mcu.send(joints(2000, [Number.NaN, 1]));
  mcu.send(joints(1500, [2000, 1]));
  mcu.send({ kind: 'power', mcuUs: 1, voltageV: 50, currentA: 1, stateOfCharge: 8, drawW: 50 });
  mcu.send({
    kind: 'imu',
    mcuUs: 1,
    orientation: new Float64Array(4),
    angularVelocityRadps: new Float64Array(3),
    linearAccelerationMps2: new Float64Array(3),
  });
  mcu.send({ kind: 'temperature', mcuUs: 1, temperatureC: Float64Array.of(-100) });
  mcu.send(status(0xabcd));
  clock.pass(5);
  await settled();
  const { nonFinite, outOfRange, stampBackwards } = SAMPLE_FLAGS;
  t.strictSame(
    samples.map(({ layout, flags }) => [layout.stream, flags]),
    [
      ['mcu/joint_state', 0],
      ['mcu/joint_state', nonFinite],
      ['mcu/joint_state', outOfRange | stampBackwards],
      ['mcu/power', outOfRange],
      ['mcu/imu', outOfRange],
      ['mcu/temperature', outOfRange],
      ['mcu/status', 0],
    ],
  );
  t.equal(samples[0]?.values[0], odd);
  t.ok(Object.is(samples[0]?.values[1], -0));
  t.strictSame(samples[6]?.layout.tags, { firmware: 'scripted 1', boot_nonce: '0000abcd' });
  t.strictSame([...(samples[6]?.values ?? [])].slice(0, 5), [0, 0, 1, 1.5, Number.NaN]);
});

t.test('a stuck line refuses frames, and the refused numbers show as losses', async (t) => {
  const { link, mcu } = rig(t);
  await link.connect();
  link.sendHeartbeat({ gateOpen: false, motionEpoch: 0 });
  await mcu.hears('heartbeat');
  const [near] = [mcu.port];
  near.stuck = true;
  mcu.send(joints(1));
  near.stuck = false;
  mcu.send(joints(2));
  await settled();
  t.equal(link.stats.lost, 1);
});

t.test('MCU time becomes our time: least delayed round trip, slow drift, and set clocks', async (t) => {
  const clock = new SteppedClock();
  const mcuClock = new McuClock(clock);
  t.equal(mcuClock.stampNs(5), 0n, 'no stamp before the first round trip');
  // The MCU's zero is at our 9,000 ms. Sent at 10,000 ms, answered at 10,004 ms, MCU in the middle.
  const sentUs = mcuClock.monotonicUs();
  clock.pass(4);
  t.equal(mcuClock.roundTrip(sentUs, 1_002_000), 4);
  const wallNs = (ms: number): bigint => BigInt(1_760_000_000_000 + ms) * 1_000_000n;
  t.equal(mcuClock.stampNs(1_002_000), wallNs(2));
  clock.pass(1000);
  t.equal(mcuClock.stampNs(2_000_000), wallNs(1000), 'does not depend on when it is asked');
  clock.wallMs += 3; // the wall clock's own steps do not show
  t.equal(mcuClock.stampNs(2_000_000), wallNs(1000));
  clock.wallMs += 3_600_000; // a set clock does
  t.equal(mcuClock.stampNs(2_000_000), wallNs(1000 + 3 + 3_600_000));
  // Delayed answers among prompt ones change nothing: the best of the window counts.
  let last = mcuClock.stampNs(5_000_000);
  for (let i = 0; i < 1000; i += 1) {
    const atUs = mcuClock.monotonicUs();
    const mcuUs = atUs - 9_000_000 + 500;
    clock.pass(i % 3 === 0 ? 1 : 15);
    mcuClock.roundTrip(atUs, mcuUs);
    const stamp = mcuClock.stampNs(5_000_000);
    const movedNs = Number(stamp > last ? stamp - last : last - stamp);
    if (movedNs > 15_000) t.fail(`the stamp moved by ${movedNs} ns at once`);
    last = stamp;
  }
  const errorNs = Number(mcuClock.stampNs(5_000_000) - wallNs(4000 + 3 + 3_600_000));
  t.ok(Math.abs(errorNs) < 20_000, `${errorNs} ns off after a thousand uneven round trips`);
  mcuClock.reset();
  t.equal(mcuClock.stampNs(5), 0n);
});

t.test('the round trip of heartbeats is measured', async (t) => {
  const { link, mcu, clock } = rig(t);
  await link.connect();
  for (const delayMs of [3, 8]) {
    link.sendHeartbeat({ gateOpen: true, motionEpoch: 2 });
    const beats = await mcu.hears('heartbeat');
    const beat = beats.at(-1);
    await settled();
    clock.pass(delayMs);
    const echoed = new Promise((resolve) => link.onEcho(resolve));
    mcu.send({
      kind: 'heartbeat_echo',
      mcuUs: 600_000,
      counter: beat?.counter ?? 0,
      hostMonoUs: clock.monoMs * 1000 - delayMs * 1000,
      state: 'ARMED',
      fresh: true,
    });
    await echoed;
  }
  t.match(link.stats, { rttMs: 8, rttMsMin: 3, rttMsMax: 8 });
  const beats = await mcu.hears('heartbeat', 2);
  t.strictSame(
    beats.map(({ counter }) => counter),
    [1, 2],
  );
});
