import { DomainError } from '@outrider/shared/errors';
import { aborted, type Service } from '@outrider/shared/service';
import { type Sample, valueCount } from '@outrider/shared/telemetry';
import type { MonotonicMs } from '@outrider/shared/time';
import { BlockBuilder } from './block-builder.ts';
import { Pending } from './pending.ts';
import {
  eventRecord,
  LANES,
  type LaneName,
  type NewRecord,
  type OutboxEvent,
  type StoredRecord,
  stateRecord,
} from './records.ts';
import { type RemovedRows, Retention } from './retention.ts';
import { Store } from './store.ts';
import { TRANSITION_MARGIN_MS } from './thinning.ts';
import type { OutboxAck, OutboxOptions, OutboxStats } from './types.ts';

/** A stream of full blocks is written before its time rather than kept in memory. */
const BLOCKS_PENDING_MAX = 64;
/** Blocks of a backlog that are written in one piece. */
const BACKLOG_BLOCKS = 8;
const RETRY_WHEN_FULL_MS = 500;

/**
 * Keeps every sample, event and state on disk until the cloud says that it has them.
 *
 * Telemetry is packed into blocks and committed in groups; an event is committed at once. A full disk never throws
 * out of here: events wait in memory, lost telemetry is counted and becomes a gap record when there is room again.
 */
export class Outbox implements Service {
  readonly name = 'outbox';
  readonly #options: OutboxOptions;
  readonly #store: Store;
  readonly #retention: Retention;
  readonly #pending = new Pending();
  readonly #builder = new BlockBuilder((block) => this.#pending.addBlock(block));
  readonly #commitListeners: (() => void)[] = [];
  readonly #stateValues = new Map<string, string>();
  readonly #refusedStreams = new Set<string>();
  readonly #totals = { committed: 0, refused: 0 };
  #isLive = false;
  #eventCommitScheduled = false;
  /** While nothing can be written: when to try again. */
  #retryAt: MonotonicMs | undefined;

  /**
   * Opens or creates the outbox of a state directory; a damaged one is set aside and salvaged.
   *
   * @throws DomainError `already_exists` when another agent uses the directory.
   */
  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#store = new Store(options.stateDir, options.sizeMaxBytes, options.bootId, options.log);
    this.#retention = new Retention(this.#store, options);
  }

  /** Identity of the position numbers: random, new whenever positions could be given out twice. */
  get epoch(): string {
    return this.#store.epoch;
  }

  /** Highest position ever given out in a lane; 0 when none was. */
  maxSeq(lane: LaneName): number {
    return this.#store.lanes[lane].maxSeq;
  }

  /** Lowest position that a lane still holds; all below were acknowledged. One past the highest when it is empty. */
  oldestSeq(lane: LaneName): number {
    return this.#store.lanes[lane].oldestSeq;
  }

  /** Up to here the cloud has acknowledged this very outbox's records. */
  ackedUpto(lane: LaneName): number {
    return Math.max(this.#store.cursors[lane].acked, this.oldestSeq(lane) - 1);
  }

  /** Cuts a gap in two that reaches past what the cloud has, so that nothing is told lost which it has. */
  cutGap(lane: LaneName, upto: number): void {
    this.#store.write(() => this.#store.lanes[lane].cutGapAfter(upto));
  }

  /** How far a recording was taken over, on disk; `undefined` when it never was. */
  replayPosition(source: string): number | undefined {
    const text = this.#store.meta.get(`position.${source}`);
    return text === undefined ? undefined : Number(text);
  }

  /** Called after each commit, by whoever sends. */
  onCommit(listener: () => void): void {
    this.#commitListeners.push(listener);
  }

  /** Whether the link is up, so that blocks close early. */
  setLive(isLive: boolean): void {
    this.#isLive = isLive;
  }

  /**
   * Takes a sample. Cheap: it is packed and written later, at the latest after the flush and the commit interval.
   *
   * @param position Where its recording stands after it. It is written in the transaction that holds the sample.
   */
  appendSample(sample: Sample, position?: { readonly source: string; readonly value: number }): void {
    // While the program stops, the guard may still hand over a sample.
    if (this.#store.isClosed) return;
    if (sample.values.length !== valueCount(sample.layout)) {
      this.#refuseSample(sample);
      return;
    }
    this.#builder.add(sample, this.#options.clock.monotonicMs(), position);
    if (this.#pending.blocks.length >= BLOCKS_PENDING_MAX && this.#retryAt === undefined) this.#commit();
  }

  /**
   * Takes an event. Resolves when it is on disk; waits in memory while there is no space. An id that
   * was written before is not written again.
   *
   * @throws DomainError `unavailable` when it had to give way to newer events.
   */
  appendEvent(event: OutboxEvent): Promise<void> {
    if (this.#store.isClosed) return Promise.reject(new DomainError('unavailable', 'the outbox is closed'));
    if (event.type === 'failsafe.transition.v1')
      this.protect(event.occurredAtMs - TRANSITION_MARGIN_MS, event.occurredAtMs + TRANSITION_MARGIN_MS);
    const stored = this.#pending.addEvent(event.eventId, eventRecord(event));
    if (!this.#eventCommitScheduled) {
      this.#eventCommitScheduled = true;
      setImmediate(() => {
        this.#eventCommitScheduled = false;
        if (!this.#store.isClosed && this.#retryAt === undefined && !this.#commitEvents()) this.#commit();
      });
    }
    return stored;
  }

  /**
   * Says that telemetry received in this stretch matters most: it is not thinned, and evicted last. Noted on disk with
   * the next commit. Around each failsafe transition that is appended it is said by itself.
   */
  protect(fromMs: number, toMs: number): void {
    this.#retention.spans.add(fromMs, toMs);
  }

  /** Takes the new value of a key; written with the next commit, and only when it differs from the last one. */
  appendState(key: string, value: unknown): void {
    const json = JSON.stringify(value);
    if (this.#stateValues.get(key) === json) return;
    this.#stateValues.set(key, json);
    this.#pending.addState(key, stateRecord(key, json, this.#options.clock.epochMs()));
  }

  /** Closes all open blocks, writes everything that waits and deletes everything that is acknowledged. */
  flush(): void {
    while (this.#retention.deleteAcknowledged());
    this.#closeAll();
    this.#commit();
    while (this.#retention.deleteAcknowledged());
  }

  /** Records after a position, in order, at least one when there is one. Damaged rows come back as gaps. */
  next(lane: LaneName, afterSeq: number, bytesMax: number): StoredRecord[] {
    for (;;) {
      const table = this.#store.lanes[lane];
      const found = this.#store.read(() => table.next(afterSeq, bytesMax));
      if (!found) return [];
      const { records, repaired } = found;
      if (!repaired) return records;
      if (repaired !== 'cut')
        this.#options.log.error({ lane, after_seq: afterSeq, gap: repaired }, 'outbox.record_damaged');
      if (!this.#store.write(() => table === this.#store.lanes[lane] && table.repair())) return records;
      if (repaired !== 'cut') this.#retention.countGap(repaired);
      if (records.length > 0) return records;
    }
  }

  /** Says that records up to here are on their way, so that they are not evicted or changed meanwhile. 0: none. */
  setInFlight(lane: LaneName, upto: number): void {
    if (lane === 'telemetry' && upto > 0) this.#store.reserveSending(upto);
    const cursor = this.#store.cursors[lane];
    cursor.inFlight = upto;
    cursor.sent = Math.max(cursor.sent, upto);
  }

  /**
   * Deletes what the cloud has stored, a little later. The only thing that deletes records.
   *
   * @returns False when the acknowledgement is not about this epoch or about positions never given out.
   */
  acknowledge(ack: OutboxAck): boolean {
    if (ack.epoch !== this.epoch || ack.upto > this.maxSeq(ack.lane)) return false;
    const cursor = this.#store.cursors[ack.lane];
    cursor.acked = Math.max(cursor.acked, ack.upto);
    return true;
  }

  /** Replaces a record that the cloud refuses again and again by a gap; its bytes stay in quarantine. */
  refuseRecord(lane: LaneName, seq: number): void {
    const gap = this.#store.write(() => this.#store.lanes[lane].refuse(seq))?.value;
    if (gap) this.#retention.countGap(gap);
  }

  /**
   * Starts a new epoch: the oldest record becomes position 1, and all that waits is sent again.
   *
   * @returns False when that cannot be written now.
   */
  startEpoch(reason: string): boolean {
    return this.#store.startEpoch(reason);
  }

  stats(): OutboxStats {
    const sizeBytesMax = this.#options.sizeMaxBytes;
    const fill = this.#store.fill();
    return {
      epoch: this.#store.epoch,
      sizeBytes: Math.round(fill * sizeBytesMax),
      sizeBytesMax,
      fill,
      lanes: {
        event: this.#store.lanes.event.stats(),
        state: this.#store.lanes.state.stats(),
        telemetry: this.#store.lanes.telemetry.stats(),
      },
      samplesCommitted: this.#totals.committed,
      samplesAcknowledged: this.#retention.totals.acknowledged,
      gapRecords: this.#retention.totals.gapRecords,
      samplesDropped: this.#retention.totals.dropped,
      samplesThinned: this.#retention.totals.thinned,
      samplesRefused: this.#totals.refused,
      isFull: this.#retryAt !== undefined,
      eventsInMemory: this.#pending.events.length,
    };
  }

  /** Whether everything that was ever taken has been acknowledged. */
  isDrained(): boolean {
    const isClosed = this.#builder.openSince === undefined;
    return isClosed && this.#pending.isEmpty && LANES.every((lane) => this.#store.lanes[lane].stats().records === 0);
  }

  async run(signal: AbortSignal): Promise<void> {
    const timer = setInterval(() => this.#tick(), this.#options.commitIntervalMs);
    await aborted(signal);
    clearInterval(timer);
    this.close();
  }

  /** Writes what waits and frees the directory. Closing twice is harmless. */
  close(): void {
    if (this.#store.isClosed) return;
    this.#retryAt = undefined;
    this.flush();
    this.#pending.refuseEvents();
    this.#store.close();
  }

  #tick(): void {
    const { clock, log } = this.#options;
    try {
      const now = clock.monotonicMs();
      if (this.#retryAt !== undefined && now < this.#retryAt) return;
      if (this.#isDue(now)) {
        this.#closeAll();
        this.#commit();
      } else if (!this.#isRecording()) this.#commit();
      this.#retention.deleteIfDue(now);
    } catch (error) {
      log.error({ err: error }, 'outbox.tick_failed');
    }
  }

  /** Open blocks of all streams close together: one commit instead of one per stream. */
  #isDue(now: MonotonicMs): boolean {
    const { flushIntervalMs, flushIntervalOfflineMs } = this.#options;
    const { openSince } = this.#builder;
    // The first samples of a start do not wait either: whoever restarts a robot wants to keep how it began.
    const isSoon = this.#isLive || this.#totals.committed === 0;
    return openSince !== undefined && now - openSince >= (isSoon ? flushIntervalMs : flushIntervalOfflineMs);
  }

  /** A recording is written up to one position for all its streams, so its full blocks wait for the open ones. */
  #isRecording(): boolean {
    return this.#builder.isRecording && this.#pending.blocks.length < BLOCKS_PENDING_MAX;
  }

  #closeAll(): void {
    for (const [source, value] of this.#builder.closeAll()) this.#pending.positions.set(source, value);
  }

  /** Writes everything that waits; makes room or falls back to the events alone when there is no space. */
  #commit(): void {
    // A block of a recording must not be written without the position that it belongs to.
    if (this.#builder.isRecording) this.#closeAll();
    if (this.#pending.isEmpty) return;
    const written = this.#store.hasRoom() ? this.#writeAll() : undefined;
    if (!written) {
      this.#store.releaseBallast();
      this.#retention.deleteAcknowledged();
      this.#commitEvents();
      this.#setFull(true);
      return;
    }
    this.#retention.countRemoved(written.value);
    const { lostTelemetry, blocks } = this.#pending;
    this.#totals.committed += samplesOf(blocks);
    this.#pending.clearAll();
    if (lostTelemetry) this.#retention.countGap(lostTelemetry);
    this.#setFull(false);
    this.#retention.evictIfNeeded();
    for (const listener of this.#commitListeners) listener();
  }

  #writeAll(): { value: RemovedRows[] } | undefined {
    const write = (): { value: RemovedRows[] } | undefined => this.#store.write(() => this.#writePending());
    return (
      write() ?? (this.#retention.makeRoom() ? write() : undefined) ?? (this.#writeBacklog() ? write() : undefined)
    );
  }

  /** What a full disk has held up may be more than the outbox takes at once: it goes in pieces, the oldest first. */
  #writeBacklog(): boolean {
    const { blocks, positions } = this.#pending;
    // A recording is written up to one position, all of it or nothing.
    if (positions.size > 0 || blocks.length <= BACKLOG_BLOCKS) return false;
    while (blocks.length > BACKLOG_BLOCKS) {
      const piece = blocks.slice(0, BACKLOG_BLOCKS);
      const write = (): unknown => this.#store.write(() => this.#store.lanes.telemetry.appendAll(piece));
      while (!write()) if (!this.#retention.makeRoom()) return false;
      this.#pending.clearBlocks(BACKLOG_BLOCKS);
      this.#totals.committed += samplesOf(piece);
      this.#retention.evictIfNeeded();
    }
    return true;
  }

  /** Writes the events alone: all at once, or, when they do not fit together, as many as fit. */
  #commitEvents(): boolean {
    const { events } = this.#pending;
    const before = events.length;
    if (this.#store.write(() => this.#writeEvents(before))) this.#pending.clearEvents(before);
    else while (events.length > 0 && this.#store.write(() => this.#writeEvents(1))) this.#pending.clearEvents(1);
    if (events.length < before) for (const listener of this.#commitListeners) listener();
    return events.length === 0;
  }

  #writePending(): RemovedRows[] {
    const { telemetry, state } = this.#store.lanes;
    const { lostTelemetry, blocks, states, positions } = this.#pending;
    const removed = this.#retention.removeAcknowledged();
    this.#writeEvents(this.#pending.events.length);
    if (lostTelemetry) telemetry.appendGap(lostTelemetry);
    telemetry.appendAll(blocks);
    state.appendAll([...states.values()]);
    for (const [source, value] of positions) this.#store.meta.set(`position.${source}`, value);
    for (const lane of LANES) this.#store.meta.set(`sent.${lane}`, this.#store.cursors[lane].sent);
    this.#retention.writeSpans();
    return removed;
  }

  #writeEvents(count: number): void {
    const { lanes, recent } = this.#store;
    if (this.#pending.lostEvents) lanes.event.appendGap(this.#pending.lostEvents);
    const eventIds: string[] = [];
    const records: NewRecord[] = [];
    for (const { eventId, record } of this.#pending.events.slice(0, count)) {
      if (recent.has(eventId)) continue;
      eventIds.push(eventId);
      records.push(record);
    }
    if (records.length === 0) return;
    recent.add(eventIds);
    lanes.event.appendAll(records);
    this.#retention.writeSpans();
  }

  #setFull(isFull: boolean): void {
    const { clock, log } = this.#options;
    if (isFull && this.#retryAt === undefined) log.error({ fill: this.#store.fill() }, 'outbox.full');
    if (!isFull && this.#retryAt !== undefined) log.info({ fill: this.#store.fill() }, 'outbox.writable_again');
    this.#retryAt = isFull ? ((clock.monotonicMs() + RETRY_WHEN_FULL_MS) as MonotonicMs) : undefined;
  }

  #refuseSample(sample: Sample): void {
    this.#totals.refused += 1;
    const { stream } = sample.layout;
    if (this.#refusedStreams.has(stream)) return;
    this.#refusedStreams.add(stream);
    this.#options.log.error(
      { stream, values: sample.values.length, expected: valueCount(sample.layout) },
      'outbox.sample_refused',
    );
  }
}

const samplesOf = (blocks: readonly NewRecord[]): number => blocks.reduce((sum, { samples }) => sum + samples, 0);
