import type { Logger } from '@outrider/shared/log';
import type { Clock, MonotonicMs } from '@outrider/shared/time';
import type { ThinnableRow } from './lane-statements.ts';
import { type GapSummary, LANES, type LaneName, type RowSpan } from './records.ts';
import type { Store } from './store.ts';
import { ProtectedSpans, THINNABLE_SAMPLES_MIN, type ThinnedBlock, thinBlock } from './thinning.ts';

/** From here on old telemetry blocks are thinned. */
const THIN_ABOVE = 0.8;
/** Where thinning alone does not keep up: whole blocks go. Before states. */
const EVICT_ABOVE = 0.85;
const EVICT_STATES_ABOVE = 0.9;
/** Eviction ends here: not right at the bound, so that it does not run at each commit. */
const EVICT_DOWN_TO = 0.75;
/** Blocks thinned at a time, and after how long it ends before that: the guard watches how the agent gets on. */
const BLOCKS_PER_STEP = 8;
const THIN_STEP_MS = 5;
/** The newest quarter of a backlog stays as it is: who looks after an outage looks at its end first. */
const KEEP_NEWEST = 0.25;
/** Rows evicted or deleted in one go: a few milliseconds, so that the agent never looks stuck to its guard. */
const ROWS_PER_STEP = 200;
const THINNABLE = { keepNewest: KEEP_NEWEST, samplesMin: THINNABLE_SAMPLES_MIN, recordsMax: BLOCKS_PER_STEP };
/** Under this name the spans are kept beside the lanes. */
const SPANS = 'protected_spans';
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
  readonly totals = { acknowledged: 0, gapRecords: 0, dropped: 0, thinned: 0 };
  /** Whose blocks are not thinned, and evicted last. */
  readonly spans: ProtectedSpans;
  readonly #store: Store;
  readonly #options: { readonly sizeMaxBytes: number; readonly clock: Clock; readonly log: Logger };
  #deletedAt = 0;
  /** Up to which row blocks were thinned or found not worth it. A new epoch, also that of a new file, begins anew. */
  #thinned = { epoch: '', row: 0 };

  constructor(store: Store, options: { readonly sizeMaxBytes: number; readonly clock: Clock; readonly log: Logger }) {
    this.#store = store;
    this.#options = options;
    this.spans = new ProtectedSpans(store.meta.get(SPANS));
  }

  /** Writes changed spans in the caller's transaction. */
  writeSpans(): void {
    const { meta } = this.#store;
    // By what is on disk: a transaction may be rolled back, and a damaged file replaced.
    if (this.spans.text !== (meta.get(SPANS) ?? '[]')) meta.set(SPANS, this.spans.text);
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

  /** Thins old blocks where the outbox is fuller than it should be, and drops the oldest where that does not do. */
  evictIfNeeded(): void {
    const fill = this.#store.fill();
    if (fill > THIN_ABOVE) {
      const goesOn = this.#thin(fill);
      // While there is something left to thin, no more is dropped than what it does not keep up with.
      if (fill > EVICT_ABOVE || !goesOn) this.#evict('telemetry', fill, goesOn ? THIN_ABOVE : EVICT_DOWN_TO);
    }
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

  /**
   * Replaces some old blocks, the oldest first, by thinner ones. Never one that was sent, on whatever connection: the
   * cloud tells contents apart by their hash, and would take it for another robot's.
   *
   * @returns Whether blocks were thinned, or are still to be looked at.
   */
  #thin(fill: number): boolean {
    const { clock, log } = this.#options;
    const { epoch } = this.#store;
    const table = this.#store.lanes.telemetry;
    const { acked, inFlight, sent, sentBefore } = this.#store.cursors.telemetry;
    const sentUpto = Math.max(acked, inFlight, sent, sentBefore);
    const from = this.#thinned.epoch === epoch ? this.#thinned.row : 0;
    const found = this.#store.read(() => table.thinnable(sentUpto, from, THINNABLE));
    if (!found) return false;
    const startedAt = clock.monotonicMs();
    const blocks: { row: ThinnableRow; block: ThinnedBlock }[] = [];
    let { lookedAt, more } = found;
    for (const row of found.rows) {
      const block = this.spans.covers(row) ? undefined : thinBlock(row.body, this.spans.all);
      if (block) blocks.push({ row, block });
      // At least one, however slow: it goes on here the next time.
      if (clock.monotonicMs() - startedAt < THIN_STEP_MS || row === found.rows.at(-1)) continue;
      lookedAt = row.seq;
      more = true;
      break;
    }
    if (blocks.length > 0) {
      const write = (): void => {
        if (table === this.#store.lanes.telemetry) table.thin(blocks);
      };
      if (!this.#store.write(write) || table !== this.#store.lanes.telemetry) return false;
      const samples = blocks.reduce((sum, { block }) => sum + block.thinned, 0);
      this.totals.thinned += samples;
      log.debug({ fill, records: blocks.length, samples }, 'outbox.thinned');
    }
    this.#thinned = { epoch, row: lookedAt };
    return more || blocks.length > 0;
  }

  /** Only ever drops what is not in flight: what the cloud may be storing right now must not change. */
  #evict(lane: LaneName, fill: number, downTo = EVICT_DOWN_TO): boolean {
    const { inFlight, sent } = this.#store.cursors[lane];
    // At least one row, also when nothing fits although the fill is below the mark.
    const bytes = Math.max(1, (fill - downTo) * this.#options.sizeMaxBytes);
    const isSpared =
      lane === 'telemetry' && this.spans.all.length > 0 ? (row: RowSpan) => this.spans.covers(row) : undefined;
    const evict = (): GapSummary | undefined =>
      this.#store.lanes[lane].evict(ROWS_PER_STEP, bytes, inFlight, sent, isSpared);
    const gap = this.#store.write(evict)?.value;
    if (!gap) return false;
    this.countGap(gap);
    this.#options.log.warn({ lane, fill, records: gap.records, samples: gap.samples }, 'outbox.evicted');
    return true;
  }
}
