import { DomainError } from '@outrider/shared/errors';
import { type GapReason, type GapSummary, joinGaps, type NewRecord } from './records.ts';

/** Telemetry that may wait in memory while nothing can be written. */
const TELEMETRY_BYTES_MAX = 8 * 1024 * 1024;
/** Events that may wait in memory while nothing can be written. */
const EVENTS_MAX = 1000;
const STATES_MAX = 256;

export interface PendingEvent {
  readonly eventId: string;
  readonly record: NewRecord;
  /** Settled once it is on disk, or cannot get there any more. */
  readonly stored: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** What has been given to the outbox and is not on disk yet. Bounded: what does not fit is counted as lost. */
export class Pending {
  readonly blocks: NewRecord[] = [];
  readonly events: PendingEvent[] = [];
  #eventsById = new Map<string, PendingEvent>();
  readonly states = new Map<string, NewRecord>();
  /** Replay positions reached by the samples of `blocks`. */
  readonly positions = new Map<string, number>();
  lostTelemetry: GapSummary | undefined;
  lostEvents: GapSummary | undefined;
  #blockBytes = 0;

  get isEmpty(): boolean {
    return (
      this.blocks.length + this.events.length + this.states.size + this.positions.size === 0 &&
      !this.lostTelemetry &&
      !this.lostEvents
    );
  }

  addBlock(block: NewRecord): void {
    this.blocks.push(block);
    this.#blockBytes += block.body.length;
    while (this.#blockBytes > TELEMETRY_BYTES_MAX) {
      const oldest = this.blocks.shift();
      if (!oldest) break;
      this.#blockBytes -= oldest.body.length;
      this.loseTelemetry('disk_full', oldest.samples, oldest.fromMs, oldest.toMs);
    }
  }

  loseTelemetry(reason: GapReason, samples: number, fromMs: number, toMs: number): void {
    const gap: GapSummary = { reason, records: 1, samples, fromMs, toMs };
    this.lostTelemetry = this.lostTelemetry ? joinGaps(this.lostTelemetry, gap) : gap;
  }

  /** Resolves once the event is on disk. The same event twice is one event. */
  addEvent(eventId: string, record: NewRecord): Promise<void> {
    const same = this.#eventsById.get(eventId);
    if (same) return same.stored;
    let resolve: () => void = () => {};
    let reject: (error: unknown) => void = () => {};
    const stored = new Promise<void>((done, failed) => {
      resolve = done;
      reject = failed;
    });
    const added = { eventId, record, stored, resolve, reject };
    this.events.push(added);
    this.#eventsById.set(eventId, added);
    if (this.events.length > EVENTS_MAX) this.#loseOldestEvent();
    return stored;
  }

  /** Only the newest value of a key waits. */
  addState(key: string, record: NewRecord): void {
    if (this.states.size < STATES_MAX || this.states.has(key)) this.states.set(key, record);
  }

  /** After a commit of everything. */
  clearAll(): void {
    this.clearEvents(this.events.length);
    this.blocks.length = 0;
    this.#blockBytes = 0;
    this.states.clear();
    this.positions.clear();
    this.lostTelemetry = undefined;
  }

  /** After a commit of the oldest blocks alone. */
  clearBlocks(count: number): void {
    for (const { body } of this.blocks.splice(0, count)) this.#blockBytes -= body.length;
  }

  /** After a commit of the oldest events alone. */
  clearEvents(count: number): void {
    this.lostEvents = undefined;
    for (const event of this.#take(count)) event.resolve();
  }

  /** At the end of the program: whoever still waits learns that it was not kept. */
  refuseEvents(): void {
    for (const event of this.#take(this.events.length)) refuse(event);
  }

  #loseOldestEvent(): void {
    const [oldest] = this.#take(1);
    if (!oldest) return;
    const { fromMs, toMs } = oldest.record;
    const gap: GapSummary = { reason: 'disk_full', records: 1, samples: 0, fromMs, toMs };
    this.lostEvents = this.lostEvents ? joinGaps(this.lostEvents, gap) : gap;
    refuse(oldest);
  }

  #take(count: number): PendingEvent[] {
    const taken = this.events.splice(0, count);
    // Not clear(): V8 chains the emptied table to its successors, which keeps them and their events from being collected.
    if (this.events.length === 0) this.#eventsById = new Map();
    else for (const { eventId } of taken) this.#eventsById.delete(eventId);
    return taken;
  }
}

function refuse(event: PendingEvent): void {
  event.reject(new DomainError('unavailable', `event ${event.eventId} could not be written: no space in the outbox`));
}
