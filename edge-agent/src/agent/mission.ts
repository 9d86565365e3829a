import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { COMM_POLICIES, type CommPolicy } from '@outrider/shared/failsafe/classify-agent';
import type { Logger } from '@outrider/shared/log';

const FILE = 'mission.json';

/** What the running mission asks for when the link is lost. */
export interface CommWish {
  readonly policy: CommPolicy;
  /** How long `derate` and `ignore` go on before they hold; 0: without end. [ms] */
  readonly maxMs: number;
}

/**
 * What the running mission asks of the failsafe. It can only be stricter than the configuration, and it is kept over a
 * restart: an agent that begins again must not forget that a mission holds without a link.
 */
export class Mission {
  readonly #stateDir: string;
  #comm: CommWish | undefined;

  constructor(stateDir: string, log: Logger) {
    this.#stateDir = stateDir;
    try {
      this.#comm = wishOf(JSON.parse(readFileSync(this.#path, 'utf8')));
    } catch (error) {
      const isNew = error instanceof Error && 'code' in error && error.code === 'ENOENT';
      if (isNew) return;
      log.error({ path: this.#path, reason: errorMessage(error) }, 'mission.unreadable');
      // Whatever it was, the strictest is never wrong.
      this.#comm = { policy: 'hold', maxMs: 0 };
    }
  }

  get comm(): CommWish | undefined {
    return this.#comm;
  }

  /** @param comm `undefined`: the mission is over, the configuration alone counts. */
  setComm(comm: CommWish | undefined): void {
    writeFileSync(`${this.#path}.new`, `${JSON.stringify({ comm })}\n`, { flush: true });
    renameSync(`${this.#path}.new`, this.#path);
    this.#comm = comm;
  }

  get #path(): string {
    return join(this.#stateDir, FILE);
  }
}

function wishOf(document: {
  readonly comm?: { readonly policy?: unknown; readonly maxMs?: unknown };
}): CommWish | undefined {
  if (document.comm === undefined) return undefined;
  const policy = COMM_POLICIES.find((known) => known === document.comm?.policy);
  const { maxMs } = document.comm;
  if (policy === undefined || typeof maxMs !== 'number') throw new Error('it names no policy');
  return { policy, maxMs };
}
