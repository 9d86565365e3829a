import type { HealthVerdict } from '@outrider/shared/health/verdict';
import type { RobotRef } from '../telemetry/ports.ts';

/** What the control plane says of a robot that does not judge itself. */
export interface CloudVerdict {
  readonly robot: RobotRef;
  readonly verdict: HealthVerdict;
  /** The verdict with which an alarm began since the last report. */
  readonly raised: HealthVerdict | undefined;
}

/** The storage that the analysis needs. */
export interface HealthStore {
  /** What was learnt of a robot, by whichever replica. */
  loadModel(robotPk: number): Promise<Uint8Array | undefined>;
  /** Replaces what is stored by what `merge` makes of it, while no other replica can. */
  saveModel(robotPk: number, merge: (stored: Uint8Array | undefined) => Uint8Array, nowMs: number): Promise<void>;
  /**
   * Stores verdicts, and with them in one transaction an `anomaly.detected.v1` for each alarm that no replica has
   * reported yet.
   */
  report(verdicts: readonly CloudVerdict[], nowMs: number): Promise<void>;
}
