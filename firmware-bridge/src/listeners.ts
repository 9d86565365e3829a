/** Who wants to know of something. */
export class Listeners<T extends readonly unknown[]> {
  readonly #listeners = new Set<(...values: T) => void>();

  /** @returns A function that removes the listener. */
  add(listener: (...values: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(...values: T): void {
    for (const listener of this.#listeners) listener(...values);
  }
}
