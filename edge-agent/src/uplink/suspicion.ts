import type { LaneName } from '../outbox/records.ts';

/** Connections lost over the same oldest record before records are sent one by one. */
const LOSSES_UNTIL_CAUTION = 3;
/** Connections lost over one record sent alone before it is given up. */
const LOSSES_UNTIL_REFUSAL = 5;

/**
 * Notices a record that costs the connection each time it is sent: a broker that answers bad data by hanging up
 * would otherwise block the robot for ever. First records go one by one, to be sure which one it is.
 */
export class Suspicion {
  #key = '';
  #losses = 0;

  /** Whether to send a single record at a time. */
  get isCautious(): boolean {
    return this.#losses >= LOSSES_UNTIL_CAUTION;
  }

  /** Something was acknowledged: the way is free. */
  progressed(): void {
    this.#key = '';
    this.#losses = 0;
  }

  /**
   * A connection was lost.
   *
   * @param oldest The first record that was in flight, if any was.
   * @returns True when that record has to go.
   */
  connectionLost(oldest: { lane: LaneName; seq: number } | undefined): boolean {
    if (!oldest) return false;
    const key = `${oldest.lane}:${oldest.seq}`;
    this.#losses = key === this.#key ? this.#losses + 1 : 1;
    this.#key = key;
    if (this.#losses < LOSSES_UNTIL_CAUTION + LOSSES_UNTIL_REFUSAL) return false;
    this.progressed();
    return true;
  }
}
