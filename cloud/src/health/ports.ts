import type { HealthVerdict } from '@outrider/shared/health/verdict';
import type { RobotRef } from '../telemetry/ports.ts';

/** Where a robot's own agent says how it is, among its states. */
export const EDGE_KEY = 'health';

/** What the control plane says of a robot that does not judge itself. */
export interface CloudVerdict {
  readonly robot: RobotRef;
  readonly verdict: HealthVerdict;
  /** The verdict with which an alarm began since the last report. */
  readonly raised: HealthVerdict | undefined;
}

/** What is known of a robot when its analysis begins. */
export interface KnownHealth {
  /** What was learnt of it, by whichever replica. */
  readonly model: Uint8Array | undefined;
  /** When its own agent said last how it is, to whichever replica. [ms since 1970] */
  readonly edgeJudgedMs: number | undefined;
}

/** The storage that the analysis needs. */
export interface HealthStore {
  load(robotPk: number): Promise<KnownHealth>;
  /** Replaces what is stored by what `merge` makes of it, while no other replica can. */
  saveModel(robotPk: number, merge: (stored: Uint8Array | undefined) => Uint8Array, nowMs: number): Promise<void>;
  /**
   * Stores verdicts, and with them in one transaction an `anomaly.detected.v1` for each alarm that no replica has
   * reported yet.
   */
  report(verdicts: readonly CloudVerdict[], nowMs: number): Promise<void>;
}
