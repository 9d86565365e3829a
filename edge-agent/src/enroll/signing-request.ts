import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { cryptoProvider, Pkcs10CertificateRequestGenerator } from '@peculiar/x509';

// Node's Web Crypto has another declared type than the browser's, and the same functions.
cryptoProvider.set(webcrypto as unknown as Parameters<typeof cryptoProvider.set>[0]);

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** A fresh key pair and the request to certify it. The key never leaves the robot. */
export interface SigningRequest {
  /** PEM, PKCS #8. */
  readonly privateKey: string;
  /** PEM, PKCS #10. */
  readonly csr: string;
}

/** @param deviceName Becomes the common name. The cloud puts in its own all the same. */
export async function createSigningRequest(deviceName: string): Promise<SigningRequest> {
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: `CN=${deviceName}`,
    keys,
    signingAlgorithm: ALGORITHM,
  });
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return {
    privateKey: `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`,
    csr: request.toString('pem'),
  };
}
