import type { KeyObject } from 'node:crypto';
import { randomBytes, randomInt, verify } from 'node:crypto';
import { deviceName } from '@outrider/shared/ids';
import { outrider } from '@outrider/shared/messages';
import { BATCH_BYTES_MAX, bodyCrc } from '@outrider/shared/protocol/codec';
import { instructionBytes, isKeyListSigned, publicKeyOf } from '@outrider/shared/protocol/instruction';
import { downFilter, presenceTopic, upTopic } from '@outrider/shared/protocol/topics';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import { Backoff } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import type { BlockTemplate } from './block-template.ts';
import type { Latencies } from './latencies.ts';
import { ARMED, SimStates } from './sim-states.ts';
import { WireClient } from './wire-client.ts';

const { Ack, BodyKind, CommandReply, Hello, HelloReply, Lane, PresenceReport, UplinkBatch } = outrider.v1;
const { Instruction, InstructionKeyList, SignedInstruction, SignedKeyList } = outrider.v1;

/** As the edge agent has them by default (`uplink.window_batches` and `ack_timeout_ms` of edge.yaml). */
const WINDOW_BATCHES = 4;
const ACK_TIMEOUT_MS = 10_000;
const RESENDS_MAX = 3;
const RECONNECT_FIRST_MS = 500;
const RECONNECT_MAX_MS = 30_000;
const PING_AFTER_MS = 20_000;
const RECORD_EXTRA_BYTES = 64;

export interface SimCredentials {
  readonly tenantId: string;
  readonly robotId: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** What all robots of a process count together. */
export interface RobotTally {
  samplesMade: number;
  samplesAcknowledged: number;
  batchesSent: number;
  resends: number;
  reconnects: number;
  connected: number;
  refused: number;
  collisions: number;
  instructions: number;
  instructionsRefused: number;
  lastReason: string;
  /** From handing a batch to the socket to the acknowledgement that covers it. */
  ack: Latencies;
}

interface Kept {
  readonly seq: number;
  readonly body: Uint8Array;
  readonly samples: number;
}

interface InFlight {
  readonly upto: number;
  readonly sentMs: number;
}

export interface SimRobotOptions {
  readonly credentials: SimCredentials;
  readonly host: string;
  readonly port: number;
  readonly caPem: string;
  readonly localAddress?: string;
  readonly templates: readonly BlockTemplate[];
  /** Takes the broker's own acknowledgement for the cloud's: for brokers that nothing stands behind. */
  readonly isBrokerAlone?: boolean;
  readonly tally: RobotTally;
}

/**
 * A robot as far as the cloud can tell: it keeps what it recorded until the cloud says that it is stored, sends again
 * what is not acknowledged in time, says hello on each connection, and does what is ordered only when the order is
 * signed by a key that the authority vouches for.
 */
export class SimRobot {
  readonly #options: SimRobotOptions;
  readonly #wire: WireClient;
  readonly #epoch = randomBytes(8).toString('hex');
  readonly #bootId = randomBytes(8).toString('hex');
  readonly #device: { tenantId: string; robotId: string };
  readonly #backoff = new Backoff(RECONNECT_FIRST_MS, RECONNECT_MAX_MS);
  readonly #telemetryTopic: string;
  readonly #states: SimStates;
  readonly #keys = new Map<string, KeyObject>();
  #kept: Kept[] = [];
  #inFlight: InFlight[] = [];
  #nextSeq = 1;
  #sentUpto = 0;
  #resends = 0;
  #isGreeted = false;
  #isEnding = false;
  #wasOpen = false;
  #latches = 0;
  #counterSeen = 0;
  #template: number;
  #spokeMs = 0;

  constructor(options: SimRobotOptions) {
    this.#options = options;
    const { credentials, host, port, caPem, localAddress, templates } = options;
    this.#device = { tenantId: credentials.tenantId, robotId: credentials.robotId };
    this.#telemetryTopic = upTopic(this.#device, 'telemetry');
    const stateTopic = upTopic(this.#device, 'state');
    this.#states = new SimStates(this.#epoch, this.#bootId, (payload) => this.#wire.publish(stateTopic, payload));
    this.#template = Math.floor(Math.random() * templates.length);
    this.#wire = new WireClient({
      host,
      port,
      caPem,
      certificatePem: credentials.certificatePem,
      keyPem: credentials.keyPem,
      clientId: deviceName(this.#device),
      filter: downFilter(this.#device),
      ...(localAddress === undefined ? {} : { localAddress }),
      onOpen: () => this.#greet(),
      onMessage: (topic, payload) => this.#hear(topic.slice(topic.lastIndexOf('/') + 1), payload),
      onTaken: () => {
        if (options.isBrokerAlone === true) this.#advance(this.#inFlight[0]?.upto ?? 0);
      },
      onClose: (reason) => this.#closed(reason),
    });
  }

  get robotId(): string {
    return this.#device.robotId;
  }

  /** Whether the cloud has answered its hello. */
  get isGreeted(): boolean {
    return this.#isGreeted;
  }

  /** Records that the cloud has not acknowledged. */
  get keptCount(): number {
    return this.#kept.length;
  }

  start(): void {
    this.#wire.connect();
  }

  stop(): void {
    this.#isEnding = true;
    this.#wire.close();
  }

  /** Records one block, whose last sample is of now, and sends what may be sent. */
  record(): void {
    const { templates } = this.#options;
    this.#template = (this.#template + 1) % templates.length;
    const template = templates[this.#template] as BlockTemplate;
    this.append(template.at(systemClock.epochMs()), template.rows);
  }

  /** Records this block as one record more, in its turn. */
  append(body: Uint8Array, samples: number): void {
    this.#kept.push({ seq: this.#nextSeq, body, samples });
    this.#nextSeq += 1;
    this.#options.tally.samplesMade += samples;
    this.#fill();
  }

  /** Looks after what waits; call it about once a second. */
  tend(): void {
    if (!this.#wire.isOpen) return;
    const nowMs = systemClock.monotonicMs();
    if (this.#isGreeted && this.#options.isBrokerAlone !== true) this.#states.tend(nowMs);
    const oldest = this.#inFlight[0];
    if (oldest && nowMs - oldest.sentMs >= ACK_TIMEOUT_MS) {
      this.#resends += 1;
      this.#options.tally.resends += 1;
      if (this.#resends > RESENDS_MAX) {
        this.#wire.close();
        return;
      }
      this.#sentUpto = (this.#kept[0]?.seq ?? this.#nextSeq) - 1;
      this.#inFlight = [];
      this.#fill();
    } else if (nowMs - this.#spokeMs > PING_AFTER_MS) {
      this.#spokeMs = nowMs;
      this.#wire.ping();
    }
  }

  #fill(): void {
    while (this.#isGreeted && this.#inFlight.length < WINDOW_BATCHES) {
      const firstKept = this.#kept[0]?.seq ?? this.#nextSeq;
      const from = this.#sentUpto + 1 - firstKept;
      const records: Kept[] = [];
      let bytes = 0;
      for (let at = Math.max(0, from); at < this.#kept.length; at += 1) {
        const kept = this.#kept[at] as Kept;
        bytes += kept.body.length + RECORD_EXTRA_BYTES;
        if (records.length > 0 && bytes > BATCH_BYTES_MAX) break;
        records.push(kept);
      }
      const last = records.at(-1);
      if (!last) return;
      const payload = UplinkBatch.encode({
        protocolVersion: PROTOCOL_VERSION,
        epoch: this.#epoch,
        lane: Lane.LANE_TELEMETRY,
        batchId: randomInt(1, 2 ** 48 - 1),
        records: records.map(({ seq, body }) => ({
          seq,
          body,
          crc: bodyCrc(body),
          bootId: this.#bootId,
          kind: BodyKind.BODY_TELEMETRY,
        })),
      }).finish();
      const sentMs = systemClock.monotonicMs();
      this.#sentUpto = last.seq;
      this.#spokeMs = sentMs;
      this.#inFlight.push({ upto: last.seq, sentMs });
      this.#options.tally.batchesSent += 1;
      this.#wire.publish(this.#telemetryTopic, payload);
    }
  }

  #greet(): void {
    const { tally } = this.#options;
    tally.connected += 1;
    if (this.#wasOpen) tally.reconnects += 1;
    this.#wasOpen = true;
    this.#spokeMs = systemClock.monotonicMs();
    if (this.#options.isBrokerAlone === true) {
      this.#isGreeted = true;
      return;
    }
    const wallMs = systemClock.epochMs();
    const birth = PresenceReport.encode({
      presence: 'ONLINE',
      atMs: wallMs,
      bootId: this.#bootId,
      agentVersion: 'load',
    });
    this.#wire.publish(presenceTopic(this.#device), birth.finish());
    const range = {
      lane: Lane.LANE_TELEMETRY,
      maxSeq: this.#nextSeq - 1,
      oldestSeq: this.#kept[0]?.seq ?? this.#nextSeq,
    };
    const hello = { protocolVersion: PROTOCOL_VERSION, epoch: this.#epoch, bootId: this.#bootId, agentVersion: 'load' };
    this.#wire.publish(
      upTopic(this.#device, 'hello'),
      Hello.encode({ ...hello, wallMs, nonce: 'load', lanes: [range] }).finish(),
    );
    const timer = setTimeout(() => {
      if (!this.#isGreeted && this.#wire.isOpen) this.#wire.close();
    }, ACK_TIMEOUT_MS);
    timer.unref();
  }

  #hear(channel: string, payload: Buffer): void {
    if (channel === 'ack') this.#acknowledged(Ack.decode(payload));
    else if (channel === 'hello') this.#answered(HelloReply.decode(payload));
    else if (channel === 'keys') this.#learnKeys(payload);
    else if (channel === 'command') this.#obey(payload);
  }

  #answered(reply: outrider.v1.HelloReply): void {
    if (reply.refused !== '') {
      this.#options.tally.refused += 1;
      this.#options.tally.lastReason = reply.refused;
      return;
    }
    const upto = reply.lanes.find(({ lane }) => lane === Lane.LANE_TELEMETRY)?.upto ?? 0;
    this.#states.greeted(reply.lanes.find(({ lane }) => lane === Lane.LANE_STATE)?.upto ?? 0);
    this.#drop(upto);
    this.#inFlight = [];
    this.#sentUpto = (this.#kept[0]?.seq ?? this.#nextSeq) - 1;
    this.#isGreeted = true;
    this.#resends = 0;
    this.#backoff.reset();
    this.#fill();
  }

  #acknowledged(ack: outrider.v1.Ack): void {
    if (ack.epoch !== this.#epoch) return;
    if (ack.collision) this.#options.tally.collisions += 1;
    if (ack.lane === Lane.LANE_STATE) this.#states.acknowledged(ack.upto);
    if (ack.lane !== Lane.LANE_TELEMETRY) return;
    this.#advance(ack.upto);
  }

  #advance(upto: number): void {
    const nowMs = systemClock.monotonicMs();
    while (this.#inFlight[0] && this.#inFlight[0].upto <= upto) {
      this.#options.tally.ack.add(nowMs - this.#inFlight[0].sentMs);
      this.#inFlight.shift();
    }
    this.#resends = 0;
    this.#drop(upto);
    this.#fill();
  }

  #drop(upto: number): void {
    let count = 0;
    for (const kept of this.#kept) {
      if (kept.seq > upto) break;
      this.#options.tally.samplesAcknowledged += kept.samples;
      count += 1;
    }
    if (count > 0) this.#kept.splice(0, count);
    this.#sentUpto = Math.max(this.#sentUpto, upto);
  }

  #closed(reason: string): void {
    const { tally } = this.#options;
    if (this.#isGreeted) tally.connected -= 1;
    this.#isGreeted = false;
    this.#inFlight = [];
    if (this.#isEnding) return;
    tally.lastReason = reason;
    setTimeout(() => {
      if (!this.#isEnding) this.#wire.connect();
    }, this.#backoff.nextMs());
  }

  #learnKeys(payload: Buffer): void {
    const list = SignedKeyList.decode(payload);
    if (!isKeyListSigned(list, this.#options.caPem)) return;
    this.#keys.clear();
    for (const { keyId, publicKey } of InstructionKeyList.decode(list.payload).keys) {
      const key = publicKeyOf(publicKey ?? new Uint8Array());
      if (key && keyId) this.#keys.set(keyId, key);
    }
  }

  #obey(payload: Buffer): void {
    const { tally } = this.#options;
    const signed = SignedInstruction.decode(payload);
    const key = this.#keys.get(signed.keyId);
    const isAuthentic = key !== undefined && verify(null, instructionBytes(signed.payload), key, signed.signature);
    const order = Instruction.decode(signed.payload);
    const isMine = order.tenantId === this.#device.tenantId && order.robotId === this.#device.robotId;
    const isGood = isAuthentic && isMine;
    if (isGood) tally.instructions += 1;
    else tally.instructionsRefused += 1;
    this.#counterSeen = Math.max(this.#counterSeen, order.counter);
    const isCommand = order.verb === 'command';
    if (order.verb === 'trigger') this.#latches += 1;
    const reply = {
      commandId: order.commandId,
      verb: order.verb,
      traceId: order.traceId,
      atMs: systemClock.epochMs(),
      latchId: isCommand ? 0 : this.#latches,
      motionEpoch: ARMED.motion_epoch,
      counterSeen: this.#counterSeen,
    };
    const detail = isGood ? 'simulated' : 'not signed by a key that the authority vouches for';
    if (isGood && isCommand) for (const stage of ['delivered', 'executing']) this.#reply({ ...reply, stage });
    this.#reply({ ...reply, done: isGood, outcome: isGood ? 'done' : 'unauthentic', detail });
  }

  #reply(reply: outrider.v1.CommandReply.$Properties): void {
    this.#wire.publish(upTopic(this.#device, 'reply'), CommandReply.encode(reply).finish());
  }
}
