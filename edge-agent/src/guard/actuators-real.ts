import type { GpioPort } from '@outrider/firmware-bridge/gpio-port';
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

export interface RealActuatorsOptions {
  readonly line: Pick<McuLine, 'view' | 'heartbeat' | 'stop' | 'arm'> | undefined;
  readonly gpio: GpioPort;
  /** How long a stop may stay unacknowledged before the GPIO line is taken too. [ms] */
  readonly stopConfirmMs: number;
  /** A stop was not acknowledged in time; every path there is has been taken. */
  readonly onUnconfirmed: (detail: string) => void;
}

/** The microcontroller on its line, and the GPIO lines. */
export class RealActuators implements Actuators {
  readonly #options: RealActuatorsOptions;
  /** Counts stops, so that a late answer to an old one says nothing about the new one. */
  #stops = 0;
  #confirming: NodeJS.Timeout | undefined;

  constructor(options: RealActuatorsOptions) {
    this.#options = options;
  }

  get hasMcu(): boolean {
    return this.#options.line !== undefined;
  }

  mcu(nowMs: number): McuView {
    return this.#options.line?.view(nowMs) ?? NO_MCU;
  }

  estopLine(): 'clear' | 'pressed' | 'unknown' | undefined {
    return this.#options.gpio.hasEstop ? this.#options.gpio.readEstop() : undefined;
  }

  heartbeat(gateOpen: boolean, motionEpoch: number): void {
    this.#options.line?.heartbeat(gateOpen, motionEpoch);
  }

  stop(action: FailsafeAction, motionEpoch: number): void {
    try {
      const outcome = this.#options.line?.stop(motionEpoch);
      if (outcome) this.#confirm(outcome);
    } finally {
      // A hold keeps the motors powered; every worse action takes the line too.
      if (action !== 'HOLD') this.#takeLine();
    }
  }

  async arm(motionEpoch: number): Promise<CommandOutcome> {
    const { line, gpio } = this.#options;
    if (!line) return { kind: 'failed', reason: 'not_connected' };
    this.#stops += 1;
    clearTimeout(this.#confirming);
    gpio.setStop(false);
    return line.arm(motionEpoch);
  }

  /** No more is heard of stops that are under way. */
  close(): void {
    this.#stops += 1;
    clearTimeout(this.#confirming);
  }

  /** Waits for the microcontroller's word; takes the other path when it does not come in time. */
  #confirm(outcome: Promise<CommandOutcome>): void {
    this.#stops += 1;
    const stop = this.#stops;
    const { stopConfirmMs } = this.#options;
    let isAcknowledged = false;
    const escalate = (why: string): void => {
      if (isAcknowledged || stop !== this.#stops) return;
      this.#stops += 1;
      this.#takeLine();
      this.#options.onUnconfirmed(`told to stop, it ${why}; the GPIO line was taken`);
    };
    clearTimeout(this.#confirming);
    // What has arrived while this process was late is read first.
    const late = (): unknown => setImmediate(() => escalate(`did not acknowledge within ${stopConfirmMs} ms`));
    this.#confirming = setTimeout(late, stopConfirmMs);
    outcome.then(
      (given) => {
        if (given.kind !== 'accepted') {
          escalate(`answered ${given.reason}`);
          return;
        }
        isAcknowledged = true;
        if (stop === this.#stops) clearTimeout(this.#confirming);
      },
      (error: unknown) => escalate(`could not be told: ${String(error)}`),
    );
  }

  /** @throws when the line reads back as released. */
  #takeLine(): void {
    const { gpio } = this.#options;
    gpio.setStop(true);
    if (gpio.readStop?.() === 'released') throw new Error('the stop line was set and reads back as released');
  }
}
