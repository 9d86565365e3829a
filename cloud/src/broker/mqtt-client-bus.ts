import { randomUUID } from 'node:crypto';
import { DomainError } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName, parseDeviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { pause } from '@outrider/shared/service';
import { connect, type MqttClient } from 'mqtt';
import type { KeyAndCertificate } from '../certificates/x509.ts';
import type { PresenceChange, PublishOptions, Unsubscribe, UplinkBus, UplinkMessage } from './bus.ts';
import { BusEvents } from './bus-events.ts';
import { PACKET_BYTES_MAX } from './packet-gauge.ts';

const SHARE_GROUP = '$share/outrider-ingest';
/** One replica gets each of these. */
const SHARED_FILTERS = ['hello', 'event', 'state', 'telemetry'].map(
  (channel) => `${SHARE_GROUP}/outrider/v1/+/up/${channel}`,
);
/** Every replica gets all of these. */
const LIVE_TOPIC = 'outrider/internal/live';
const PLAIN_FILTERS = ['outrider/v1/+/up/reply', 'outrider/v1/+/presence', LIVE_TOPIC];
const RECONNECT_MS = 1000;
const CONNECT_TIMEOUT_MS = 10_000;
const RECHECK_MS = 60_000;
const KEEPALIVE_S = 30;
/** Messages the broker may have on their way to us without our PUBACK. */
const RECEIVE_MAX = 500;

export interface MqttClientBusOptions {
  /** `mqtts://host:port` of the listener for the control plane. */
  readonly url: string;
  readonly client: KeyAndCertificate;
  readonly caPem: string;
  /** Which of these robots hold no good certificate any more. */
  readonly withoutCertificate: (devices: readonly DeviceIdentity[]) => Promise<readonly DeviceIdentity[]>;
  readonly log: Logger;
}

/** The line to the robots through an external MQTT 5 broker that replicas of the control plane share. */
export class MqttClientBus implements UplinkBus {
  readonly name = 'mqtt-client';
  readonly #options: MqttClientBusOptions;
  readonly #events: BusEvents;
  readonly #client: MqttClient;
  readonly #online = new Set<string>();
  readonly #replicaId = randomUUID();
  #isSubscribed = false;
  #onLive: ((payload: Uint8Array) => void) | undefined;

  constructor(options: MqttClientBusOptions) {
    this.#options = options;
    this.#events = new BusEvents(options.log);
    this.#client = connect(options.url, {
      manualConnect: true,
      protocolVersion: 5,
      clientId: `outrider-cloud-${this.#replicaId}`,
      clean: true,
      cert: options.client.certificatePem,
      key: options.client.privateKeyPem,
      ca: options.caPem,
      rejectUnauthorized: true,
      reconnectPeriod: RECONNECT_MS,
      connectTimeout: CONNECT_TIMEOUT_MS,
      keepalive: KEEPALIVE_S,
      resubscribe: false,
      properties: { receiveMaximum: RECEIVE_MAX, maximumPacketSize: PACKET_BYTES_MAX },
    });
    this.#client.on('connect', () => this.#subscribe());
    this.#client.on('message', (topic, payload, packet) => {
      if (topic !== LIVE_TOPIC) this.#events.dispatch(topic, payload);
      else if (packet.properties?.correlationData?.toString() !== this.#replicaId)
        this.#events.guard(() => this.#onLive?.(payload));
    });
    this.#client.on('close', () => {
      this.#isSubscribed = false;
      options.log.info('bus.disconnected');
    });
    this.#client.on('error', (error) => options.log.warn({ err: error }, 'bus.failed'));
  }

  /** Connects, and keeps connecting when the broker is away. Resolves without waiting for it. */
  async start(): Promise<void> {
    this.#client.connect();
  }

  /** Stays until told to stop. Call `start` first. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(RECHECK_MS, signal);
      if (!signal.aborted) await this.recheck();
    }
    await this.#client.endAsync(true);
  }

  /** Ends the sessions of robots whose certificates were all taken back or have expired, wherever that was done. */
  async recheck(): Promise<void> {
    const devices = [...this.#online].map(parseDeviceName).filter((device) => device !== undefined);
    try {
      for (const device of await this.#options.withoutCertificate(devices))
        await this.disconnect(device, 'it has no good certificate');
    } catch (error) {
      this.#options.log.warn({ err: error }, 'bus.recheck_failed');
    }
  }

  /** Whether the broker is there and sends us what we asked for. */
  get isReady(): boolean {
    return this.#client.connected && this.#isSubscribed;
  }

  setUplinkHandler(handler: (message: UplinkMessage) => void): void {
    this.#events.setUplinkHandler(handler);
  }

  notifyPresence(change: PresenceChange): void {
    const name = deviceName(change.device);
    if (change.report.presence === 'ONLINE') this.#online.add(name);
    else this.#online.delete(name);
    this.#events.notifyPresence(change);
  }

  onReply(listener: (device: DeviceIdentity, reply: outrider.v1.CommandReply) => void): Unsubscribe {
    return this.#events.onReply(listener);
  }

  onPresence(listener: (change: PresenceChange) => void): Unsubscribe {
    return this.#events.onPresence(listener);
  }

  async publish(topic: string, payload: Uint8Array, options: PublishOptions = {}): Promise<void> {
    // mqtt.js would keep it for later, without a limit; what is late here is better said to be lost.
    if (!this.#client.connected) throw new DomainError('unavailable', 'the MQTT broker is not connected');
    await this.#client.publishAsync(topic, Buffer.from(payload), {
      qos: options.qos ?? 1,
      retain: options.retain ?? false,
    });
  }

  /** As its last presence said. */
  connected(device: DeviceIdentity): boolean {
    return this.#online.has(deviceName(device));
  }

  /**
   * Takes the robot's session over for a moment: MQTT has a broker end a session when another comes under its client id
   * [MQTT-3.1.4-2], and replicas may use any. What keeps a revoked certificate from coming back is the broker's list.
   */
  async disconnect(device: DeviceIdentity, reason: string): Promise<void> {
    const { url, client, caPem, log } = this.#options;
    const taker = connect(url, {
      protocolVersion: 5,
      clientId: deviceName(device),
      clean: true,
      cert: client.certificatePem,
      key: client.privateKeyPem,
      ca: caPem,
      rejectUnauthorized: true,
      reconnectPeriod: 0,
      connectTimeout: CONNECT_TIMEOUT_MS,
    });
    let failure: Error | undefined;
    taker.on('error', (error) => {
      failure = error;
    });
    const closed = new Promise<void>((resolve) => taker.once('close', () => resolve()));
    const isOpen = await Promise.race([
      new Promise<true>((resolve) => taker.once('connect', () => resolve(true))),
      closed.then(() => false),
    ]);
    await taker.endAsync(true).catch(() => undefined);
    await closed;
    const hint = 'write the broker configuration again and reload the broker, else it comes back';
    if (isOpen) log.info({ ...device, reason, hint }, 'bus.session_ended');
    else log.error({ ...device, reason, err: failure }, 'bus.cannot_disconnect');
  }

  /** Sends live updates to the other replicas. They are dropped while the broker is away. */
  sendLive(payload: Uint8Array): void {
    if (!this.#client.connected) return;
    const properties = { correlationData: Buffer.from(this.#replicaId) };
    this.#client.publish(LIVE_TOPIC, Buffer.from(payload), { qos: 0, properties });
  }

  /** Who takes the live updates of other replicas. */
  setLiveHandler(handler: (payload: Uint8Array) => void): void {
    this.#onLive = handler;
  }

  #subscribe(): void {
    const filters = [...SHARED_FILTERS, ...PLAIN_FILTERS];
    this.#client.subscribe(filters, { qos: 1 }, (error, granted) => {
      const refused = granted?.filter((grant) => grant.qos >= 128).map((grant) => grant.topic) ?? [];
      this.#isSubscribed = !error && refused.length === 0;
      if (this.#isSubscribed) this.#options.log.info({ filters: filters.length }, 'bus.subscribed');
      else this.#options.log.error({ err: error, refused }, 'bus.subscribe_failed');
    });
  }
}
