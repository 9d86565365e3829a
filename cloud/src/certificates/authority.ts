import './x509.ts';
import { createHash, webcrypto } from 'node:crypto';
import type { Logger } from '@outrider/shared/log';
import type { Clock } from '@outrider/shared/time';
import * as x509 from '@peculiar/x509';
import type { Database } from '../storage/database.ts';
import type { SecretBox } from '../storage/secret-box.ts';
import {
  createAuthority,
  exportKey,
  generateKeyPair,
  type KeyAndCertificate,
  loadSigner,
  type Signer,
  signLeaf,
  signRevocationList,
  validFor,
} from './x509.ts';

const DAY_MS = 86_400_000;
const AUTHORITY_DAYS = 3650;
const SERVER_DAYS = 365;
/** A server certificate is made anew when less than this is left of it. */
const RENEW_BEFORE_MS = 30 * DAY_MS;
/** Mosquitto refuses everybody once its list has expired, so the list outlives any forgotten renewal. */
const REVOCATION_LIST_DAYS = 365;
/** Signs servers and robots. */
const AUTHORITY_NAME = 'ca';
/** Signs the control plane's own client certificates, and nothing else. */
const CLOUD_AUTHORITY_NAME = 'ca:cloud';

/** Common name of the control plane on an external broker. Robots' names hold a dot, so none can be this. */
export const CLOUD_COMMON_NAME = 'outrider-cloud';

export interface AuthorityOptions {
  readonly database: Database;
  readonly secrets: SecretBox;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * The installation's own certificate authority. Its key is in the database, encrypted, so that every replica signs
 * with the same one.
 */
export class CertificateAuthority {
  /** The authority's certificate: what robots pin and servers trust for clients. */
  readonly caPem: string;
  /** SHA-256 of that certificate, lower-case hexadecimal: what `cloud.ca_sha256` of an edge pins. */
  readonly caSha256: string;
  readonly #options: AuthorityOptions;
  /** The authority of the control plane's client certificates: an external broker keeps robots off that listener. */
  readonly cloudCaPem: string;
  readonly #signer: Signer;
  readonly #cloudSigner: Signer;

  private constructor(options: AuthorityOptions, signer: Signer, cloudSigner: Signer) {
    this.#options = options;
    this.#signer = signer;
    this.#cloudSigner = cloudSigner;
    this.caPem = signer.certificate.toString('pem');
    this.cloudCaPem = cloudSigner.certificate.toString('pem');
    this.caSha256 = createHash('sha256').update(Buffer.from(signer.certificate.rawData)).digest('hex');
  }

  /** Loads the authority, or creates it on the first start. */
  static async open(options: AuthorityOptions): Promise<CertificateAuthority> {
    const devices = await openSigner(options, AUTHORITY_NAME, 'Outrider Device Authority');
    return new CertificateAuthority(
      options,
      devices,
      await openSigner(options, CLOUD_AUTHORITY_NAME, 'Outrider Cloud Authority'),
    );
  }

  /**
   * A certificate for HTTPS and MQTT under these names, kept in the database until it is near its end.
   *
   * @param hosts DNS names and addresses; `localhost` and the loopback addresses are added.
   */
  async serverCertificate(hosts: readonly string[]): Promise<KeyAndCertificate> {
    const all = [...new Set(['localhost', '127.0.0.1', '::1', ...hosts])].sort();
    const name = `server:${createHash('sha256').update(all.join('\n')).digest('hex').slice(0, 16)}`;
    return await this.#leaf(name, 'outrider-cloud server', 'server', all);
  }

  /** The control plane's own client certificate for an external broker. */
  async cloudClientCertificate(): Promise<KeyAndCertificate> {
    return await this.#leaf('client:cloud', CLOUD_COMMON_NAME, 'client', []);
  }

  /** Certifies the key of a robot or of a program. Recording it is the registry's task. */
  async signClient(
    commonName: string,
    publicKey: x509.PublicKeyType,
    validDays: number,
  ): Promise<x509.X509Certificate> {
    const validity = validFor(this.#options.clock.epochMs(), validDays * DAY_MS);
    return await signLeaf(this.#signer, { commonName, publicKey, validity, usage: 'client' });
  }

  /** Signs what robots must believe. ECDSA P-256 with SHA-256: r and s, 32 bytes each. */
  async signStatement(bytes: Uint8Array): Promise<Uint8Array> {
    const algorithm = { name: 'ECDSA', hash: 'SHA-256' };
    return new Uint8Array(await webcrypto.subtle.sign(algorithm, this.#signer.key, bytes));
  }

  /** Signs the list of these revoked serial numbers, PEM. */
  async revocationList(
    entries: readonly { readonly serialNumber: string; readonly revokedAtMs: number }[],
  ): Promise<string> {
    const validity = validFor(this.#options.clock.epochMs(), REVOCATION_LIST_DAYS * DAY_MS);
    return await signRevocationList(this.#signer, validity, entries);
  }

  async #leaf(
    name: string,
    commonName: string,
    usage: 'server' | 'client',
    hosts: readonly string[],
  ): Promise<KeyAndCertificate> {
    const now = this.#options.clock.epochMs();
    const kept = await load(this.#options, name);
    if (kept && new x509.X509Certificate(kept.certificatePem).notAfter.getTime() - now > RENEW_BEFORE_MS) return kept;
    const keys = await generateKeyPair();
    const validity = validFor(now, SERVER_DAYS * DAY_MS);
    const signer = usage === 'client' ? this.#cloudSigner : this.#signer;
    const leaf = await signLeaf(signer, { commonName, publicKey: keys.publicKey, validity, usage, hosts });
    const made = { certificatePem: leaf.toString('pem'), privateKeyPem: await exportKey(keys.privateKey) };
    await store(this.#options, name, made, 'replace');
    return made;
  }
}

async function openSigner(options: AuthorityOptions, name: string, commonName: string): Promise<Signer> {
  const kept = await load(options, name);
  if (kept) return await loadSigner(kept);
  const made = await createAuthority(commonName, validFor(options.clock.epochMs(), AUTHORITY_DAYS * DAY_MS));
  await store(options, name, made, 'keep');
  options.log.info({ commonName }, 'authority.created');
  // Another replica may have been first: what is stored is what counts.
  return await loadSigner((await load(options, name)) ?? made);
}

async function load(options: AuthorityOptions, name: string): Promise<KeyAndCertificate | undefined> {
  const [row] = await options.database.query<{ certificate_pem: string; private_key_pem: string }>(
    'select certificate_pem, private_key_pem from authority_key where name = $1',
    [name],
  );
  if (!row) return undefined;
  return { certificatePem: row.certificate_pem, privateKeyPem: options.secrets.open(name, row.private_key_pem) };
}

async function store(
  options: AuthorityOptions,
  name: string,
  pair: KeyAndCertificate,
  onConflict: 'keep' | 'replace',
): Promise<void> {
  const action =
    onConflict === 'keep'
      ? 'nothing'
      : 'update set certificate_pem = excluded.certificate_pem, private_key_pem = excluded.private_key_pem, created_at = excluded.created_at';
  await options.database.query(
    `insert into authority_key (name, certificate_pem, private_key_pem, created_at)
     values ($1, $2, $3, to_timestamp($4::float8 / 1000)) on conflict (name) do ${action}`,
    [name, pair.certificatePem, options.secrets.seal(name, pair.privateKeyPem), options.clock.epochMs()],
  );
}
