import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { aborted, pause, type Service } from '@outrider/shared/service';

const RETRY_MS = 1000;
const FULL_CODES: readonly unknown[] = ['SQLITE_FULL', 'ENOSPC', 'EDQUOT'];

function isFull(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ('code' in error && FULL_CODES.includes(error.code)) || isFull(error.cause);
}

/**
 * Opens something that needs space on the disk, as soon as there is some. A disk that is full before the very first
 * start must not end the agent: the guard that it started holds the robot, and everything else follows by itself.
 *
 * @param onFull Called once, when it has to wait.
 * @returns `undefined` when the signal aborted first.
 */
export async function openWhenThereIsRoom<T>(
  what: string,
  stateDir: string,
  open: () => T,
  log: Logger,
  signal: AbortSignal,
  onFull: () => void,
): Promise<T | undefined> {
  for (let attempt = 0; !signal.aborted; attempt += 1) {
    try {
      const opened = open();
      if (attempt > 0) log.info({ what, attempt }, 'disk.room_again');
      return opened;
    } catch (error) {
      if (!isFull(error)) throw error;
      if (attempt === 0) onFull();
      const advice = `the disk of ${stateDir} is full: free some space; nothing is recorded until then, the guard runs`;
      // Once at the start and then about once a minute.
      if (attempt % 60 === 0) log.error({ what, reason: errorMessage(error), advice }, 'disk.full');
    }
    await pause(RETRY_MS, signal);
  }
  return undefined;
}

/** Runs a service from now on; the service that comes back only ends it, in its turn among the others. */
export function startEarly(service: Service): Service & { stop(): Promise<void> } {
  const ending = new AbortController();
  const done = service.run(ending.signal);
  // Whoever waits for it below hears of it.
  done.catch(() => undefined);
  const stop = async (): Promise<void> => {
    ending.abort();
    await done;
  };
  return {
    name: service.name,
    stop,
    run: async (signal) => {
      await Promise.race([aborted(signal), done]);
      await stop();
    },
  };
}
