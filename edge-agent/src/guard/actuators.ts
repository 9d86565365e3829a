import type { CommandOutcome } from '@outrider/firmware-bridge/link';
import type { FailsafeAction } from '@outrider/shared/failsafe/modes';
import type { McuState } from '@outrider/shared/failsafe/state';

/** What is known of the microcontroller now. */
export interface McuView {
  readonly state: McuState;
  /** Monotonic time of its last valid frame; `undefined` before the first. [ms] */
  readonly lastFrameMs: number | undefined;
  /** It restarted since the gate last opened. */
  readonly hasRestarted: boolean;
  /** It has confirmed ARMED since the gate last opened. */
  readonly hasArmed: boolean;
  /** It was told to hold, and not to let go again. */
  readonly isHoldWanted?: boolean;
  /** Its own emergency-stop input; `undefined` before its first status. */
  readonly isEstopPressed: boolean | undefined;
  readonly framesOk: number;
  readonly framesBad: number;
  /** NaN before the first answer. [ms] */
  readonly heartbeatRttMs: number;
}

/** Everything that the guard's loop can move or stop. The loop knows nothing else of serial ports and lines. */
export interface Actuators {
  /** Whether there is a microcontroller at all in the configuration. */
  readonly hasMcu: boolean;
  mcu(nowMs: number): McuView;
  /** The emergency-stop input: `undefined` without one, `unknown` when it cannot be read. */
  estopLine(): 'clear' | 'pressed' | 'unknown' | undefined;
  /** Renews the lease on the microcontroller. Every 20 ms, from the loop itself. */
  heartbeat(gateOpen: boolean, motionEpoch: number): void;
  /**
   * Stops. The frames and the line are written before it returns; nothing is waited for.
   *
   * @throws whatever a line throws, once everything else has been told to stop.
   */
  stop(action: FailsafeAction, motionEpoch: number): void;
  /** Arms the microcontroller for this motion epoch and lets the stop line go. */
  arm(motionEpoch: number): Promise<CommandOutcome>;
}
