import type { Logger } from './log.ts';

/** A long-lived part of a program. `run` resolves once the part has stopped after `signal` aborted. */
export interface Service {
  readonly name: string;
  run(signal: AbortSignal): Promise<void>;
}

/**
 * Runs the stages side by side and stops them first to last: the next stage is told to stop only when the one
 * before it has ended. A stage that ends by itself or fails stops them all.
 *
 * @throws The first stage's failure, once all have stopped.
 */
export async function runStages(stages: readonly Service[], signal: AbortSignal, log: Logger): Promise<void> {
  const stop = new AbortController();
  const failures: unknown[] = [];
  const running = stages.map((stage) => {
    const controller = new AbortController();
    const ended = stage
      .run(controller.signal)
      .catch((error: unknown) => {
        failures.push(error);
        log.error({ stage: stage.name, err: error }, 'stage.failed');
      })
      .finally(() => stop.abort());
    return { stage, controller, ended };
  });
  await aborted(AbortSignal.any([signal, stop.signal]));
  for (const { stage, controller, ended } of running) {
    controller.abort();
    await ended;
    log.debug({ stage: stage.name }, 'stage.stopped');
  }
  if (failures.length > 0) throw failures[0];
}

/** Resolves when the signal aborts; at once when it already has. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Waits, or returns early when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}

/**
 * Delays for retries: doubling from `firstMs` to `maxMs`, each drawn between half of it and the whole, so that
 * a fleet that lost its broker does not return as one.
 */
export class Backoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #attempt = 0;

  constructor(firstMs: number, maxMs: number, random: () => number = Math.random) {
    this.#firstMs = firstMs;
    this.#maxMs = maxMs;
    this.#random = random;
  }

  /** The next delay to wait. */
  nextMs(): number {
    const ceilingMs = Math.min(this.#maxMs, this.#firstMs * 2 ** this.#attempt);
    this.#attempt += 1;
    return ceilingMs * (0.5 + 0.5 * this.#random());
  }

  /** Call after a success. */
  reset(): void {
    this.#attempt = 0;
  }
}
