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
