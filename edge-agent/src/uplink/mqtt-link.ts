import { X509Certificate } from 'node:crypto';
import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import type { Clock } from '@outrider/shared/time';
import type { MqttClient } from 'mqtt';
import { tlsTrouble } from '../enroll/tls-trouble.ts';

const { connect } = createRequire(import.meta.url)('mqtt') as typeof import('mqtt');

/** How long a goodbye may take. */
const END_TIMEOUT_MS = 2000;
/** How a connection fails that the other end has closed. */
const PEER_CODES: readonly string[] = ['ECONNRESET', 'EPIPE'];

export interface MqttLinkOptions {
  readonly url: string;
  readonly clientId: string;
  /** PEM. */
  readonly privateKey: string;
  readonly certificate: string;
  /** The only authorities whose brokers are trusted. PEM. */
  readonly ca: string;
  readonly connectTimeoutMs: number;
  readonly keepaliveS: number;
  /** For what to say when a certificate is out of its time. */
  readonly clock: Clock;
  readonly will: { readonly topic: string; readonly payload: Uint8Array };
  readonly onMessage: (topic: string, payload: Uint8Array, retained: boolean) => void;
}

/** One connection to the broker. It never reconnects by itself. */
export interface MqttLink {
  /** Sends with QoS 1. Resolves when the broker has it, which says nothing of the cloud's storage. */
  publish(topic: string, payload: Uint8Array, retained?: boolean): Promise<void>;
  subscribe(filter: string): Promise<void>;
  /** Resolves when the connection is gone, with the reason when there is one. */
  readonly closed: Promise<string>;
  readonly isOpen: boolean;
  /** The broker ended the connection: not we, and not a network that went away. */
  readonly wasClosedByPeer: boolean;
  /** Says goodbye, so that the last will stays unsaid. */
  end(): Promise<void>;
  /** Drops the connection: the broker publishes the last will. */
  destroy(): void;
}

/**
 * Connects with the robot's certificate. A clean session: what the cloud lacks, it learns from the hello, not from
 * the broker's memory.
 *
 * @throws DomainError `unauthenticated` when either side does not trust the other, `unavailable` otherwise.
 */
export async function openMqttLink(options: MqttLinkOptions, signal: AbortSignal): Promise<MqttLink> {
  const { hostname } = new URL(options.url);
  const client = connect(options.url, {
    protocolVersion: 4,
    clientId: options.clientId,
    clean: true,
    keepalive: options.keepaliveS,
    reconnectPeriod: 0,
    resubscribe: false,
    connectTimeout: options.connectTimeoutMs,
    key: options.privateKey,
    cert: options.certificate,
    ca: options.ca,
    rejectUnauthorized: true,
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    will: { topic: options.will.topic, payload: Buffer.from(options.will.payload), qos: 1, retain: true },
  });
  let reason = '';
  let isTrusted = true;
  client.on('error', (error) => {
    const trouble = tlsTrouble(error, options.url, options.clock.epochMs());
    isTrusted = trouble === undefined && !isNotAuthorized(error);
    reason = trouble?.sentence ?? explain(error, options.url);
  });
  client.on('message', (topic, payload, packet) => options.onMessage(topic, payload, packet.retain));
  const closed = new Promise<string>((resolve) => client.once('close', () => resolve(reason)));
  const abort = (): void => void client.end(true);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([
      new Promise<void>((resolve) => client.once('connect', () => resolve())),
      closed.then((why) => {
        throw new DomainError(isTrusted ? 'unavailable' : 'unauthenticated', why || closedWithoutReason(options));
      }),
    ]);
  } catch (error) {
    client.end(true);
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
  return wrap(client, closed);
}

function wrap(client: MqttClient, closed: Promise<string>): MqttLink {
  let wasClosedByPeer = false;
  const notePeer = (): void => {
    wasClosedByPeer ||= !client.disconnecting;
  };
  client.stream.once('end', notePeer);
  client.on('error', (error) => {
    if ('code' in error && PEER_CODES.includes(String(error.code))) notePeer();
  });
  return {
    closed,
    get isOpen() {
      return client.connected;
    },
    get wasClosedByPeer() {
      return wasClosedByPeer;
    },
    publish: (topic, payload, retained = false) =>
      new Promise((resolve, reject) => {
        const message = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
        client.publish(topic, message, { qos: 1, retain: retained }, (error) => (error ? reject(error) : resolve()));
      }),
    subscribe: (filter) =>
      new Promise((resolve, reject) => {
        client.subscribe(filter, { qos: 1 }, (error, granted) => {
          if (error) reject(error);
          else if (granted?.some(({ qos }) => qos > 2))
            reject(new DomainError('forbidden', `the broker refuses the subscription to ${filter}`));
          else resolve();
        });
      }),
    end: async () => {
      // Not end(true): MQTT.js ignores a second end, and a broker that is frozen would be waited for until the keepalive.
      const timer = setTimeout(() => client.stream.destroy(), END_TIMEOUT_MS);
      await client.endAsync().catch(() => {});
      clearTimeout(timer);
      client.end(true);
    },
    destroy: () => void client.end(true),
  };
}

/** CONNACK refuses us by name: 4 and 5 of MQTT 3.1.1. */
function isNotAuthorized(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return code === '4' || code === '5' || /Not authorized/i.test(errorMessage(error));
}

function explain(error: unknown, url: string): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const message = errorMessage(error);
  if (isNotAuthorized(error))
    return `${url}: the broker does not trust this robot's certificate (${message}); enrol again`;
  return `${url}: ${message}${code && !message.includes(code) ? ` (${code})` : ''}`;
}

/** A broker in Node says nothing when it does not like a certificate. */
function closedWithoutReason({ url, certificate, clock }: MqttLinkOptions): string {
  const until = Date.parse(new X509Certificate(certificate).validTo);
  if (until <= clock.epochMs())
    return `${url}: the broker closed the connection; this robot's certificate expired on ${new Date(until).toISOString()}`;
  return `${url}: the broker closed the connection`;
}
