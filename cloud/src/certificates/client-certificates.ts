import { DomainError } from '@outrider/shared/errors';
import { TENANT_ID_PATTERN } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { Clock, EpochMs } from '@outrider/shared/time';
import { isScope, type Scope } from '../identity/principal.ts';
import type { Database } from '../storage/database.ts';
import type { CertificateAuthority } from './authority.ts';
import { exportKey, fingerprint, generateKeyPair } from './x509.ts';

/** `service`: calls us over gRPC. `events`: reads the event bus. */
export const CLIENT_KINDS = ['service', 'events'] as const;
export type ClientKind = (typeof CLIENT_KINDS)[number];

const VALID_DAYS_DEFAULT = 90;
const VALID_DAYS_MAX = 825;
const CLIENT_NAME = /^[A-Za-z0-9_-]{1,32}$/;

/** A program that is not a robot. */
export interface ClientIdentity {
  readonly kind: ClientKind;
  readonly tenantId: string;
  readonly name: string;
}

export interface ClientOrder extends ClientIdentity {
  readonly scopes: readonly Scope[];
  /** Absent: every robot of the tenant. */
  readonly robotIds?: readonly string[];
  readonly validDays?: number;
}

/** A certificate with its key, which is kept nowhere else. */
export interface IssuedClient {
  readonly commonName: string;
  readonly serialNumber: string;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly caPem: string;
  readonly expiresAt: EpochMs;
}

export type ClientVerdict =
  | {
      readonly kind: 'accepted';
      readonly client: ClientIdentity;
      readonly scopes: readonly Scope[];
      readonly robotIds?: readonly string[];
      readonly expiresAt: EpochMs;
    }
  | { readonly kind: 'refused'; readonly reason: string };

/** The common name. Its colons keep it apart from every robot's, which is `<tenant>.<robot>`. */
export const clientCommonName = ({ kind, tenantId, name }: ClientIdentity): string => `${kind}:${tenantId}:${name}`;

/** Reads a common name back; `undefined` when it is not one of a program's. */
export function parseClientName(text: string): ClientIdentity | undefined {
  const [word = '', tenantId = '', name = '', ...rest] = text.split(':');
  const kind = CLIENT_KINDS.find((known) => known === word);
  if (!kind || rest.length > 0 || !TENANT_ID_PATTERN.test(tenantId) || !CLIENT_NAME.test(name)) return undefined;
  return { kind, tenantId, name };
}

/** Gives certificates to programs, takes them back, and says which are good. */
export class ClientCertificates {
  readonly #database: Database;
  readonly #authority: CertificateAuthority;
  readonly #clock: Clock;
  readonly #log: Logger;

  constructor(options: { database: Database; authority: CertificateAuthority; clock: Clock; log: Logger }) {
    this.#database = options.database;
    this.#authority = options.authority;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Makes a key and certifies it. Earlier certificates of the name stay good. @throws DomainError `invalid` */
  async issue(order: ClientOrder): Promise<IssuedClient> {
    const { kind, tenantId, name, scopes, robotIds, validDays = VALID_DAYS_DEFAULT } = order;
    const commonName = clientCommonName(order);
    if (!parseClientName(commonName)) throw invalid('name', 'must be 1 to 32 of A-Z, a-z, 0-9, _ and -');
    if (!Number.isInteger(validDays) || validDays < 1 || validDays > VALID_DAYS_MAX)
      throw invalid('valid days', `must be 1 to ${VALID_DAYS_MAX}`);
    if (kind === 'events' && robotIds !== undefined)
      throw invalid('robots', 'cannot be chosen for a program that listens to events: it hears its whole tenant');
    const [tenant] = await this.#database.query('select 1 from tenant where tenant_id = $1', [tenantId]);
    if (!tenant)
      throw new DomainError(
        'not_found',
        `there is no tenant '${tenantId}': create it with 'outrider-cloud tenant create ${tenantId}'`,
      );
    const keys = await generateKeyPair();
    const certificate = await this.#authority.signClient(commonName, keys.publicKey, validDays);
    const expiresAt = certificate.notAfter.getTime() as EpochMs;
    const { serialNumber } = certificate;
    await this.#database.query(
      `insert into client_certificate
         (serial_number, kind, tenant_id, name, fingerprint_sha256, scopes, robot_ids, issued_at, expires_at)
       values ($1, $2, $3, $4, $5, $6, $7, to_timestamp($8::float8 / 1000), to_timestamp($9::float8 / 1000))`,
      [
        serialNumber,
        kind,
        tenantId,
        name,
        await fingerprint(certificate),
        [...scopes],
        robotIds === undefined ? null : [...robotIds],
        this.#clock.epochMs(),
        expiresAt,
      ],
    );
    this.#log.info({ commonName, serialNumber }, 'client_certificate.issued');
    return {
      commonName,
      serialNumber,
      certificatePem: certificate.toString('pem'),
      privateKeyPem: await exportKey(keys.privateKey),
      caPem: this.#authority.caPem,
      expiresAt,
    };
  }

  /** Takes back every certificate of the name. @returns How many there were. */
  async revoke({ kind, tenantId, name }: ClientIdentity, reason: string): Promise<number> {
    const rows = await this.#database.query<{ serial_number: string }>(
      `update client_certificate
          set revoked_at = to_timestamp($1::float8 / 1000), revoked_reason = $2
        where kind = $3 and tenant_id = $4 and name = $5 and revoked_at is null
    returning serial_number`,
      [this.#clock.epochMs(), reason, kind, tenantId, name],
    );
    for (const row of rows) this.#log.info({ serialNumber: row.serial_number, reason }, 'client_certificate.revoked');
    return rows.length;
  }

  /** Every program of a kind that holds a certificate that is good now. */
  async list(kind: ClientKind): Promise<ClientIdentity[]> {
    const rows = await this.#database.query<{ tenant_id: string; name: string }>(
      `select distinct tenant_id, name from client_certificate
        where kind = $1 and revoked_at is null and expires_at > to_timestamp($2::float8 / 1000)
        order by tenant_id, name`,
      [kind, this.#clock.epochMs()],
    );
    return rows.map((row) => ({ kind, tenantId: row.tenant_id, name: row.name }));
  }

  /**
   * Whether a program under this certificate may be let in now, and what it may do. The TLS layer has checked its
   * signature already.
   */
  async verify(client: ClientIdentity, fingerprintSha256: string): Promise<ClientVerdict> {
    const [row] = await this.#database.query<{
      kind: string;
      tenant_id: string;
      name: string;
      scopes: string[];
      robot_ids: string[] | null;
      expires_at: Date;
      revoked_at: Date | null;
    }>(
      `select kind, tenant_id, name, scopes, robot_ids, expires_at, revoked_at
         from client_certificate where fingerprint_sha256 = $1`,
      [fingerprintSha256],
    );
    if (!row) return { kind: 'refused', reason: 'certificate is not on record' };
    if (row.kind !== client.kind || row.tenant_id !== client.tenantId || row.name !== client.name)
      return { kind: 'refused', reason: 'certificate belongs to another program' };
    if (row.revoked_at) return { kind: 'refused', reason: 'certificate is revoked' };
    const expiresAt = row.expires_at.getTime() as EpochMs;
    if (expiresAt <= this.#clock.epochMs()) return { kind: 'refused', reason: 'certificate has expired' };
    return {
      kind: 'accepted',
      client,
      scopes: row.scopes.filter(isScope),
      expiresAt,
      ...(row.robot_ids === null ? {} : { robotIds: row.robot_ids }),
    };
  }
}

const invalid = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `the ${field} ${reason}`, { problems: [{ field, reason }] });
