import type { TLSSocket } from 'node:tls';
import { type DeviceIdentity, parseDeviceName } from '@outrider/shared/ids';

/** Who is at the other end, by the certificate that TLS has checked. */
export interface Peer {
  readonly device: DeviceIdentity;
  /** SHA-256 of the certificate, lower-case hexadecimal. */
  readonly fingerprint: string;
  readonly address: string;
}

/** @returns `undefined` when the certificate names no robot. */
export function peerOf(socket: TLSSocket): Peer | undefined {
  if (!socket.authorized) return undefined;
  const certificate = socket.getPeerCertificate();
  // Two common names come as an array, whatever the types say.
  const commonName: unknown = certificate.subject?.CN;
  const device = typeof commonName === 'string' ? parseDeviceName(commonName) : undefined;
  if (!device) return undefined;
  return {
    device,
    fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    address: socket.remoteAddress ?? 'unknown',
  };
}
