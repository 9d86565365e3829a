import './x509.ts';
import { DomainError } from '@outrider/shared/errors';
import * as x509 from '@peculiar/x509';

const CHARACTERS_MAX = 16_384;
const RSA_BITS_MIN = 2048;
const RSA_BITS_MAX = 8192;
const CURVES = ['P-256', 'P-384'];

/**
 * Reads a certificate signing request (PEM) and proves that its sender holds the private key. The names in it are
 * not looked at: we set the subject.
 *
 * @returns The public key to certify.
 * @throws DomainError `invalid` that says what is wrong with it.
 */
export async function readSigningRequest(csrPem: string): Promise<x509.PublicKey> {
  if (csrPem.length > CHARACTERS_MAX) throw refuse(`is longer than ${CHARACTERS_MAX} characters`);
  let request: x509.Pkcs10CertificateRequest;
  let signed: boolean;
  try {
    request = new x509.Pkcs10CertificateRequest(csrPem);
  } catch (cause) {
    throw refuse('is not a PKCS #10 request in PEM ("-----BEGIN CERTIFICATE REQUEST-----")', cause);
  }
  requireStrongKey(request.publicKey.algorithm);
  try {
    signed = await request.verify();
  } catch (cause) {
    throw refuse('has a signature that cannot be checked', cause);
  }
  if (!signed) throw refuse('is not signed by the key it names');
  return request.publicKey;
}

function requireStrongKey(algorithm: Algorithm & { namedCurve?: string; modulusLength?: number }): void {
  const { name, namedCurve, modulusLength } = algorithm;
  if (name === 'Ed25519') return;
  if (name === 'ECDSA' || name === 'ECDH') {
    if (namedCurve !== undefined && CURVES.includes(namedCurve)) return;
  } else if (name.startsWith('RSA')) {
    if (modulusLength !== undefined && modulusLength >= RSA_BITS_MIN && modulusLength <= RSA_BITS_MAX) return;
  }
  throw refuse('must hold a key of EC P-256, EC P-384, Ed25519, or RSA of 2048 to 8192 bits');
}

/** The part of Web Crypto's type that every key has. */
interface Algorithm {
  readonly name: string;
}

function refuse(reason: string, cause?: unknown): DomainError {
  return new DomainError('invalid', `csr ${reason}`, { problems: [{ field: 'csr', reason }], cause });
}
