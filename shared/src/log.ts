import { createRequire } from 'node:module';
import type { DestinationStream, Logger } from 'pino';

/**
 * CommonJS, here and where else a robot's programs load some: `import` first searches every file of such a package for
 * the names of its exports, with a WebAssembly program, and the memory for that stays.
 */
const { pino } = createRequire(import.meta.url)('pino') as typeof import('pino');

export type { Logger };

/** Lines that wait to be written together, at most so many characters and for so long. */
const GATHERED_CHARACTERS_MAX = 8_192;
const GATHERED_MS_MAX = 100;
/** How pino begins a line of the levels trace, debug and info. */
const PATIENT_LINE = /^\{"level":[123]0,/;

/** Keys whose values never reach a log line, at any of the depths that our records have. */
const SECRET_KEYS = [
  'authorization',
  'password',
  'client_secret',
  'clientSecret',
  'api_key',
  'apiKey',
  'access_token',
  'accessToken',
  'refresh_token',
  'token',
  'privateKey',
  'private_key',
  'cookie',
];

/**
 * JSON lines on standard error: past-tense event name in `msg`, ids and quantities with units beside it.
 *
 * @param level pino's levels, `silent` included.
 */
export function createLogger(name: string, level: string, destination?: DestinationStream): Logger {
  const paths = SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]);
  return pino(
    {
      name,
      level,
      base: { pid: process.pid },
      redact: { paths, censor: '[redacted]' },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    destination ?? pino.destination(2),
  );
}

/**
 * Standard error for a program that logs each request: lines are written together, 100 ms late at most. Warnings and
 * worse are written at once, with all that was said before them. Only a kill loses lines.
 */
export function gatheringDestination(file: number | string = 2): DestinationStream {
  const sink = pino.destination({ dest: file, minLength: GATHERED_CHARACTERS_MAX, sync: true });
  let timer: NodeJS.Timeout | undefined;
  const flush = (): void => {
    if (timer === undefined) return;
    clearTimeout(timer);
    timer = undefined;
    sink.flush();
  };
  process.on('exit', flush);
  return {
    write(line) {
      sink.write(line);
      timer ??= setTimeout(flush, GATHERED_MS_MAX).unref();
      if (!PATIENT_LINE.test(line)) flush();
    },
  };
}
