import type { LiveTelemetry, LiveUpdate, PlacedUpdate } from './ports.ts';

/** Events, states, presence and alerts of a tenant that can be given again. */
const KEPT_MAX = 5_000;
/** Streams of a tenant whose newest sample can be given again. */
const STREAMS_MAX = 20_000;

/** The recent past of one tenant: every update that tells of a change, and the newest sample of each stream. */
export class LiveReplay {
  readonly #kept: PlacedUpdate[] = [];
  readonly #newest = new Map<string, PlacedUpdate<LiveTelemetry>>();
  /** Up to here something is missing. */
  #forgotten: number;

  /** @param from The position after which it records. */
  constructor(from: number) {
    this.#forgotten = from;
  }

  record(position: number, update: LiveUpdate): void {
    if (update.type === 'telemetry') {
      const key = `${update.robotId}/${update.stream}`;
      const known = this.#newest.get(key);
      if (known ? known.update.recordedAt <= update.recordedAt : this.#newest.size < STREAMS_MAX)
        this.#newest.set(key, { position, update });
      return;
    }
    this.#kept.push({ position, update });
    // A quarter at a time: moving the list for each update would cost more than the update.
    if (this.#kept.length <= KEPT_MAX * 1.25) return;
    const gone = this.#kept.splice(0, this.#kept.length - KEPT_MAX);
    this.#forgotten = gone.at(-1)?.position ?? this.#forgotten;
  }

  /** What came after a position, in order, and whether that is all of it. */
  after(
    position: number,
    telemetryPosition: number,
  ): { readonly updates: readonly PlacedUpdate[]; readonly isComplete: boolean } {
    const updates = [
      ...this.#kept.filter((entry) => entry.position > position),
      ...[...this.#newest.values()].filter((entry) => entry.position > telemetryPosition),
    ];
    return {
      updates: updates.sort((a, b) => a.position - b.position),
      isComplete: position >= this.#forgotten,
    };
  }
}
