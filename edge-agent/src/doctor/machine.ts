import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { userInfo } from 'node:os';
import type { Clock } from '@outrider/shared/time';
import type { AgentConfig } from '../config.ts';
import { type Check, type Finding, fail, ok, warn } from './finding.ts';

type Found = Omit<Finding, 'area'>;

const MB = 1024 * 1024;
const YEAR_MIN = 2025;
const YEAR_MAX = 2100;
const FREE_BYTES_MIN = 64 * MB;
const COMMAND_TIMEOUT_MS = 3000;
const SYNCHRONIZED_MARK = '/run/systemd/timesync/synchronized';

/** Clock, disk, scheduler: the machine itself. */
export function machineChecks(config: AgentConfig, clock: Clock): Check[] {
  return [
    { area: 'clock', run: () => clockFindings(clock) },
    { area: 'disk', run: () => diskFindings(config) },
    { area: 'real time', run: () => schedulingFindings(config) },
  ];
}

async function clockFindings(clock: Clock): Promise<Found[]> {
  const now = new Date(clock.epochMs());
  const year = now.getUTCFullYear();
  const iso = now.toISOString();
  if (year < YEAR_MIN || year > YEAR_MAX)
    return [
      fail(
        `the clock says ${iso}`,
        'set the time (timedatectl set-time ...), or give the robot NTP or a battery for its clock',
      ),
    ];
  const synchronized = await isSynchronized();
  if (synchronized === true) return [ok(`${iso}, synchronized`)];
  const mend = 'turn on NTP (timedatectl set-ntp true); until then times in the records are marked as unsure';
  if (synchronized === false) return [warn(`${iso}, not synchronized`, mend)];
  return [warn(`${iso}; nothing on this machine says whether it is synchronized`, mend)];
}

/** Whether NTP keeps the clock; `undefined` when nobody knows. */
async function isSynchronized(): Promise<boolean | undefined> {
  const said = await output('timedatectl', ['show', '--property=NTPSynchronized', '--value']);
  if (said === 'yes' || said === 'no') return said === 'yes';
  return existsSync(SYNCHRONIZED_MARK) ? true : undefined;
}

function output(command: string, args: readonly string[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile(command, args, { timeout: COMMAND_TIMEOUT_MS }, (error, stdout) =>
      resolve(error ? undefined : stdout.trim()),
    );
  });
}

function diskFindings({ stateDir, outbox, blackbox }: AgentConfig): Found[] {
  if (!existsSync(stateDir))
    return [fail(`${stateDir} does not exist`, 'run: outrider-edge enroll (it makes the folder), or set state_dir')];
  const found: Found[] = [];
  if (!isAllowed(stateDir, constants.W_OK | constants.X_OK))
    found.push(
      fail(
        `${userInfo().username} may not write in ${stateDir}`,
        `chown it to the user of the agent, or run doctor as that user`,
      ),
    );
  const mode = statSync(stateDir).mode & 0o777;
  if ((mode & 0o077) !== 0)
    found.push(warn(`${stateDir} has mode ${mode.toString(8)}: others may look in`, `chmod 700 ${stateDir}`));
  const { bavail, bsize } = statfsSync(stateDir);
  const freeBytes = bavail * bsize;
  const wantedBytes = outbox.sizeMaxBytes + (blackbox?.sizeMaxBytes ?? 0);
  const words = `${mb(freeBytes)} free for ${stateDir}; outbox and black boxes may grow to ${mb(wantedBytes)}`;
  if (freeBytes < FREE_BYTES_MIN) found.push(fail(words, 'free some space: without any, only events are kept'));
  else if (freeBytes < wantedBytes)
    found.push(warn(words, 'free some space, or lower outbox.size_max_mb and blackbox.size_max_mb'));
  else found.push(ok(words));
  return found;
}

const mb = (bytes: number): string => `${Math.round(bytes / MB)} MB`;

function schedulingFindings({ guard }: AgentConfig): Found[] {
  if (!guard.enabled) return [ok('no guard is configured, so nothing needs it')];
  if (guard.config.scheduling === 'other')
    return [
      warn(
        'guard.scheduling is other: a loaded machine delays the guard by 100 ms and more',
        'set guard.scheduling to auto',
      ),
    ];
  const limits = existsSync('/proc/self/limits') ? readFileSync('/proc/self/limits', 'utf8') : '';
  const soft = /^Max realtime priority\s+(\S+)/m.exec(limits)?.[1] ?? '0';
  const isAllowed = userInfo().uid === 0 || soft === 'unlimited' || Number(soft) >= 10;
  if (isAllowed) return [ok('this user may run the guard with SCHED_FIFO')];
  return [
    warn(
      `this user may not use SCHED_FIFO (limit ${soft})`,
      'start the guard by its systemd unit, or give LimitRTPRIO=10; without it a loaded machine delays the guard',
    ),
  ];
}

/** Serial line and GPIO: what the guard needs to stop the robot. */
export function actuatorChecks(config: AgentConfig): Check[] {
  return [
    { area: 'serial', run: () => serialFindings(config) },
    { area: 'gpio', run: () => gpioFindings(config) },
  ];
}

function serialFindings({ sources }: AgentConfig): Found[] {
  const serial = sources.find((source) => source.type === 'serial');
  if (!serial) return [ok('no serial source is configured')];
  const { path } = serial;
  if (!existsSync(path)) {
    const others = candidates();
    const there = others.length > 0 ? `there is ${others.join(', ')}` : 'no serial device is there at all';
    return [fail(`${path} does not exist`, `plug the microcontroller in, or set its path in sources; ${there}`)];
  }
  if (!statSync(path).isCharacterDevice())
    return [fail(`${path} is not a device`, 'set the path of the serial line in sources')];
  if (!isAllowed(path, constants.R_OK | constants.W_OK)) {
    const mend = `add the user to the device's group: usermod -aG ${groupOf(path)} ${userInfo().username}, then log in again`;
    return [fail(`${userInfo().username} may not read and write ${path}`, mend)];
  }
  return [ok(`${path} is there and may be opened`)];
}

function candidates(): string[] {
  const byId = '/dev/serial/by-id';
  if (existsSync(byId)) return readdirSync(byId).map((name) => `${byId}/${name}`);
  return readdirSync('/dev')
    .filter((name) => /^tty(ACM|USB|AMA|THS)\d+$/.test(name))
    .map((name) => `/dev/${name}`);
}

function groupOf(path: string): string {
  const { gid } = statSync(path);
  const groups = existsSync('/etc/group') ? readFileSync('/etc/group', 'utf8') : '';
  return (
    groups
      .split('\n')
      .map((line) => line.split(':'))
      .find((entry) => entry[2] === String(gid))?.[0] ?? 'dialout'
  );
}

function gpioFindings({ guard }: AgentConfig): Found[] {
  const { driver, chip, file, estopInput, stopOutput } = guard.config.gpio;
  const lines = [
    ...(estopInput === undefined ? [] : [`emergency stop on ${estopInput}`]),
    ...(stopOutput === undefined ? [] : [`stop output on ${stopOutput}`]),
  ].join(', ');
  switch (driver) {
    case 'none':
      return [ok('no line is configured; the microcontroller is the way to stop the robot')];
    case 'simulated':
      return [
        warn(
          `simulated${file === undefined ? '' : ` by ${file}`}: no real line`,
          'set guard.gpio.driver to gpiod or onoff on a robot',
        ),
      ];
    case 'onoff':
      return isAllowed('/sys/class/gpio/export', constants.W_OK)
        ? [ok(`sysfs may be used; ${lines}`)]
        : [
            fail(
              '/sys/class/gpio/export may not be written',
              'newer kernels have no sysfs GPIO: set guard.gpio.driver to gpiod, or add the user to group gpio',
            ),
          ];
    case 'gpiod': {
      const device = chip?.startsWith('/') ? chip : `/dev/${chip ?? 'gpiochip0'}`;
      return isAllowed(device, constants.R_OK | constants.W_OK)
        ? [ok(`${device} may be used; ${lines}`)]
        : [
            fail(
              `${device} may not be opened`,
              'set guard.gpio.chip to one of `gpiodetect`, or add the user to group gpio',
            ),
          ];
    }
  }
}

function isAllowed(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
