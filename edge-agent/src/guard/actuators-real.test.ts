import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GpioPort } from '@outrider/firmware-bridge/gpio-port';
import type { CommandOutcome } from '@outrider/firmware-bridge/link';
import { createLogger } from '@outrider/shared/log';
import t from 'tap';
import { SystemdNotifier } from '../systemd-notify.ts';
import { RealActuators } from './actuators-real.ts';

const LOG = createLogger('test', 'silent');

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !holds(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  if (!holds()) throw new Error(`waited in vain for ${what}`);
}

/** Actuators whose microcontroller answers when the test says so. */
function rigOf(options: { readonly stopConfirmMs?: number; readonly readsBack?: 'asserted' | 'released' } = {}) {
  const done: string[] = [];
  const unconfirmed: string[] = [];
  let settle: (outcome: CommandOutcome | Error) => void = () => {};
  const line = {
    view: () => {
      throw new Error('not asked');
    },
    heartbeat: (gateOpen: boolean) => done.push(`heartbeat ${gateOpen}`),
    stop: () => {
      done.push('frame');
      return new Promise<CommandOutcome>((resolve, reject) => {
        settle = (outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome));
      });
    },
    arm: async (): Promise<CommandOutcome> => ({ kind: 'accepted', state: 'ARMED' }),
  };
  const gpio: GpioPort = {
    hasEstop: false,
    readEstop: () => 'unknown',
    onEstop: () => () => {},
    setStop: (asserted) => done.push(`line ${asserted}`),
    ...(options.readsBack && { readStop: () => options.readsBack ?? 'unknown' }),
    close: () => {},
  };
  const actuators = new RealActuators({
    line,
    gpio,
    stopConfirmMs: options.stopConfirmMs ?? 10,
    onUnconfirmed: (detail) => unconfirmed.push(detail),
  });
  t.teardown(() => actuators.close());
  return { actuators, done, unconfirmed, line, settle: (outcome: CommandOutcome | Error) => settle(outcome) };
}

t.test('a stop takes the frame, and every action worse than a hold the GPIO line at once', async (t) => {
  const rig = rigOf({ stopConfirmMs: 5000 });
  rig.actuators.stop('HOLD', 1);
  t.same(rig.done, ['frame']);
  rig.actuators.stop('STOP1', 1);
  t.same(rig.done, ['frame', 'frame', 'line true']);
});

t.test('a stop that is not acknowledged in time takes the GPIO line and is said [I23]', async (t) => {
  const rig = rigOf();
  rig.actuators.stop('HOLD', 1);
  await until('the escalation', () => rig.unconfirmed.length > 0);
  t.same(rig.done, ['frame', 'line true']);
  t.match(rig.unconfirmed, [/did not acknowledge within 10 ms/]);
  rig.settle({ kind: 'failed', reason: 'closed' });
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(rig.unconfirmed.length, 1, 'once');
});

t.test('a stop that is refused or cannot be sent does not wait', async (t) => {
  for (const outcome of [{ kind: 'failed', reason: 'not_connected' } as const, new Error('port closed')]) {
    const rig = rigOf({ stopConfirmMs: 60_000 });
    rig.actuators.stop('HOLD', 1);
    rig.settle(outcome);
    await until('the escalation', () => rig.unconfirmed.length > 0);
    t.same(rig.done, ['frame', 'line true']);
  }
});

t.test('an acknowledged stop takes nothing more, and an old stop says nothing of a later arming', async (t) => {
  const rig = rigOf({ stopConfirmMs: 20 });
  rig.actuators.stop('HOLD', 1);
  rig.settle({ kind: 'accepted', state: 'STOPPED' });
  const other = rigOf({ stopConfirmMs: 20 });
  other.actuators.stop('HOLD', 1);
  t.match(await other.actuators.arm(2), { kind: 'accepted' });
  const third = rigOf({ stopConfirmMs: 40 });
  third.actuators.stop('HOLD', 1);
  await until('a later one to escalate', () => third.unconfirmed.length > 0);
  t.same([rig.done, rig.unconfirmed], [['frame'], []]);
  t.same([other.done, other.unconfirmed], [['frame', 'line false'], []]);
});

t.test('a line that reads back as released is thrown, and so is a frame that fails, after the line', async (t) => {
  const stuck = rigOf({ readsBack: 'released', stopConfirmMs: 60_000 });
  t.throws(() => stuck.actuators.stop('STOP0', 1), /reads back as released/);
  t.same(stuck.done, ['frame', 'line true']);
  const fine = rigOf({ readsBack: 'asserted', stopConfirmMs: 60_000 });
  fine.actuators.stop('STOP0', 1);
  const broken = rigOf();
  broken.line.stop = () => {
    throw new Error('EIO');
  };
  t.throws(() => broken.actuators.stop('STOP0', 1), /EIO/);
  t.same(broken.done, ['line true']);
});

t.test('systemd is told of readiness, and of life only as often as it must be', async (t) => {
  // A folder of its own: a socket that an earlier run has left would be in the way.
  const folder = mkdtempSync(join(tmpdir(), 'outrider-notify-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'notify');
  const heard: string[] = [];
  interface Receiver {
    bind(path: string): void;
    close(): void;
  }
  const { createSocket } = createRequire(import.meta.url)('unix-dgram') as {
    createSocket(type: string, listener: (bytes: Buffer) => void): Receiver;
  };
  const receiver = createSocket('unix_dgram', (bytes) => heard.push(bytes.toString()));
  receiver.bind(path);
  t.teardown(() => receiver.close());
  const notifier = new SystemdNotifier({ env: { NOTIFY_SOCKET: path, WATCHDOG_USEC: '1000000' }, log: LOG });
  t.equal(notifier.watchdogMs, 500);
  notifier.ready('two\nlines');
  for (let ms = 0; ms <= 1000; ms += 20) notifier.alive(ms);
  notifier.stopping();
  await until('the last word', () => heard.includes('STOPPING=1'));
  notifier.close();
  t.same(heard, ['READY=1\nSTATUS=two lines', ...Array<string>(4).fill('WATCHDOG=1'), 'STOPPING=1']);
});

t.test('without datagrams systemd-notify is run; without systemd nothing is', async (t) => {
  const dir = t.testdir();
  const said = join(dir, 'said');
  const tool = join(dir, 'systemd-notify');
  writeFileSync(tool, `#!/bin/sh\necho "$NOTIFY_SOCKET $@" >> ${said}\n`);
  chmodSync(tool, 0o755);
  const env = { NOTIFY_SOCKET: '/run/n', PATH: `${dir}:/usr/bin:/bin` };
  new SystemdNotifier({ env, log: LOG, mayUseDatagrams: false }).ready('up');
  await until('the tool', () => existsSync(said) && readFileSync(said, 'utf8').endsWith('\n'));
  t.equal(readFileSync(said, 'utf8'), `/run/n --pid=${process.pid} READY=1 STATUS=up\n`);
  const deaf = new SystemdNotifier({ env: { PATH: dir, WATCHDOG_USEC: '1000' }, log: LOG });
  t.equal(deaf.watchdogMs, undefined);
  deaf.ready('up');
  deaf.alive(0);
  const other = { NOTIFY_SOCKET: '/nonexistent/n', WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' };
  const foreign = new SystemdNotifier({ env: other, log: LOG });
  t.equal(foreign.watchdogMs, undefined, 'the watchdog of another process');
  foreign.ready('nobody listens');
  foreign.close();
});
