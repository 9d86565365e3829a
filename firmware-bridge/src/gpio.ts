import { DomainError } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';

/**
 * `pressed` also when the input is open, and `unknown` when it cannot be read. A reader treats `unknown` as pressed:
 * a cut wire must stop the robot.
 */
export type EstopState = 'clear' | 'pressed' | 'unknown';

/**
 * The emergency-stop input and the stop output, whatever drives them.
 *
 * Fail-safe polarity. The input hangs on a normally closed contact: closed pulls the line high and means `clear`,
 * open (button pressed, wire cut, plug out) leaves it low and means `pressed`. The output is high for "may run" and
 * low for "stop", so that a dead process, a reset pin and a cut wire all stop.
 */
export interface GpioPort {
  /** Whether an emergency-stop input is configured. Without one `readEstop` says `unknown` and means nothing. */
  readonly hasEstop: boolean;
  readEstop(): EstopState;
  /** Called on each change. @returns A function that removes the listener. */
  onEstop(listener: (state: EstopState) => void): () => void;
  /** True drives the output to "stop". Does nothing without an output. @throws DomainError `unavailable` */
  setStop(asserted: boolean): void;
  /** What the output really says, from a driver that can read it back. */
  readStop?(): 'asserted' | 'released' | 'unknown';
  /** Leaves the output at "stop". Closing twice is harmless. */
  close(): void;
}

export const GPIO_DRIVERS = ['onoff', 'gpiod', 'simulated', 'none'] as const;
export type GpioDriver = (typeof GPIO_DRIVERS)[number];

export interface GpioOptions {
  readonly driver: GpioDriver;
  /** Line number of the emergency-stop input; none when left out. For onoff the global number of sysfs. */
  readonly estopInput?: number;
  /** Line number of the stop output; none when left out. */
  readonly stopOutput?: number;
  /** For gpiod. Default `gpiochip0`. */
  readonly chip?: string;
  /** For simulated: a file with `clear` or `pressed` in it, read every 20 ms. Without it, calls set the input. */
  readonly file?: string;
  /** Where a driver that loses its line says so. */
  readonly log?: Logger;
}

/**
 * Opens the driver that the options name. The output starts at "stop".
 *
 * @throws DomainError `invalid` for a wrong option, `unavailable` when this machine has not what the driver needs;
 * both name the fix.
 */
export async function openGpio(options: GpioOptions): Promise<GpioPort> {
  for (const field of ['estopInput', 'stopOutput'] as const) checkLine(field, options[field]);
  if (options.estopInput !== undefined && options.estopInput === options.stopOutput) {
    throw invalid('stopOutput', 'is the same line as the input');
  }
  // Only the chosen driver is loaded: onoff brings a native module.
  switch (options.driver) {
    case 'onoff':
      return (await import('./gpio-onoff.ts')).openOnoff(options);
    case 'gpiod':
      return (await import('./gpio-gpiod.ts')).openGpiod(options);
    case 'simulated':
      return new (await import('./gpio-simulated.ts')).SimulatedGpio(options);
    case 'none':
      return NO_GPIO;
    default:
      throw invalid('driver', `must be one of ${GPIO_DRIVERS.join(', ')}`);
  }
}

/** A machine without lines. */
const NO_GPIO: GpioPort = {
  hasEstop: false,
  readEstop: () => 'unknown',
  onEstop: () => () => {},
  setStop: () => {},
  close: () => {},
};

/** What the level of the input line means. Fail-safe: only a clear 1 is `clear`. */
export const estopFromLevel = (level: number | undefined): EstopState =>
  level === 1 ? 'clear' : level === 0 ? 'pressed' : 'unknown';

/** Keeps the last state and tells listeners of changes. */
export class EstopWatch {
  readonly #listeners = new Set<(state: EstopState) => void>();
  #state: EstopState = 'unknown';

  get state(): EstopState {
    return this.#state;
  }

  set(state: EstopState): void {
    if (state === this.#state) return;
    this.#state = state;
    for (const listener of this.#listeners) listener(state);
  }

  on(listener: (state: EstopState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

function checkLine(field: string, line: number | undefined): void {
  if (line !== undefined && (!Number.isInteger(line) || line < 0 || line > 65_535)) {
    throw invalid(field, `must be a line number from 0 to 65535, not ${line}`);
  }
}

function invalid(field: string, reason: string): DomainError {
  return new DomainError('invalid', `gpio.${field} ${reason}`, { problems: [{ field: `gpio.${field}`, reason }] });
}
