import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);

const EC_P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const KEY_USAGES: webcrypto.KeyUsage[] = ['sign', 'verify'];
/** Clocks of robots differ from ours: certificates are good from a little before now. */
const BACKDATE_MS = 5 * 60_000;

/** A certificate and its private key, PEM (PKCS #8). */
export interface KeyAndCertificate {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

export interface Validity {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** What the authority signs with. */
export interface Signer {
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
}

/** A serial number of 127 random bits whose hexadecimal form has no leading zero and no sign byte. */
export function newSerialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = 0x40 | ((bytes[0] as number) & 0x3f);
  return bytes.toString('hex');
}

/** Validity that starts now, backdated for clocks that lag. */
export const validFor = (nowMs: number, durationMs: number): Validity => ({
  fromMs: nowMs - BACKDATE_MS,
  untilMs: nowMs + durationMs,
});

export const generateKeyPair = async (): Promise<webcrypto.CryptoKeyPair> =>
  await webcrypto.subtle.generateKey(EC_P256, true, KEY_USAGES);

/** Makes a self-signed authority that may sign leaves only. */
export async function createAuthority(commonName: string, validity: Validity): Promise<KeyAndCertificate> {
  const keys = await generateKeyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerialNumber(),
    name: [{ CN: [commonName] }],
    notBefore: new Date(validity.fromMs),
    notAfter: new Date(validity.untilMs),
    keys,
    signingAlgorithm: EC_P256,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificatePem: certificate.toString('pem'), privateKeyPem: await exportKey(keys.privateKey) };
}

export interface LeafRequest {
  readonly commonName: string;
  readonly publicKey: x509.PublicKeyType;
  readonly validity: Validity;
  readonly usage: 'server' | 'client';
  /** DNS names and addresses of a server. */
  readonly hosts?: readonly string[];
}

/** Signs a certificate that can sign nothing itself. */
export async function signLeaf(signer: Signer, request: LeafRequest): Promise<x509.X509Certificate> {
  const usage = request.usage === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  const names = (request.hosts ?? []).map((host) =>
    isIP(host) ? new x509.GeneralName('ip', host) : new x509.GeneralName('dns', host),
  );
  return await x509.X509CertificateGenerator.create({
    serialNumber: newSerialNumber(),
    subject: [{ CN: [request.commonName] }],
    issuer: signer.certificate.subjectName,
    notBefore: new Date(request.validity.fromMs),
    notAfter: new Date(Math.min(request.validity.untilMs, signer.certificate.notAfter.getTime())),
    signingKey: signer.key,
    publicKey: request.publicKey,
    signingAlgorithm: EC_P256,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([usage]),
      await x509.AuthorityKeyIdentifierExtension.create(signer.certificate, false),
      await x509.SubjectKeyIdentifierExtension.create(request.publicKey),
      ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
    ],
  });
}

/** A signed list of revoked serial numbers, PEM with the label that OpenSSL and Mosquitto read. */
export async function signRevocationList(
  signer: Signer,
  validity: Validity,
  entries: readonly { readonly serialNumber: string; readonly revokedAtMs: number }[],
): Promise<string> {
  const list = await x509.X509CrlGenerator.create({
    issuer: signer.certificate.subjectName,
    thisUpdate: new Date(validity.fromMs),
    nextUpdate: new Date(validity.untilMs),
    signingKey: signer.key,
    signingAlgorithm: EC_P256,
    entries: entries.map((entry) => ({
      serialNumber: entry.serialNumber,
      revocationDate: new Date(entry.revokedAtMs),
    })),
  });
  const body = Buffer.from(list.rawData)
    .toString('base64')
    .match(/.{1,64}/g)
    ?.join('\n');
  return `-----BEGIN X509 CRL-----\n${body}\n-----END X509 CRL-----\n`;
}

/** @param key Extractable. */
export async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

export async function loadSigner(pair: KeyAndCertificate): Promise<Signer> {
  const [der] = x509.PemConverter.decode(pair.privateKeyPem);
  if (!der) throw new Error('no private key in the PEM text');
  return {
    certificate: new x509.X509Certificate(pair.certificatePem),
    key: await webcrypto.subtle.importKey('pkcs8', der, EC_P256, false, ['sign']),
  };
}

/** SHA-256 of the certificate, lower-case hexadecimal. */
export async function fingerprint(certificate: x509.X509Certificate): Promise<string> {
  return Buffer.from(await certificate.getThumbprint('SHA-256')).toString('hex');
}
