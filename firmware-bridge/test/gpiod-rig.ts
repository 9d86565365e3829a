/* Drives the gpiod driver with tools from this process's PATH. Started by gpio.test.ts, which puts its own there. */
import { createInterface } from 'node:readline';
import { openGpio } from '../src/gpio.ts';

const say = (value: unknown): void => {
  process.stdout.write(`${JSON.stringify(value)}\n`);
};

try {
  const gpio = await openGpio({ driver: 'gpiod', estopInput: 17, stopOutput: 27, chip: 'gpiochip4' });
  say({ opened: true });
  gpio.onEstop((state) => say({ estop: state }));
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'stop') gpio.setStop(true);
    if (line === 'run') gpio.setStop(false);
    if (line === 'close') gpio.close();
  }
} catch (error) {
  say({ failed: error instanceof Error ? error.message : String(error) });
}
