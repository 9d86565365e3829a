import { type DestinationStream, type Logger, pino } from 'pino';

export type { Logger };

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
