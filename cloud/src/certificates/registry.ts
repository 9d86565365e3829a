import { DomainError } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { Clock, EpochMs } from '@outrider/shared/time';
import type { CertificateRecord } from '../fleet/ports.ts';
import type { Database } from '../storage/database.ts';
import type { RobotRef } from '../telemetry/ports.ts';
import type { CertificateAuthority } from './authority.ts';
import { readSigningRequest } from './signing-request.ts';
import { fingerprint } from './x509.ts';

const VALID_DAYS_DEFAULT = 90;
/** Good certificates that are remembered. */
const ACCEPTED_MAX = 100_000;

/** A certificate as it was given to a robot. */
export interface IssuedCertificate {
  readonly serialNumber: string;
  readonly certificatePem: string;
  readonly caPem: string;
  readonly expiresAt: EpochMs;
}

export type CertificateVerdict =
  | { readonly kind: 'accepted'; readonly robot: RobotRef; readonly expiresAt: EpochMs }
  | { readonly kind: 'refused'; readonly reason: string };

export interface RegistryOptions {
  readonly database: Database;
  readonly authority: CertificateAuthority;
  readonly clock: Clock;
  readonly log: Logger;
  /** How long robots' certificates are good. */
  readonly validDays?: number;
}

/** Gives certificates to robots, takes them back, and says which are good. */
export class CertificateRegistry {
  readonly #options: RegistryOptions;
  /** Certificates that were good when last looked at, by fingerprint. */
  readonly #accepted = new Map<string, Extract<CertificateVerdict, { kind: 'accepted' }>>();
  readonly #listeners = new Set<(robotPk: number, device: DeviceIdentity) => void>();

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  get caPem(): string {
    return this.#options.authority.caPem;
  }

  /**
   * Certifies the key of a robot's signing request. Earlier certificates stay good until they expire or are
   * revoked, so that a robot can change over without a gap.
   *
   * @throws DomainError `invalid` when the request is not usable.
   */
  async issueRobotCertificate(robot: RobotRef, csrPem: string): Promise<IssuedCertificate> {
    const { authority, clock, database, log, validDays = VALID_DAYS_DEFAULT } = this.#options;
    const publicKey = await readSigningRequest(csrPem);
    const certificate = await authority.signClient(deviceName(robot), publicKey, validDays);
    const expiresAt = certificate.notAfter.getTime() as EpochMs;
    await database.query(
      `insert into robot_certificate (serial_number, robot_pk, fingerprint_sha256, issued_at, expires_at)
       values ($1, $2, $3, to_timestamp($4::float8 / 1000), to_timestamp($5::float8 / 1000))`,
      [certificate.serialNumber, robot.robotPk, await fingerprint(certificate), clock.epochMs(), expiresAt],
    );
    log.info({ robotId: robot.robotId, serialNumber: certificate.serialNumber }, 'certificate.issued');
    return {
      serialNumber: certificate.serialNumber,
      certificatePem: certificate.toString('pem'),
      caPem: authority.caPem,
      expiresAt,
    };
  }

  /**
   * Takes back one certificate of a robot. Its live session ends at once.
   *
   * @throws DomainError `not_found`
   */
  async revokeCertificate(robotPk: number, serialNumber: string, reason: string): Promise<void> {
    const rows = await this.#revoke(
      'robot_certificate.robot_pk = $3 and serial_number = $4',
      [robotPk, serialNumber],
      reason,
    );
    if (rows === 0) throw new DomainError('not_found', 'no such certificate', { subject: 'certificate' });
  }

  /** Every certificate that the robot was given, newest first. */
  async listRobotCertificates(robotPk: number): Promise<CertificateRecord[]> {
    const rows = await this.#options.database.query<{
      serial_number: string;
      fingerprint_sha256: string;
      issued_at: Date;
      expires_at: Date;
      revoked_at: Date | null;
      revoked_reason: string | null;
    }>(
      `select serial_number, fingerprint_sha256, issued_at, expires_at, revoked_at, revoked_reason
         from robot_certificate where robot_pk = $1 order by issued_at desc, serial_number`,
      [robotPk],
    );
    return rows.map((row) => ({
      serialNumber: row.serial_number,
      fingerprintSha256: row.fingerprint_sha256,
      issuedAtMs: row.issued_at.getTime(),
      expiresAtMs: row.expires_at.getTime(),
      revokedAtMs: row.revoked_at?.getTime(),
      revokedReason: row.revoked_reason ?? undefined,
    }));
  }

  /** Takes back every certificate of a robot. Its live session ends at once. @returns How many there were. */
  async revokeRobotCertificates(robotPk: number, reason: string): Promise<number> {
    return await this.#revoke('robot_certificate.robot_pk = $3', [robotPk], reason);
  }

  /** Hears of revocations made by this process. Others show at the broker's regular check. */
  onRevoked(listener: (robotPk: number, device: DeviceIdentity) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Whether a session under this certificate may live now. The TLS layer has checked its signature already.
   *
   * While the database is away, a certificate that was good stays good: a robot whose line was cut must be able to come
   * back and hear a stop, and nobody can revoke anything meanwhile.
   */
  async verify(device: DeviceIdentity, fingerprintSha256: string): Promise<CertificateVerdict> {
    let verdict: CertificateVerdict;
    try {
      verdict = await this.#look(device, fingerprintSha256);
    } catch (error) {
      const known = this.#accepted.get(fingerprintSha256);
      const isGood = known && known.expiresAt > this.#options.clock.epochMs();
      if (!isGood || deviceName(known.robot) !== deviceName(device)) throw error;
      return known;
    }
    if (verdict.kind === 'refused') this.#accepted.delete(fingerprintSha256);
    else {
      if (this.#accepted.size >= ACCEPTED_MAX) this.#accepted.clear();
      this.#accepted.set(fingerprintSha256, verdict);
    }
    return verdict;
  }

  async #look(device: DeviceIdentity, fingerprintSha256: string): Promise<CertificateVerdict> {
    const [row] = await this.#options.database.query<{
      robot_pk: number;
      expires_at: Date;
      revoked_at: Date | null;
      deregistered_at: Date | null;
      is_named: boolean;
    }>(
      `select r.robot_pk, c.expires_at, c.revoked_at, r.deregistered_at,
              (r.tenant_id = $2 and r.robot_id = $3) as is_named
         from robot_certificate c join robot r using (robot_pk) where c.fingerprint_sha256 = $1`,
      [fingerprintSha256, device.tenantId, device.robotId],
    );
    if (!row) return { kind: 'refused', reason: 'certificate is not on record' };
    if (!row.is_named) return { kind: 'refused', reason: 'certificate belongs to another robot' };
    if (row.revoked_at) return { kind: 'refused', reason: 'certificate is revoked' };
    if (row.deregistered_at) return { kind: 'refused', reason: 'robot is deregistered' };
    const expiresAt = row.expires_at.getTime() as EpochMs;
    if (expiresAt <= this.#options.clock.epochMs()) return { kind: 'refused', reason: 'certificate has expired' };
    return { kind: 'accepted', robot: { robotPk: row.robot_pk, ...device }, expiresAt };
  }

  /** Which of these robots hold no certificate that is good now. */
  async withoutCertificate(devices: readonly DeviceIdentity[]): Promise<DeviceIdentity[]> {
    if (devices.length === 0) return [];
    const good = await this.#options.database.query<{ tenant_id: string; robot_id: string }>(
      `select distinct r.tenant_id, r.robot_id
         from unnest($1::text[], $2::text[]) as given (tenant_id, robot_id)
         join robot r using (tenant_id, robot_id) join robot_certificate c using (robot_pk)
        where r.deregistered_at is null and c.revoked_at is null and c.expires_at > to_timestamp($3::float8 / 1000)`,
      [devices.map((each) => each.tenantId), devices.map((each) => each.robotId), this.#options.clock.epochMs()],
    );
    const names = new Set(good.map((row) => deviceName({ tenantId: row.tenant_id, robotId: row.robot_id })));
    return devices.filter((device) => !names.has(deviceName(device)));
  }

  /** The signed list of revoked certificates that have not expired, PEM: for an external broker. */
  async revocationListPem(): Promise<string> {
    const rows = await this.#options.database.query<{ serial_number: string; revoked_at: Date }>(
      `select serial_number, revoked_at from robot_certificate
        where revoked_at is not null and expires_at > to_timestamp($1::float8 / 1000)
       union all
       select serial_number, revoked_at from client_certificate
        where revoked_at is not null and expires_at > to_timestamp($1::float8 / 1000) order by revoked_at`,
      [this.#options.clock.epochMs()],
    );
    return await this.#options.authority.revocationList(
      rows.map((row) => ({ serialNumber: row.serial_number, revokedAtMs: row.revoked_at.getTime() })),
    );
  }

  async #revoke(where: string, values: readonly unknown[], reason: string): Promise<number> {
    const rows = await this.#options.database.query<{
      robot_pk: number;
      serial_number: string;
      tenant_id: string;
      robot_id: string;
    }>(
      `update robot_certificate
          set revoked_at = coalesce(revoked_at, to_timestamp($1::float8 / 1000)), revoked_reason = coalesce(revoked_reason, $2)
         from robot r
        where r.robot_pk = robot_certificate.robot_pk and ${where}
    returning robot_certificate.robot_pk, serial_number, r.tenant_id, r.robot_id`,
      [this.#options.clock.epochMs(), reason, ...values],
    );
    for (const row of rows) this.#options.log.info({ serialNumber: row.serial_number, reason }, 'certificate.revoked');
    // Whatever was taken back must not come in by what is remembered.
    if (rows.length > 0) this.#accepted.clear();
    for (const row of new Map(rows.map((each) => [each.robot_pk, each])).values()) {
      const device = { tenantId: row.tenant_id, robotId: row.robot_id };
      for (const listener of this.#listeners) listener(row.robot_pk, device);
    }
    return rows.length;
  }
}
