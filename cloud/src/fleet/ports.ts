import type { RobotDescriptor } from '@outrider/shared/robot';
import type { Robot, RobotFilter, RobotPage, RobotRef } from './robot.ts';

/** What the fleet needs kept. Every call names the tenant, so no query can cross it. */
export interface FleetStore {
  /** @returns `undefined` when the tenant has a robot of that id already. */
  addRobot(
    tenantId: string,
    descriptor: RobotDescriptor,
    apiKeyHash: string,
    atMs: number,
  ): Promise<RobotRef | undefined>;
  findRobot(tenantId: string, robotId: string): Promise<RobotRef | undefined>;
  readRobot(tenantId: string, robotId: string): Promise<Robot | undefined>;
  listRobots(tenantId: string, filter: RobotFilter): Promise<RobotPage>;
  /** Marks the robot as gone and its API keys as revoked, in one transaction. */
  removeRobot(robotPk: number, atMs: number): Promise<void>;
}

/** One certificate that a robot was given. */
export interface CertificateRecord {
  readonly serialNumber: string;
  readonly fingerprintSha256: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly revokedAtMs: number | undefined;
  readonly revokedReason: string | undefined;
}

/** The certificates of robots. */
export interface DeviceCertificates {
  /** Newest first. */
  listRobotCertificates(robotPk: number): Promise<CertificateRecord[]>;
  /** @throws DomainError `not_found` */
  revokeCertificate(robotPk: number, serialNumber: string, reason: string): Promise<void>;
  revokeRobotCertificates(robotPk: number, reason: string): Promise<number>;
}

/** One line of the audit trail. */
export interface AuditEntry {
  readonly tenantId: string | undefined;
  readonly subject: string | undefined;
  readonly action: string;
  readonly outcome: string;
  readonly requestId: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly durationMs?: number;
  readonly atMs: number;
}

export interface AuditTrail {
  append(entry: AuditEntry): Promise<void>;
}
