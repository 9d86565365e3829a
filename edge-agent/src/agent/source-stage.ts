import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { aborted, type Service } from '@outrider/shared/service';
import type { Source } from '../sources/source.ts';

/**
 * Runs the sources side by side. One that ends or fails leaves the others running: a robot whose ROS is broken still
 * has its serial line. Only when nothing is left that could give data does a failure end the agent.
 */
export class SourceStage implements Service {
  readonly name = 'sources';
  readonly #sources: readonly Source[];
  readonly #hasOtherInput: boolean;
  readonly #log: Logger;
  readonly #finished: Promise<void>;
  #resolveFinished: () => void = () => {};

  /** @param hasOtherInput Whether data also comes from elsewhere, such as the guard's serial line. */
  constructor(sources: readonly Source[], hasOtherInput: boolean, log: Logger) {
    this.#sources = sources;
    this.#hasOtherInput = hasOtherInput;
    this.#log = log;
    this.#finished = new Promise((resolve) => {
      this.#resolveFinished = resolve;
    });
  }

  /** Resolves once every source has ended by itself. */
  get finished(): Promise<void> {
    return this.#finished;
  }

  async run(signal: AbortSignal): Promise<void> {
    const failures: unknown[] = [];
    const ended = this.#sources.map(async (source) => {
      try {
        await source.run(signal);
      } catch (error) {
        failures.push(error);
        this.#log.error({ source: source.name, reason: errorMessage(error) }, 'source.failed');
      }
    });
    await Promise.all(ended);
    if (!signal.aborted && failures.length > 0 && failures.length === this.#sources.length && !this.#hasOtherInput)
      throw failures[0];
    if (!signal.aborted && this.#sources.length > 0) this.#resolveFinished();
    await aborted(signal);
  }
}
