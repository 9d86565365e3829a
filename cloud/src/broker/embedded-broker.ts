import { constants } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import { DomainError } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { INGEST_FILTERS } from '@outrider/shared/protocol/topics';
import { aborted, pause } from '@outrider/shared/service';
import { Aedes, type AedesPublishPacket, type Client, type PublishPacket, type Subscription } from 'aedes';
import type { ClientIdentity, ClientVerdict } from '../certificates/client-certificates.ts';
import type { CertificateVerdict } from '../certificates/registry.ts';
import type { KeyAndCertificate } from '../certificates/x509.ts';
import type { BrokerMetrics } from './broker-metrics.ts';
import type { PresenceChange, PublishOptions, Unsubscribe, UplinkBus, UplinkMessage } from './bus.ts';
import { BusEvents } from './bus-events.ts';
import { HolderLimit } from './connection-limits.ts';
import { GuardStream } from './guard-stream.ts';
import { type EventPeer, type Peer, peerName, peerOf, type RobotPeer } from './peer.ts';
import { mayReadEvents, maySubscribe, publishRight } from './rights.ts';

const CONNECT_TIMEOUT_MS = 5000;
/** aedes' default of a minute lets one frozen robot hold up a stop for another; see ARCHITECTURE.md. */
const DRAIN_TIMEOUT_MS = 1000;
const RECHECK_MS = 60_000;
const SESSIONS_PER_CERTIFICATE_MAX = 3;
const KEEPALIVE_S_MAX = 300;
const INFLIGHT_QOS2_MAX = 4;
/** Reason codes of CONNACK [MQTT-3.2.2]. */
const SERVER_UNAVAILABLE = 3;
const NOT_AUTHORIZED = 5;

export interface EmbeddedBrokerOptions {
  readonly host: string;
  /** 0: any free port; `port` says which. */
  readonly port: number;
  readonly server: KeyAndCertificate;
  readonly caPem: string;
  /** Whether a session under this certificate may live now. */
  readonly verify: (device: DeviceIdentity, fingerprintSha256: string) => Promise<CertificateVerdict>;
  /** The same for a program that listens to events. Absent: none may. */
  readonly verifyListener?: (client: ClientIdentity, fingerprintSha256: string) => Promise<ClientVerdict>;
  readonly metrics: BrokerMetrics;
  readonly log: Logger;
  /** Most connections from one address: a site behind one router is one address. */
  readonly connectionsPerAddressMax?: number;
  readonly connectionsMax?: number;
}

interface Session {
  readonly client: Client;
  readonly peer: RobotPeer;
  readonly robotPk: number;
}

/** A program that listens to events. */
interface Listener {
  readonly client: Client;
  readonly peer: EventPeer;
}

/** The broker in this process: MQTT 3.1.1 over mutual TLS, every right taken from the certificate. */
export class EmbeddedBroker implements UplinkBus {
  readonly name = 'broker';
  readonly #options: EmbeddedBrokerOptions;
  readonly #events: BusEvents;
  readonly #aedes: Aedes;
  readonly #tls: TlsServer;
  readonly #tcp: Server;
  readonly #peers = new WeakMap<object, { readonly peer: Peer; readonly stream: GuardStream }>();
  readonly #robots = new WeakMap<Client, number>();
  readonly #sessions = new Map<string, Session>();
  readonly #listeners = new Map<string, Listener>();
  readonly #sockets = new Set<Socket>();
  readonly #byAddress: HolderLimit;
  readonly #byCertificate: HolderLimit;

  constructor(options: EmbeddedBrokerOptions) {
    this.#options = options;
    this.#events = new BusEvents(options.log);
    const connectionsMax = options.connectionsMax ?? 10_000;
    this.#byAddress = new HolderLimit(options.connectionsPerAddressMax ?? 1000, connectionsMax);
    this.#byCertificate = new HolderLimit(SESSIONS_PER_CERTIFICATE_MAX, connectionsMax);
    this.#aedes = this.#createAedes();
    this.#tls = createTlsServer({
      cert: options.server.certificatePem,
      key: options.server.privateKeyPem,
      ca: options.caPem,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2',
      handshakeTimeout: CONNECT_TIMEOUT_MS,
      // Every connection shows its certificate anew.
      secureOptions: constants.SSL_OP_NO_TICKET,
    });
    this.#tls.on('secureConnection', (socket) => this.#greet(socket));
    this.#tls.on('tlsClientError', (error, socket) => {
      this.#refuse('tls', { reason: error.message, address: socket.remoteAddress });
      socket.destroy();
    });
    this.#tcp = createServer((socket) => this.#accept(socket));
  }

  /** Listens. @throws DomainError `unavailable` when the port is taken. */
  async start(): Promise<void> {
    await this.#aedes.listen();
    for (const filter of INGEST_FILTERS) {
      await new Promise<void>((resolve) => this.#aedes.subscribe(filter, this.#deliver, resolve));
    }
    await new Promise<void>((resolve, reject) => {
      this.#tcp.once('error', (cause) => {
        const where = `${this.#options.host}:${this.#options.port}`;
        reject(new DomainError('unavailable', `the MQTT port ${where} cannot be used: ${cause.message}`, { cause }));
      });
      this.#tcp.listen(this.#options.port, this.#options.host, resolve);
    });
    this.#options.log.info({ host: this.#options.host, port: this.port }, 'broker.listening');
  }

  /** The port it listens on, once started. */
  get port(): number {
    const address = this.#tcp.address();
    return typeof address === 'object' && address !== null ? address.port : this.#options.port;
  }

  /** Serves until told to stop. Call `start` first. */
  async run(signal: AbortSignal): Promise<void> {
    const stopped = aborted(signal);
    while (!signal.aborted) {
      await pause(RECHECK_MS, signal);
      if (!signal.aborted) await this.recheck();
    }
    await stopped;
    await this.#close();
  }

  setUplinkHandler(handler: (message: UplinkMessage) => void): void {
    this.#events.setUplinkHandler(handler);
  }

  notifyPresence(change: PresenceChange): void {
    this.#events.notifyPresence(change);
  }

  onReply(listener: (device: DeviceIdentity, reply: outrider.v1.CommandReply) => void): Unsubscribe {
    return this.#events.onReply(listener);
  }

  onPresence(listener: (change: PresenceChange) => void): Unsubscribe {
    return this.#events.onPresence(listener);
  }

  async publish(topic: string, payload: Uint8Array, options: PublishOptions = {}): Promise<void> {
    if (this.#aedes.closed) throw new DomainError('unavailable', 'the broker is closed');
    const { retain = false, qos = 1 } = options;
    const packet = { cmd: 'publish', topic, payload: Buffer.from(payload), qos, dup: false, retain } as const;
    await new Promise<void>((resolve, reject) => {
      this.#aedes.publish(packet, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Whether anybody is connected who may listen to events. */
  hasEventListeners(): boolean {
    return this.#listeners.size > 0;
  }

  connected(device: DeviceIdentity): boolean {
    return this.#sessions.has(deviceName(device));
  }

  async disconnect(device: DeviceIdentity, reason: string): Promise<void> {
    const session = this.#sessions.get(deviceName(device));
    if (!session) return;
    this.#options.log.info({ ...device, reason }, 'broker.session_ended');
    await new Promise<void>((resolve) => session.client.close(resolve));
  }

  /** Ends the live sessions of a robot whose certificate was taken back. */
  async disconnectRobot(robotPk: number, reason: string): Promise<void> {
    for (const session of [...this.#sessions.values()]) {
      if (session.robotPk === robotPk) await this.disconnect(session.peer.device, reason);
    }
  }

  /** Looks at every live session's certificate again: it may have been revoked elsewhere, or have expired. */
  async recheck(): Promise<void> {
    for (const { peer } of [...this.#sessions.values()]) {
      try {
        const verdict = await this.#options.verify(peer.device, peer.fingerprint);
        if (verdict.kind === 'refused') await this.disconnect(peer.device, verdict.reason);
      } catch (error) {
        this.#options.log.warn({ err: error }, 'broker.recheck_failed');
        return;
      }
    }
    for (const { client, peer } of [...this.#listeners.values()]) {
      const verdict = await this.#verifyListener(peer).catch((error: unknown) => {
        this.#options.log.warn({ err: error }, 'broker.recheck_failed');
        return undefined;
      });
      if (verdict?.kind !== 'refused') continue;
      this.#options.log.info({ ...factsOf(peer), reason: verdict.reason }, 'broker.session_ended');
      await new Promise<void>((resolve) => client.close(resolve));
    }
  }

  #createAedes(): Aedes {
    const aedes = new Aedes({
      concurrency: 1000,
      connectTimeout: CONNECT_TIMEOUT_MS,
      drainTimeout: DRAIN_TIMEOUT_MS,
      keepaliveLimit: KEEPALIVE_S_MAX,
      maxInflightInbound: INFLIGHT_QOS2_MAX,
      maxClientsIdLength: 64,
      maxTopicLevels: 8,
      preConnect: (client, packet, done) => {
        const peer = this.#peers.get(client.conn)?.peer;
        // Nothing is kept for clients that are away: the edge keeps its own data.
        packet.clean = true;
        const will = packet.will?.topic;
        const isForeign = peer !== undefined && will !== undefined && rightOf(peer, will) === 'foreign';
        if (isForeign) this.#violate(peer, 'will', { topic: will });
        // aedes leaves the connection open and untimed unless it is given an error.
        if (peer === undefined || isForeign) done(new Error('not this client’s will'), false);
        else done(null, true);
      },
      authenticate: (client, _username, _password, done) => {
        this.#admit(client).then(
          (code) => done(code === 0 ? null : Object.assign(new Error('refused'), { returnCode: code }), code === 0),
          (error: unknown) => {
            this.#options.log.error({ err: error }, 'broker.admission_failed');
            done(Object.assign(new Error('unavailable'), { returnCode: SERVER_UNAVAILABLE }), false);
          },
        );
      },
      authorizePublish: (client, packet, done) => done(client ? this.#judgePublish(client, packet) : null),
      authorizeSubscribe: (client, subscription, done) => done(null, this.#judgeSubscription(client, subscription)),
    });
    aedes.on('clientReady', (client) => this.#enter(client));
    aedes.on('clientDisconnect', (client) => this.#leave(client));
    aedes.on('clientError', (client, error) =>
      this.#options.log.debug({ client: client.id, err: error }, 'broker.client_failed'),
    );
    aedes.on('connectionError', (_client, error) => this.#refuse('protocol', { reason: error.message }));
    return aedes;
  }

  readonly #deliver = (packet: AedesPublishPacket, done: () => void): void => {
    this.#events.dispatch(packet.topic, Buffer.isBuffer(packet.payload) ? packet.payload : Buffer.from(packet.payload));
    done();
  };

  /** The guard before TLS: places are counted before any handshake costs us anything. */
  #accept(socket: Socket): void {
    const release = this.#byAddress.take(socket.remoteAddress ?? 'unknown');
    if (!release) {
      this.#refuse('address_limit', { address: socket.remoteAddress });
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      this.#sockets.delete(socket);
      release();
    });
    this.#tls.emit('connection', socket);
  }

  #greet(socket: TLSSocket): void {
    const peer = peerOf(socket);
    const release = peer && this.#byCertificate.take(peer.fingerprint);
    if (!peer || !release) {
      this.#refuse(peer ? 'certificate_limit' : 'certificate_name', { address: socket.remoteAddress });
      socket.destroy();
      return;
    }
    socket.once('close', release);
    const stream = new GuardStream(socket, (reason) => this.#refuse(reason, factsOf(peer)));
    this.#peers.set(stream, { peer, stream });
    this.#aedes.handle(stream);
  }

  /** @returns The CONNACK return code. */
  async #admit(client: Client): Promise<number> {
    const known = this.#peers.get(client.conn);
    if (!known) return NOT_AUTHORIZED;
    const { peer, stream } = known;
    if (client.id !== peerName(peer)) {
      this.#violate(peer, 'client_id', { clientId: client.id.slice(0, 128) });
      return NOT_AUTHORIZED;
    }
    const verdict =
      peer.kind === 'robot'
        ? await this.#options.verify(peer.device, peer.fingerprint)
        : await this.#verifyListener(peer);
    if (verdict.kind === 'refused') {
      this.#refuse('certificate', { ...factsOf(peer), reason: verdict.reason });
      return NOT_AUTHORIZED;
    }
    const living = this.#sessions.get(client.id);
    if (living) {
      this.#options.metrics.takeovers.inc();
      const addresses = { before: living.peer.address, now: peer.address };
      this.#options.log.warn({ ...factsOf(peer), ...addresses }, 'broker.session_taken_over');
    }
    if ('robot' in verdict) this.#robots.set(client, verdict.robot.robotPk);
    stream.admit();
    return 0;
  }

  async #verifyListener(peer: EventPeer): Promise<ClientVerdict> {
    const { verifyListener } = this.#options;
    return verifyListener
      ? await verifyListener(peer.client, peer.fingerprint)
      : { kind: 'refused', reason: 'nobody may listen to events here' };
  }

  #judgePublish(client: Client, packet: PublishPacket): Error | null {
    const peer = this.#peers.get(client.conn)?.peer;
    const right = peer ? rightOf(peer, packet.topic) : 'foreign';
    if (right === 'foreign') {
      if (peer) this.#violate(peer, 'publish', { topic: packet.topic.slice(0, 256) });
      return new Error('not this client’s topic');
    }
    // Bad data is never answered by ending the session. Nothing is retained either: the database keeps presence,
    // and a retained record would be delivered again and again.
    if (packet.retain && right !== 'presence') this.#options.metrics.violations.inc({ what: 'retain' });
    packet.retain = false;
    return null;
  }

  #judgeSubscription(client: Client, subscription: Subscription): Subscription | null {
    const peer = this.#peers.get(client.conn)?.peer;
    const { topic } = subscription;
    const isAllowed =
      peer?.kind === 'robot' ? maySubscribe(peer.device, topic) : peer && mayReadEvents(peer.client.tenantId, topic);
    if (isAllowed) return subscription;
    if (peer) this.#violate(peer, 'subscribe', { topic: subscription.topic.slice(0, 256) });
    return null;
  }

  #enter(client: Client): void {
    const peer = this.#peers.get(client.conn)?.peer;
    const robotPk = this.#robots.get(client);
    if (peer?.kind === 'events') {
      this.#listeners.set(client.id, { client, peer });
      this.#options.log.info(factsOf(peer), 'broker.session_started');
    }
    if (peer?.kind !== 'robot' || robotPk === undefined) return;
    this.#sessions.set(client.id, { client, peer, robotPk });
    this.#options.metrics.connections.set(this.#sessions.size);
    this.#options.log.info({ ...peer.device, address: peer.address }, 'broker.session_started');
  }

  #leave(client: Client): void {
    if (this.#sessions.get(client.id)?.client === client) this.#sessions.delete(client.id);
    if (this.#listeners.get(client.id)?.client === client) this.#listeners.delete(client.id);
    this.#options.metrics.connections.set(this.#sessions.size);
  }

  #violate(peer: Peer, what: string, facts: Readonly<Record<string, unknown>>): void {
    this.#options.metrics.violations.inc({ what });
    this.#options.log.warn({ ...factsOf(peer), what, ...facts }, 'broker.identity_violated');
  }

  #refuse(reason: string, facts: Readonly<Record<string, unknown>>): void {
    this.#options.metrics.refused.inc({ reason });
    this.#options.log.debug({ cause: reason, ...facts }, 'broker.refused');
  }

  async #close(): Promise<void> {
    await new Promise<void>((resolve) => this.#aedes.close(resolve));
    const closed = new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    this.#tls.removeAllListeners('secureConnection');
  }
}

/** Who it is, for the log. */
const factsOf = (peer: Peer): Readonly<Record<string, unknown>> => ({
  ...(peer.kind === 'robot' ? peer.device : { client: peerName(peer) }),
  address: peer.address,
});

/** Listeners publish nothing. */
const rightOf = (peer: Peer, topic: string): ReturnType<typeof publishRight> =>
  peer.kind === 'robot' ? publishRight(peer.device, topic) : 'foreign';
