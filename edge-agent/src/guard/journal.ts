import { errorMessage } from '@outrider/shared/errors';
import type { FailsafePhase } from '@outrider/shared/failsafe/modes';
import type { DurableState } from '@outrider/shared/failsafe/state';
import { outrider } from '@outrider/shared/messages';
import { Backoff } from '@outrider/shared/service';
import type { LatchRecord, LatchStore } from './latch-store.ts';

export type TransitionMessage = outrider.v1.Transition.$Properties;

/** Transitions kept for an agent that is away. Older ones give way, and are counted. */
export const TRANSITIONS_MAX = 256;
const RETRY_MS_FIRST = 50;
const RETRY_MS_MAX = 2000;

interface Entry {
  id: number;
  message: TransitionMessage;
  /** On disk, or its write has failed: it may be reported. */
  isSettled: boolean;
  readonly isOfThisRun: boolean;
}

export interface JournalEvents {
  /** This is on disk now. */
  onStored(state: DurableState): void;
  onFailed(detail: string): void;
  /** There are transitions to report that were not there before. */
  onReportable(): void;
}

/**
 * Memory of the guard: the latched state and the transitions that nobody has taken over yet. Writes one at a time
 * in the background, always the newest state; nothing in the loop ever waits for it.
 */
export class Journal {
  readonly #store: LatchStore;
  readonly #events: JournalEvents;
  readonly #backoff = new Backoff(RETRY_MS_FIRST, RETRY_MS_MAX);
  readonly #idAtStart: number;
  #entries: Entry[];
  #idMax: number;
  #durable: DurableState;
  #phase: FailsafePhase;
  #isDirty = false;
  #writing: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #dropped = 0;
  #wasTold = false;

  constructor(store: LatchStore, found: LatchRecord, events: JournalEvents) {
    this.#store = store;
    this.#events = events;
    this.#idAtStart = found.transitionIdMax;
    this.#idMax = found.transitionIdMax;
    this.#durable = found;
    this.#phase = found.phase;
    this.#entries = found.transitions.map(({ id, bytes }) => ({
      id,
      message: outrider.v1.Transition.decode(bytes),
      isSettled: true,
      isOfThisRun: false,
    }));
  }

  /** Transitions that gave way unreported. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes the new state and, with it, the transition that led there; writes both in the background. */
  save(durable: DurableState, phase: FailsafePhase, transition?: TransitionMessage): void {
    this.#durable = durable;
    this.#phase = phase;
    if (transition) {
      this.#idMax += 1;
      const message = { ...transition, transitionId: this.#idMax };
      this.#entries.push({ id: this.#idMax, message, isSettled: false, isOfThisRun: true });
      if (this.#entries.length > TRANSITIONS_MAX) {
        this.#entries.shift();
        this.#dropped += 1;
      }
    }
    this.#write();
  }

  /** Transitions after `afterId` that may be told, oldest first. */
  reportable(afterId: number): TransitionMessage[] {
    return this.#entries.filter((entry) => entry.isSettled && entry.id > afterId).map((entry) => entry.message);
  }

  /** The agent has these on disk. */
  acknowledge(uptoId: number): void {
    const left = this.#entries.filter((entry) => entry.id > uptoId);
    if (left.length === this.#entries.length) return;
    this.#entries = left;
    this.#write();
  }

  /**
   * Fits the ids to those that the agent has on disk. If it knows ids that this store never gave out, the store was
   * lost or set back: this run's transitions move behind them, so that none is taken for one already known.
   */
  reconcile(storedByAgent: number): void {
    if (!this.#wasTold && storedByAgent > this.#idAtStart) {
      const shift = storedByAgent - this.#idAtStart;
      for (const entry of this.#entries) {
        if (!entry.isOfThisRun) continue;
        entry.id += shift;
        entry.message = { ...entry.message, transitionId: entry.id };
      }
      this.#idMax += shift;
    }
    this.#wasTold = true;
    this.acknowledge(Math.min(storedByAgent, this.#idMax));
  }
  /** Resolves when nothing is left to write, or a write has failed. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  close(): void {
    clearTimeout(this.#retry);
  }

  #write(): void {
    this.#isDirty = true;
    if (this.#writing || this.#retry) return;
    this.#writing = this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
  }

  async #writeAll(): Promise<void> {
    while (this.#isDirty) {
      this.#isDirty = false;
      const covered = this.#entries.filter((entry) => !entry.isSettled);
      const durable = this.#durable;
      let problem: string | undefined;
      try {
        await this.#store.write({
          ...durable,
          phase: this.#phase,
          transitionIdMax: this.#idMax,
          transitions: this.#entries.map(({ id, message }) => ({
            id,
            bytes: outrider.v1.Transition.encode(message).finish(),
          })),
        });
      } catch (error) {
        problem = errorMessage(error);
      }
      for (const entry of covered) entry.isSettled = true;
      if (problem === undefined) {
        this.#backoff.reset();
        this.#events.onStored(durable);
      } else {
        this.#isDirty = true;
        this.#events.onFailed(problem);
      }
      if (covered.length > 0) this.#events.onReportable();
      if (problem !== undefined) {
        this.#retry = setTimeout(() => {
          this.#retry = undefined;
          this.#write();
        }, this.#backoff.nextMs());
        return;
      }
    }
  }
}
