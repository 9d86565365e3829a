import type { Logger } from '@outrider/shared/log';
import type { Clock, MonotonicMs } from '@outrider/shared/time';
import { type GapSummary, LANES, type LaneName } from './records.ts';
import type { Store } from './store.ts';

/** Where thinning begins, telemetry before states. */
const EVICT_ABOVE = 0.8;
const EVICT_STATES_ABOVE = 0.9;
/** Eviction ends here: not right at the bound, so that it does not run at each commit. */
const EVICT_DOWN_TO = 0.75;
/** Rows evicted or deleted in one go: a few milliseconds, so that the agent never looks stuck to its guard. */
const ROWS_PER_STEP = 200;
/** Acknowledged rows go with the next commit, or after this long when there is none: it saves an fsync each. */
const DELETE_INTERVAL_MS = 500;

/** What went from a lane, to be counted once its transaction is committed. */
export interface RemovedRows {
  readonly lane: LaneName;
  readonly upto: number;
  readonly samples: number;
  readonly more: boolean;
}

/** Makes room in an outbox: deletes what the cloud has, and drops the oldest when the rest does not fit. */
export class Retention {
  readonly totals = { acknowledged: 0, gapRecords: 0, dropped: 0 };
  readonly #store: Store;
  readonly #options: { readonly sizeMaxBytes: number; readonly clock: Clock; readonly log: Logger };
  #deletedAt = 0;

  constructor(store: Store, options: { readonly sizeMaxBytes: number; readonly clock: Clock; readonly log: Logger }) {
    this.#store = store;
    this.#options = options;
  }

  /** Deletes acknowledged rows when no commit has done it for a while. */
  deleteIfDue(now: MonotonicMs): void {
    if (now - this.#deletedAt >= DELETE_INTERVAL_MS) this.deleteAcknowledged();
  }

  /** Deletes acknowledged rows in a transaction of their own. @returns Whether there may be more. */
  deleteAcknowledged(): boolean {
    if (LANES.every((lane) => this.#store.cursors[lane].acked === 0)) return false;
    const removed = this.#store.write(() => this.removeAcknowledged());
    return removed ? this.countRemoved(removed.value) : false;
  }

  /** Deletes acknowledged rows in the caller's transaction, after which `countRemoved` is due. */
  removeAcknowledged(): RemovedRows[] {
    return LANES.filter((lane) => this.#store.cursors[lane].acked > 0).map((lane) => {
      const upto = this.#store.cursors[lane].acked;
      return { lane, upto, ...this.#store.lanes[lane].removeUpto(upto, ROWS_PER_STEP) };
    });
  }

  /** After the commit. @returns Whether there may be more to delete. */
  countRemoved(removed: readonly RemovedRows[]): boolean {
    this.#deletedAt = this.#options.clock.monotonicMs();
    for (const { lane, upto, samples, more } of removed) {
      const cursor = this.#store.cursors[lane];
      if (!more && cursor.acked === upto) cursor.acked = 0;
      if (more) this.#deletedAt = 0;
      if (lane === 'telemetry') this.totals.acknowledged += samples;
    }
    return removed.some((lane) => lane.more);
  }

  /** Drops the oldest where the outbox is fuller than it should be. */
  evictIfNeeded(): void {
    const fill = this.#store.fill();
    if (fill > EVICT_ABOVE) this.#evict('telemetry', fill);
    if (fill > EVICT_STATES_ABOVE) this.#evict('state', fill);
  }

  /** Drops telemetry because something does not fit. @returns False: there is none to drop. */
  makeRoom(): boolean {
    return this.#evict('telemetry', this.#store.fill());
  }

  countGap(gap: GapSummary): void {
    this.totals.gapRecords += gap.records;
    this.totals.dropped += gap.samples;
  }

  /** Only ever drops what is not in flight: what the cloud may be storing right now must not change. */
  #evict(lane: LaneName, fill: number): boolean {
    const { inFlight, sent } = this.#store.cursors[lane];
    // At least one row, also when nothing fits although the fill is below the mark.
    const bytes = Math.max(1, (fill - EVICT_DOWN_TO) * this.#options.sizeMaxBytes);
    const gap = this.#store.write(() => this.#store.lanes[lane].evict(ROWS_PER_STEP, bytes, inFlight, sent))?.value;
    if (!gap) return false;
    this.countGap(gap);
    this.#options.log.warn({ lane, fill, records: gap.records, samples: gap.samples }, 'outbox.evicted');
    return true;
  }
}
