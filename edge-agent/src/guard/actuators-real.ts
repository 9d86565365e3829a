import type { GpioPort } from '@outrider/firmware-bridge/gpio';
import type { CommandOutcome } from '@outrider/firmware-bridge/link';
import type { FailsafeAction } from '@outrider/shared/failsafe/modes';
import type { Actuators, McuView } from './actuators.ts';
import type { McuLine } from './mcu-line.ts';

const NO_MCU: McuView = {
  state: 'UNKNOWN',
  lastFrameMs: undefined,
  hasRestarted: false,
  hasArmed: false,
  isEstopPressed: undefined,
  framesOk: 0,
  framesBad: 0,
  heartbeatRttMs: Number.NaN,
};

/** The microcontroller on its line, and the GPIO lines. */
export class RealActuators implements Actuators {
  readonly #line: McuLine | undefined;
  readonly #gpio: GpioPort;

  constructor(line: McuLine | undefined, gpio: GpioPort) {
    this.#line = line;
    this.#gpio = gpio;
  }

  get hasMcu(): boolean {
    return this.#line !== undefined;
  }

  mcu(nowMs: number): McuView {
    return this.#line?.view(nowMs) ?? NO_MCU;
  }

  estopLine(): 'clear' | 'pressed' | 'unknown' | undefined {
    return this.#gpio.hasEstop ? this.#gpio.readEstop() : undefined;
  }

  heartbeat(gateOpen: boolean, motionEpoch: number): void {
    this.#line?.heartbeat(gateOpen, motionEpoch);
  }

  stop(action: FailsafeAction, motionEpoch: number): void {
    this.#line?.stop(motionEpoch);
    // A hold keeps the motors powered; every worse action takes the line too.
    if (action !== 'HOLD') this.#gpio.setStop(true);
  }

  async arm(motionEpoch: number): Promise<CommandOutcome> {
    if (!this.#line) return { kind: 'failed', reason: 'not_connected' };
    this.#gpio.setStop(false);
    return this.#line.arm(motionEpoch);
  }
}
