import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import type { SigningKeys } from './signing-keys.ts';
import type { Tokens } from './tokens.ts';

/** How late a revocation made by another replica is felt. */
const REFRESH_MS = 10_000;

/** Keeps keys and revocations up to date while the server runs. */
export class KeyKeeper implements Service {
  readonly name = 'key-keeper';
  readonly #keys: SigningKeys;
  readonly #tokens: Tokens;
  readonly #log: Logger;

  constructor(keys: SigningKeys, tokens: Tokens, log: Logger) {
    this.#keys = keys;
    this.#tokens = tokens;
    this.#log = log;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(REFRESH_MS, signal);
      if (signal.aborted) return;
      try {
        await this.#tokens.refreshRevocations();
        await this.#keys.open();
      } catch (error) {
        // What is in memory goes on working; a database that is away comes back.
        this.#log.warn({ err: error }, 'keys.refresh_failed');
      }
    }
  }
}
