import type { FailsafeMode } from '@outrider/shared/failsafe/modes';

/** A stop that was asked for and that the robot has not answered yet. */
export interface PendingStop {
  readonly commandId: string;
  readonly tenantId: string;
  readonly robotId: string;
  readonly mode: FailsafeMode;
  readonly reason: string;
  readonly requestedBy: string;
  readonly traceId: string;
  readonly issuedAtMs: number;
}

/** Stops that outlive a restart of the control plane. They are read from the audit trail, where each is written. */
export interface PendingStopStore {
  /** Oldest first. */
  unansweredStops(limit: number): Promise<PendingStop[]>;
}
