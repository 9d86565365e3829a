import type { LaneName } from '../outbox/records.ts';

/** Identical refusals of a batch before its records are sent one by one, and of a record alone before it is given up. */
const REFUSALS_UNTIL_SURE = 5;

/**
 * A batch on which the broker hung up: it closed the connection itself, at once, and had not taken the batch. A
 * connection that we ended, that the network lost, or that died while the cloud was slow is none.
 */
export interface Refusal {
  readonly lane: LaneName;
  readonly from: number;
  readonly upto: number;
  /** Sent alone, over a connection that had been quiet and held: nothing else can be to blame. */
  readonly isAlone: boolean;
}

/**
 * Finds a record that costs the connection each time it is sent: a broker that answers bad data by hanging up would
 * otherwise block the robot for ever. First the batch must be refused again and again, then records go one by one over
 * quiet connections, and only the one that is refused then as often is given up.
 */
export class Suspicion {
  #suspect: { readonly lane: LaneName; readonly from: number; readonly upto: number } | undefined;
  #refusals = 0;
  #isCautious = false;

  /** Whether to send a single record at a time, after a while of silence. */
  get isCautious(): boolean {
    return this.#isCautious;
  }

  /** The cloud has a lane up to here. */
  progressed(lane: LaneName, upto: number): void {
    const suspect = this.#suspect;
    if (!suspect || suspect.lane !== lane || upto < suspect.from) return;
    this.#refusals = 0;
    if (this.#isCautious && upto < suspect.upto) this.#suspect = { ...suspect, from: upto + 1 };
    else this.#clear();
  }

  /**
   * A connection ended.
   *
   * @param refusal What the broker hung up on; `undefined` when the connection ended in any other way.
   * @returns True when the record has to go.
   */
  connectionLost(refusal: Refusal | undefined): boolean {
    if (!refusal || refusal.isAlone !== this.#isCautious) {
      // Another kind of end in between: the refusals were not identical.
      this.#refusals = 0;
      return false;
    }
    const { lane, from, upto } = refusal;
    const isSame = this.#suspect?.lane === lane && this.#suspect.from === from;
    this.#refusals = isSame ? this.#refusals + 1 : 1;
    this.#suspect = { lane, from, upto: isSame ? Math.max(upto, this.#suspect?.upto ?? 0) : upto };
    if (this.#refusals < REFUSALS_UNTIL_SURE) return false;
    this.#refusals = 0;
    if (!this.#isCautious) {
      this.#isCautious = true;
      return false;
    }
    this.#clear();
    return true;
  }

  #clear(): void {
    this.#suspect = undefined;
    this.#refusals = 0;
    this.#isCautious = false;
  }
}
