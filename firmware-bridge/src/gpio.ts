import { DomainError } from '@outrider/shared/errors';
import { GPIO_DRIVERS, type GpioOptions, type GpioPort } from './gpio-port.ts';

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

function checkLine(field: string, line: number | undefined): void {
  if (line !== undefined && (!Number.isInteger(line) || line < 0 || line > 65_535)) {
    throw invalid(field, `must be a line number from 0 to 65535, not ${line}`);
  }
}

function invalid(field: string, reason: string): DomainError {
  return new DomainError('invalid', `gpio.${field} ${reason}`, { problems: [{ field: `gpio.${field}`, reason }] });
}
