import type { OperationalState, Presence, RobotDescriptor } from '@outrider/shared/robot';

/** Enough to find a robot's rows and its MQTT name. */
export interface RobotRef {
  readonly robotPk: number;
  readonly tenantId: string;
  readonly robotId: string;
}

/** A robot as its tenant sees it. */
export interface Robot extends RobotRef, RobotDescriptor {
  readonly status: OperationalState;
  readonly presence: Presence | undefined;
  /** When anything last came from it. [ms since 1970] */
  readonly lastSeenMs: number | undefined;
  readonly registeredAtMs: number;
}

export interface RobotFilter {
  readonly type?: string | undefined;
  readonly status?: string | undefined;
  readonly capability?: string | undefined;
  readonly limit: number;
  readonly offset: number;
  /** The only robots to see. Absent: all of the tenant's. */
  readonly robotIds?: readonly string[] | undefined;
}

export interface RobotPage {
  readonly robots: readonly Robot[];
  readonly total: number;
}
