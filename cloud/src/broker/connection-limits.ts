/** Counts holders per key and overall, and says when there is no room for one more. */
export class HolderLimit {
  readonly #perKeyMax: number;
  readonly #max: number;
  readonly #holders = new Map<string, number>();
  #total = 0;

  constructor(perKeyMax: number, max: number) {
    this.#perKeyMax = perKeyMax;
    this.#max = max;
  }

  /** @returns What gives the place back, once; `undefined` when there is none. */
  take(key: string): (() => void) | undefined {
    const held = this.#holders.get(key) ?? 0;
    if (held >= this.#perKeyMax || this.#total >= this.#max) return undefined;
    this.#holders.set(key, held + 1);
    this.#total += 1;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#total -= 1;
      const left = (this.#holders.get(key) ?? 1) - 1;
      if (left > 0) this.#holders.set(key, left);
      else this.#holders.delete(key);
    };
  }
}
