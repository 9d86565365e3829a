import { createHash } from 'node:crypto';
import type { DeviceIdentity } from '@outrider/shared/ids';
import { deviceName } from '@outrider/shared/ids';
import { outrider } from '@outrider/shared/messages';
import { encodeBlock } from '@outrider/shared/protocol/block';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import { downFilter, presenceTopic, type UpChannel, upTopic } from '@outrider/shared/protocol/topics';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import type { Sample } from '@outrider/shared/telemetry';
import { connect, type IClientOptions, type MqttClient } from 'mqtt';
import { until } from '../src/testing/engines.ts';

const { Ack, BodyKind, EventRecord, GapRecord, Hello, HelloReply, Lane, PresenceReport, StateRecord, UplinkBatch } =
  outrider.v1;

export interface Credentials {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

type WireRecord = outrider.v1.Record.$Properties;

/** Consecutive samples of a stream of two joints, 10 ms apart. */
export function samples(stream: string, count: number, fromMs: number, value = 0.5): Sample[] {
  return Array.from({ length: count }, (_, i) => ({
    layout: {
      stream,
      kind: 'joint_state',
      names: ['a', 'b'],
      fields: [
        { name: 'position', width: 2 },
        { name: 'velocity', width: 0 },
      ],
      tags: {},
      declaredRateHz: 100,
    },
    stampNs: BigInt(fromMs + i * 10) * 1_000_000n,
    receivedNs: BigInt(fromMs + i * 10) * 1_000_000n + 1n,
    receivedMonoNs: BigInt(i) * 10_000_000n,
    flags: 0,
    values: Float64Array.of(value + i, -0),
  }));
}

export function record(seq: number, kind: outrider.v1.BodyKind, body: Uint8Array, seqTo = 0): WireRecord {
  return { seq, seqTo, kind, body, crc: bodyCrc(body), bootId: 'b00t' };
}
export const telemetryRecord = (seq: number, list: readonly Sample[], thinnedFrom = 0): WireRecord =>
  record(seq, BodyKind.BODY_TELEMETRY, encodeBlock(list, thinnedFrom));
export const eventRecord = (seq: number, event: outrider.v1.EventRecord.$Properties): WireRecord =>
  record(seq, BodyKind.BODY_EVENT, EventRecord.encode(event).finish());
export const stateRecord = (seq: number, state: outrider.v1.StateRecord.$Properties): WireRecord =>
  record(seq, BodyKind.BODY_STATE, StateRecord.encode(state).finish());
export const gapRecord = (seq: number, seqTo: number, gap: outrider.v1.GapRecord.$Properties): WireRecord =>
  record(seq, BodyKind.BODY_GAP, GapRecord.encode(gap).finish(), seqTo);

/** An epoch that a test can name. */
export const epochOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 16);

const CHANNELS: Readonly<Record<number, UpChannel>> = {
  [Lane.LANE_EVENT]: 'event',
  [Lane.LANE_STATE]: 'state',
  [Lane.LANE_TELEMETRY]: 'telemetry',
};

export function batch(epoch: string, lane: outrider.v1.Lane, records: readonly WireRecord[], batchId = 0): Uint8Array {
  return UplinkBatch.encode({
    protocolVersion: PROTOCOL_VERSION,
    epoch,
    lane,
    records: [...records],
    batchId,
  }).finish();
}

/** The edge's end of the wire over a real MQTT connection. */
export class TestEdge {
  readonly device: DeviceIdentity;
  readonly client: MqttClient;
  readonly acks: outrider.v1.Ack[] = [];
  readonly replies: outrider.v1.HelloReply[] = [];
  readonly other: { topic: string; payload: Buffer }[] = [];
  closes = 0;

  constructor(url: string, device: DeviceIdentity, credentials: Credentials, options: IClientOptions = {}) {
    this.device = device;
    this.client = connect(url, {
      protocolVersion: 4,
      clientId: deviceName(device),
      clean: true,
      reconnectPeriod: 0,
      servername: 'localhost',
      ...credentials,
      ...options,
    });
    this.client.on('error', () => undefined);
    this.client.on('close', () => {
      this.closes += 1;
    });
    this.client.on('message', (topic, payload) => {
      if (topic.endsWith('/down/ack')) this.acks.push(Ack.decode(payload));
      else if (topic.endsWith('/down/hello')) this.replies.push(HelloReply.decode(payload));
      else this.other.push({ topic, payload });
    });
  }

  async ready(): Promise<void> {
    await until(() => this.client.connected, `a session of ${deviceName(this.device)}`);
    await this.client.subscribeAsync(downFilter(this.device), { qos: 1 });
  }

  async send(epoch: string, lane: outrider.v1.Lane, records: readonly WireRecord[], batchId = 0): Promise<void> {
    await this.raw(CHANNELS[lane] ?? 'telemetry', batch(epoch, lane, records, batchId));
  }

  async raw(channel: UpChannel, payload: Uint8Array): Promise<void> {
    await this.client.publishAsync(upTopic(this.device, channel), Buffer.from(payload), { qos: 1 });
  }

  async hello(hello: outrider.v1.Hello.$Properties): Promise<outrider.v1.HelloReply> {
    const nonce = String(this.replies.length + 1);
    await this.raw('hello', Hello.encode({ protocolVersion: PROTOCOL_VERSION, ...hello, nonce }).finish());
    await until(() => this.replies.some((reply) => reply.nonce === nonce), 'an answer to hello');
    return this.replies.find((reply) => reply.nonce === nonce) ?? HelloReply.decode(new Uint8Array());
  }

  async presence(presence: string): Promise<void> {
    const payload = PresenceReport.encode({ presence, atMs: 1, bootId: 'b00t', agentVersion: '1.2.3' }).finish();
    await this.client.publishAsync(presenceTopic(this.device), Buffer.from(payload), { qos: 1, retain: true });
  }

  /**
   * How far a lane is acknowledged: the highest, as an edge takes it, and not the last. Two replicas that stored
   * neighbouring batches publish their acknowledgements in any order, so an older one may come last and stay last.
   */
  upto(epoch: string, lane: outrider.v1.Lane): number {
    return this.acks.reduce(
      (max, ack) => (ack.epoch === epoch && ack.lane === lane ? Math.max(max, ack.upto) : max),
      -1,
    );
  }

  async acknowledged(epoch: string, lane: outrider.v1.Lane, upto: number): Promise<void> {
    await until(() => this.upto(epoch, lane) >= upto, `an acknowledgement up to ${upto}`);
  }

  async end(): Promise<void> {
    await this.client.endAsync(true);
  }
}
