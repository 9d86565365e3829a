import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import t from 'tap';
import { openGpio } from '../src/gpio.ts';
import type { EstopState, GpioDriver } from '../src/gpio-port.ts';
import { SimulatedGpio } from '../src/gpio-simulated.ts';

t.setTimeout(590_000);

/** Until the condition holds. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

t.test('simulated: the button is pressed by call, and the output stops when closed', async (t) => {
  const gpio = new SimulatedGpio();
  const seen: EstopState[] = [];
  const remove = gpio.onEstop((state) => seen.push(state));
  t.equal(gpio.readEstop(), 'clear');
  t.equal(gpio.stopAsserted, true, 'starts at stop');
  gpio.setStop(false);
  t.equal(gpio.stopAsserted, false);
  gpio.setEstop('pressed');
  gpio.setEstop('pressed');
  remove();
  gpio.setEstop('clear');
  t.strictSame(seen, ['pressed']);
  gpio.close();
  gpio.close();
  gpio.setStop(false);
  t.equal(gpio.stopAsserted, true);
});

t.test('simulated by a file: what is not said clearly is unknown', async (t) => {
  const file = join(t.testdir({ estop: 'clear\n' }), 'estop');
  const gpio = await openGpio({ driver: 'simulated', file });
  t.teardown(() => gpio.close());
  t.equal(gpio.readEstop(), 'clear');
  writeFileSync(file, 'pressed');
  await until(() => gpio.readEstop() === 'pressed');
  writeFileSync(file, 'perhaps');
  await until(() => gpio.readEstop() === 'unknown');
  writeFileSync(file, 'clear');
  await until(() => gpio.readEstop() === 'clear');
  rmSync(file);
  await until(() => gpio.readEstop() === 'unknown');
});

t.test('none: there is no input, and it is not clear either', async (t) => {
  const gpio = await openGpio({ driver: 'none' });
  t.equal(gpio.hasEstop, false);
  t.equal(gpio.readEstop(), 'unknown');
  gpio.setStop(true);
  gpio.close();
});

t.test('wrong options are refused by name', async (t) => {
  await t.rejects(openGpio({ driver: 'onoff', estopInput: 1.5 }), {
    code: 'invalid',
    message: /gpio\.estopInput.*1\.5/,
  });
  await t.rejects(openGpio({ driver: 'gpiod', estopInput: 4, stopOutput: 4 }), {
    message: /gpio\.stopOutput.*same line/,
  });
  await t.rejects(openGpio({ driver: 'lever' as GpioDriver }), { message: /onoff, gpiod, simulated, none/ });
});

t.test(
  'onoff names the way out on a kernel without sysfs GPIO',
  { skip: existsSync('/sys/class/gpio') ? 'this kernel has sysfs GPIO' : false },
  async (t) => {
    await t.rejects(openGpio({ driver: 'onoff', estopInput: 17 }), {
      code: 'unavailable',
      message: /\/sys\/class\/gpio.*gpio\.driver to gpiod/,
    });
  },
);

/** Tools with libgpiod's command line whose one input is a file `level` and whose one output is the file `output`. */
function fakeTools(folder: string, version: string): string {
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  const tool = (name: string, body: string): void => {
    writeFileSync(join(bin, name), `#!/bin/sh\ncd '${folder}'\necho "${name} $*" >> calls\n${body}`, { mode: 0o755 });
  };
  tool(
    'gpioget',
    `[ "$1" = --version ] && { echo 'gpioget (libgpiod) ${version}'; exit; }\n[ -f level ] && cat level || exit 1\n`,
  );
  tool(
    'gpioset',
    'trap "echo released > output; exit" TERM\nfor last; do :; done\necho "$last" | cut -d= -f2 > output\nwhile :; do sleep 0.05; done\n',
  );
  return bin;
}

interface Rig {
  readonly folder: string;
  readonly said: Record<string, unknown>[];
  readonly child: ChildProcessByStdio<Writable, Readable, null>;
}

function startRig(folder: string, path: string): Rig {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'gpiod-rig.js')], {
    env: { PATH: path },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const said: Record<string, unknown>[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => said.push(JSON.parse(line) as Record<string, unknown>));
  return { folder, said, child };
}

const outputOf = (folder: string): string =>
  existsSync(join(folder, 'output')) ? readFileSync(join(folder, 'output'), 'utf8').trim() : '';

for (const version of ['v1.6.3', 'v2.1']) {
  t.test(`gpiod ${version}: level 1 is clear, all else is not, and the output falls to stop when we die`, async (t) => {
    const folder = t.testdir({ level: '1\n' });
    const { said, child } = startRig(folder, `${fakeTools(folder, version)}:/usr/bin:/bin`);
    t.teardown(() => child.kill('SIGKILL'));
    const last = (): unknown => said.findLast((line) => 'estop' in line)?.['estop'];
    await until(() => last() === 'clear' && outputOf(folder) === '0');
    const calls = readFileSync(join(folder, 'calls'), 'utf8');
    const expected = version.startsWith('v1')
      ? /gpioset --mode=signal --bias=pull-down gpiochip4 27=0/
      : /gpioset --bias=pull-down --chip gpiochip4 27=0/;
    t.match(calls, expected);
    writeFileSync(join(folder, 'level'), '0\n');
    await until(() => last() === 'pressed');
    rmSync(join(folder, 'level'));
    await until(() => last() === 'unknown');
    child.stdin.write('run\n');
    await until(() => outputOf(folder) === '1');
    child.stdin.write('stop\n');
    await until(() => outputOf(folder) === '0');
    child.stdin.write('run\n');
    await until(() => outputOf(folder) === '1');
    child.kill('SIGKILL');
    await once(child, 'exit');
    await until(() => outputOf(folder) === 'released');
    t.pass('the line was let go');
  });
}

t.test('gpiod without its tools names the package', async (t) => {
  const folder = t.testdir({ empty: {} });
  const { said } = startRig(folder, join(folder, 'empty'));
  await until(() => said.length > 0);
  t.match(said[0], { failed: /apt-get install gpiod/ });
});

t.test('gpiod with a line that cannot be read fails at once', async (t) => {
  const folder = t.testdir({});
  const { said } = startRig(folder, `${fakeTools(folder, 'v1.6.3')}:/usr/bin:/bin`);
  await until(() => said.length > 0);
  t.match(said[0], { failed: /gpio input cannot be read.*gpioinfo/ });
});
