import { existsSync } from 'node:fs';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import type { Gpio } from 'onoff';
import { EstopWatch, estopFromLevel, type GpioOptions, type GpioPort } from './gpio-port.ts';

const SYSFS_GPIO = '/sys/class/gpio';
/** Beside the interrupt, in case an edge was missed. [ms] */
const POLL_MS = 50;

/**
 * Lines through sysfs. Newer kernels have it no longer.
 *
 * @throws DomainError `unavailable`
 */
export async function openOnoff(options: GpioOptions): Promise<GpioPort> {
  if (!existsSync(SYSFS_GPIO)) {
    const fix = 'this kernel has no sysfs GPIO; set gpio.driver to gpiod';
    throw new DomainError('unavailable', `gpio.driver onoff needs ${SYSFS_GPIO}: ${fix}`, { subject: 'gpio' });
  }
  const onoff = await import('onoff');
  const opened: Gpio[] = [];
  const open = (line: number | undefined, make: (line: number) => Gpio): Gpio | undefined => {
    if (line === undefined) return undefined;
    try {
      const gpio = make(line);
      opened.push(gpio);
      return gpio;
    } catch (cause) {
      for (const gpio of opened) gpio.unexport();
      const fix = `check the number (/sys/kernel/debug/gpio lists them) and the rights to ${SYSFS_GPIO} (group gpio)`;
      throw new DomainError('unavailable', `gpio line ${line}: ${errorMessage(cause)}; ${fix}`, { cause });
    }
  };
  const input = open(options.estopInput, (line) => new onoff.Gpio(line, 'in', 'both'));
  const output = open(options.stopOutput, (line) => new onoff.Gpio(line, 'low'));
  return new OnoffGpio(input, output);
}

class OnoffGpio implements GpioPort {
  readonly hasEstop: boolean;
  readonly #input: Gpio | undefined;
  readonly #output: Gpio | undefined;
  readonly #watch = new EstopWatch();
  readonly #poll: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(input: Gpio | undefined, output: Gpio | undefined) {
    this.hasEstop = input !== undefined;
    this.#input = input;
    this.#output = output;
    if (input === undefined) return;
    input.watch(() => this.#read());
    this.#poll = setInterval(() => this.#read(), POLL_MS);
    this.#poll.unref();
    this.#read();
  }

  readEstop(): ReturnType<GpioPort['readEstop']> {
    this.#read();
    return this.#watch.state;
  }

  onEstop(listener: Parameters<GpioPort['onEstop']>[0]): () => void {
    return this.#watch.on(listener);
  }

  setStop(asserted: boolean): void {
    if (this.#closed || this.#output === undefined) return;
    try {
      this.#output.writeSync(asserted ? 0 : 1);
    } catch (cause) {
      throw new DomainError('unavailable', `the stop output could not be set: ${errorMessage(cause)}`, { cause });
    }
  }

  readStop(): 'asserted' | 'released' | 'unknown' {
    if (this.#closed || this.#output === undefined) return 'unknown';
    try {
      return this.#output.readSync() === 0 ? 'asserted' : 'released';
    } catch {
      return 'unknown';
    }
  }

  close(): void {
    if (this.#closed) return;
    clearInterval(this.#poll);
    try {
      this.setStop(true);
    } finally {
      this.#closed = true;
      this.#input?.unwatchAll();
      this.#input?.unexport();
      // The output stays exported: unexporting would let go of the level.
    }
  }

  #read(): void {
    if (this.#closed || this.#input === undefined) return;
    try {
      this.#watch.set(estopFromLevel(this.#input.readSync()));
    } catch {
      this.#watch.set('unknown');
    }
  }
}
