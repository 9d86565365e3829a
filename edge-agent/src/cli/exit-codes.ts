import { DomainError } from '@outrider/shared/errors';

/** Exit codes of the program, from sysexits.h where there is one. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  unavailable: 69,
  config: 78,
} as const;

/** The code for something thrown. Input problems that name options are the configuration's. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof DomainError)) return EXIT.failure;
  if (error.code === 'invalid' && error.problems.length > 0) return EXIT.config;
  if (error.code === 'unavailable' || error.code === 'timeout' || error.code === 'offline') return EXIT.unavailable;
  return EXIT.failure;
}
