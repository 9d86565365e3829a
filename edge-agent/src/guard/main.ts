import { readFileSync, write } from 'node:fs';
import { parseArgs } from 'node:util';
import { errorMessage } from '@outrider/shared/errors';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { readGuardConfig } from '../config-process.ts';
import { type NotifyEnvironment, SystemdNotifier } from '../systemd-notify.ts';
import { runGuard } from './guard.ts';
import type { GuardConfig } from './guard-config.ts';

/** Exit code for a configuration that cannot be used. (EX_CONFIG) */
const EXIT_CONFIG = 78;
/** Log bytes that wait for a reader of standard error; beyond, lines are dropped. */
const LOG_BYTES_MAX = 256 * 1024;

/**
 * Runs a guard process to its end.
 *
 * @param notify Where systemd listens, for a guard that systemd started. One that the agent starts inherits the
 * agent's socket, and must not speak for it.
 * @returns The exit code.
 */
export async function guardMain(config: GuardConfig, notify: NotifyEnvironment = {}): Promise<number> {
  process.umask(0o077);
  const log = createLogger('outrider-guard', config.logLevel, { write: writeLog });
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => stop.abort());
  // The terminal that started the agent may close; the guard goes on.
  process.on('SIGHUP', () => {});
  let report = (error: unknown): void => log.error({ err: error }, 'guard.fault');
  process.on('uncaughtException', (error) => report(error));
  process.on('unhandledRejection', (error) => report(error));
  const onFaults = (to: (error: unknown) => void): void => {
    report = to;
  };
  const notifier = new SystemdNotifier({ env: notify, log });
  return runGuard({ config, clock: systemClock, log, signal: stop.signal, notifier, onFaults });
}

let logBytesWaiting = 0;

/** Never blocks: a full pipe that nobody reads must not stop the heartbeats. */
function writeLog(line: string): void {
  if (logBytesWaiting > LOG_BYTES_MAX) return;
  logBytesWaiting += line.length;
  write(2, line, () => {
    logBytesWaiting -= line.length;
  });
}

/** Takes `--config FILE`, or `--config-fd N` for one that was read already, and runs the guard. @returns The exit code. */
export async function guardCommand(args: readonly string[]): Promise<number> {
  const fail = (words: string): number => {
    process.stderr.write(`outrider-guard: ${words}\n`);
    return EXIT_CONFIG;
  };
  let given: { config?: string; 'config-fd'?: string };
  try {
    const options = { config: { type: 'string' }, 'config-fd': { type: 'string' } } as const;
    given = parseArgs({ args: [...args], options }).values;
  } catch (error) {
    return fail(errorMessage(error));
  }
  const { config: path, 'config-fd': descriptor } = given;
  let config: GuardConfig;
  try {
    if (descriptor !== undefined) config = JSON.parse(readFileSync(Number(descriptor), 'utf8')) as GuardConfig;
    else if (path !== undefined) config = await readGuardConfig(path);
    else return fail('--config FILE is missing');
  } catch (error) {
    return fail(errorMessage(error));
  }
  try {
    return await guardMain(config);
  } catch (error) {
    process.stderr.write(`outrider-guard: ${errorMessage(error)}\n`);
    return 1;
  }
}

if (process.argv[1] === import.meta.filename) process.exit(await guardCommand(process.argv.slice(2)));
