import type { TLSSocket } from 'node:tls';
import { type DeviceIdentity, deviceName, parseDeviceName } from '@outrider/shared/ids';
import { type ClientIdentity, clientCommonName, parseClientName } from '../certificates/client-certificates.ts';

interface Certified {
  /** SHA-256 of the certificate, lower-case hexadecimal. */
  readonly fingerprint: string;
  readonly address: string;
}

/** A robot, by its certificate. */
export interface RobotPeer extends Certified {
  readonly kind: 'robot';
  readonly device: DeviceIdentity;
}

/** A program that listens to its tenant's events, by its certificate. Its name holds colons, so no robot has it. */
export interface EventPeer extends Certified {
  readonly kind: 'events';
  readonly client: ClientIdentity;
}

/** Who is at the other end, by the certificate that TLS has checked. */
export type Peer = RobotPeer | EventPeer;

/** The certificate's common name, which has to be the MQTT client id too. */
export const peerName = (peer: Peer): string =>
  peer.kind === 'robot' ? deviceName(peer.device) : clientCommonName(peer.client);

/** @returns `undefined` when the certificate names neither a robot nor a program that listens to events. */
export function peerOf(socket: TLSSocket): Peer | undefined {
  if (!socket.authorized) return undefined;
  const certificate = socket.getPeerCertificate();
  // Two common names come as an array, whatever the types say.
  const commonName: unknown = certificate.subject?.CN;
  if (typeof commonName !== 'string') return undefined;
  const certified: Certified = {
    fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    address: socket.remoteAddress ?? 'unknown',
  };
  const device = parseDeviceName(commonName);
  if (device) return { kind: 'robot', device, ...certified };
  const client = parseClientName(commonName);
  return client?.kind === 'events' ? { kind: 'events', client, ...certified } : undefined;
}
