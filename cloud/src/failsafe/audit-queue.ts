import type { Logger } from '@outrider/shared/log';
import { aborted, Backoff, pause, type Service } from '@outrider/shared/service';
import type { AuditEntry, AuditTrail } from '../fleet/ports.ts';

/** Lines that may wait for a database that is away: 30,000 stops with their answers. Beyond it the oldest go. */
const WAITING_MAX = 60_000;
const BATCH = 500;
/** How long a caller waits for its line to be written. */
const PATIENCE_MS = 1_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 1_000;
/** How long the last lines may take when the server stops. */
const LAST_MS = 3_000;

/** An audit trail that takes many lines at once. */
export interface AuditStore {
  appendAll(entries: readonly AuditEntry[]): Promise<void>;
}

export interface AuditQueueOptions {
  readonly store: AuditStore;
  /** Whether the database refused the line itself, so that trying again is vain. */
  readonly isDataError: (error: unknown) => boolean;
  readonly log: Logger;
  readonly waitingMax?: number;
}

interface Waiting {
  readonly entry: AuditEntry;
  readonly settle: () => void;
}

/**
 * An audit trail for what must not wait for the database: lines are written in their order, many at a time, and kept
 * while it is away.
 */
export class AuditQueue implements AuditTrail, Service {
  readonly name = 'audit-queue';
  readonly #options: AuditQueueOptions;
  #waiting: Waiting[] = [];
  #writing: Promise<void> | undefined;
  #isAway = false;
  #dropped = 0;
  readonly #stop = new AbortController();

  constructor(options: AuditQueueOptions) {
    this.#options = options;
  }

  /** Lines that are not in the database yet. */
  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Lines that there was no room for. */
  get droppedCount(): number {
    return this.#dropped;
  }

  /** Writes what is left when `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await aborted(signal);
    const limit = new AbortController();
    await Promise.race([this.#writing, pause(LAST_MS, limit.signal)]);
    limit.abort();
    this.#stop.abort();
    if (this.#waiting.length > 0)
      this.#options.log.error({ lines: this.#waiting.length }, 'audit.lines_lost_at_the_end');
  }

  /** Resolves when the line is written; at once while the database is away, and in any case after a second. */
  append(entry: AuditEntry): Promise<void> {
    const { log, waitingMax = WAITING_MAX } = this.#options;
    if (this.#waiting.length >= waitingMax) {
      this.#waiting.shift()?.settle();
      this.#dropped += 1;
      // One line for the first, second, fourth, eighth, …
      if ((this.#dropped & (this.#dropped - 1)) === 0) log.error({ dropped: this.#dropped }, 'audit.line_dropped');
    }
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, PATIENCE_MS);
      const settle = (): void => {
        clearTimeout(timer);
        resolve();
      };
      this.#waiting.push({ entry, settle });
      if (this.#isAway) settle();
      this.#writing ??= this.#write().finally(() => {
        this.#writing = undefined;
      });
    });
  }

  async #write(): Promise<void> {
    const { store, isDataError, log } = this.#options;
    const backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS);
    let size = BATCH;
    // What was appended in the same turn goes along.
    await Promise.resolve();
    while (this.#waiting.length > 0 && !this.#stop.signal.aborted) {
      const batch = this.#waiting.slice(0, size);
      try {
        await store.appendAll(batch.map(({ entry }) => entry));
        if (this.#isAway) log.info({ waiting: this.#waiting.length }, 'audit.database_back');
        this.#isAway = false;
        backoff.reset();
        this.#taken(batch);
        size = BATCH;
      } catch (error) {
        if (isDataError(error)) {
          // The line that it refuses must not keep the others.
          if (batch.length === 1) {
            log.error({ err: error, action: batch[0]?.entry.action }, 'audit.write_failed');
            this.#taken(batch);
          }
          size = 1;
          continue;
        }
        if (!this.#isAway) log.warn({ err: error }, 'audit.database_away');
        this.#isAway = true;
        for (const { settle } of this.#waiting) settle();
        await pause(backoff.nextMs(), this.#stop.signal);
      }
    }
  }

  /** Those that are written or given up; some of them may have had to give way meanwhile. */
  #taken(batch: readonly Waiting[]): void {
    const done = new Set(batch);
    this.#waiting = this.#waiting.filter((waiting) => !done.has(waiting));
    for (const { settle } of batch) settle();
  }
}
