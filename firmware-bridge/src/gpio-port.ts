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
