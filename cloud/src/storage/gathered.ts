/** Questions on their way at once: a slow one does not hold up all that come after it. */
const AT_ONCE_MAX = 2;

interface Waiting<Found> {
  readonly resolve: (found: Found | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Many small reads as few questions to the database: what is asked for while questions are on their way goes out
 * together when one of them is answered. A read never gets an answer to a question that was asked before it, so it is as
 * fresh as if it had been asked alone.
 */
export class Gathered<Key, Found> {
  readonly #ask: (keys: readonly Key[]) => Promise<ReadonlyMap<Key, Found>>;
  #waiting = new Map<Key, Waiting<Found>[]>();
  #atOnce = 0;
  #isDue = false;

  /** @param ask What is known, by key. Called with each key once. */
  constructor(ask: (keys: readonly Key[]) => Promise<ReadonlyMap<Key, Found>>) {
    this.#ask = ask;
  }

  /** @returns `undefined` when nothing is known of it. */
  read(key: Key): Promise<Found | undefined> {
    return new Promise((resolve, reject) => {
      const others = this.#waiting.get(key);
      if (others) others.push({ resolve, reject });
      else this.#waiting.set(key, [{ resolve, reject }]);
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#isDue || this.#atOnce >= AT_ONCE_MAX || this.#waiting.size === 0) return;
    this.#isDue = true;
    // What else arrived in this turn of the event loop comes along.
    setImmediate(() => {
      this.#isDue = false;
      void this.#send();
    });
  }

  async #send(): Promise<void> {
    const waiting = this.#waiting;
    this.#waiting = new Map();
    this.#atOnce += 1;
    try {
      const found = await this.#ask([...waiting.keys()]);
      for (const [key, askers] of waiting) for (const { resolve } of askers) resolve(found.get(key));
    } catch (error) {
      for (const askers of waiting.values()) for (const { reject } of askers) reject(error);
    } finally {
      this.#atOnce -= 1;
      this.#schedule();
    }
  }
}
