import { write } from 'node:fs';
import { parseArgs } from 'node:util';
import { errorMessage } from '@outrider/shared/errors';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { type NotifyEnvironment, SystemdNotifier } from '../systemd-notify.ts';
import { runGuard } from './guard.ts';
import { type GuardConfig, loadGuardConfig } from './guard-config.ts';

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

/** Reads `--config FILE` and runs the guard. @returns The exit code. */
export async function guardCommand(args: readonly string[]): Promise<number> {
  const fail = (words: string): number => {
    process.stderr.write(`outrider-guard: ${words}\n`);
    return EXIT_CONFIG;
  };
  let path: string | undefined;
  try {
    path = parseArgs({ args: [...args], options: { config: { type: 'string' } } }).values.config;
  } catch (error) {
    return fail(errorMessage(error));
  }
  if (path === undefined) return fail('--config FILE is missing');
  let config: GuardConfig;
  try {
    config = await loadGuardConfig(path);
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
