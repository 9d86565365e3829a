import { errorMessage } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import type { UpChannel } from '@outrider/shared/protocol/topics';
import { downTopic, upTopic } from '@outrider/shared/protocol/topics';
import { Backoff, pause, type Service } from '@outrider/shared/service';
import { SAMPLE_FLAGS } from '@outrider/shared/telemetry';
import type { Clock, MonotonicMs } from '@outrider/shared/time';
import { acksOf } from './acks.ts';
import type { Committer } from './committer.ts';
import type { IngestMetrics } from './ingest-metrics.ts';
import type { IngestStore, LaneOutcome, LaneWork, RobotDirectory } from './ingest-ports.ts';
import type { RobotRef } from './ports.ts';
import type { LaneRecord } from './record.ts';
import { LANE_OF_CHANNEL, type ReadBatch, readBatch } from './uplink.ts';

/** How long the first message of a commit waits for company. */
const LINGER_MS = 15;
/** A commit takes no more than this (or one message), so that its latency and its parameters stay small. */
const COMMIT_BYTES_MAX = 4 * 1024 * 1024;
/** What may wait while the database is slow or away. Past it messages are not taken: their senders keep them. */
const QUEUE_BYTES_MAX = 64 * 1024 * 1024;
const QUEUE_BYTES_PER_ROBOT_MAX = 8 * 1024 * 1024;
/** What may be unpacked before its turn has come, as it arrives and while the database works on a commit. */
const READ_AHEAD_BYTES_MAX = COMMIT_BYTES_MAX;
/** Messages that are read in one go meanwhile: less than a millisecond's. */
const READ_AT_ONCE = 8;
/** Acknowledgements on their way. One that finds no room is left out: its batches come again. */
const ACKS_IN_FLIGHT_MAX = 1000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5000;

interface Arrival {
  readonly device: DeviceIdentity;
  readonly name: string;
  readonly channel: UpChannel;
  readonly payload: Uint8Array;
  readonly arrivedAt: MonotonicMs;
  /** What the payload says, or why it says nothing. Absent until it has been read. */
  content?: ReadBatch | { readonly problem: unknown };
}

export interface InboxOptions {
  readonly store: IngestStore;
  readonly committer: Committer;
  readonly directory: RobotDirectory;
  readonly metrics: IngestMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  /** Sends an acknowledgement. It may fail: the edge sends its batch again. */
  readonly publish: (topic: string, payload: Uint8Array) => Promise<void>;
  /** Hears of what was stored, after the commit. Must not throw. */
  readonly onStored: (outcomes: readonly LaneOutcome[], ingestedAtMs: number) => void;
}

/** Takes batches of all robots, stores many with one commit, and acknowledges what was committed. */
export class Inbox implements Service {
  readonly name = 'ingest';
  readonly #options: InboxOptions;
  readonly #queue: Arrival[] = [];
  readonly #bytesByRobot = new Map<string, number>();
  readonly #backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS);
  #queuedBytes = 0;
  /** Arrivals at the front of the queue that have been read, and their bytes. */
  #readCount = 0;
  #readBytes = 0;
  #acksInFlight = 0;
  #wake: (() => void) | undefined;

  constructor(options: InboxOptions) {
    this.#options = options;
  }

  /** Takes a message of a lane. When there is no room it is dropped, counted, and comes again. */
  receive(device: DeviceIdentity, channel: UpChannel, payload: Uint8Array): void {
    const { metrics, clock } = this.#options;
    const name = deviceName(device);
    const robotBytes = this.#bytesByRobot.get(name) ?? 0;
    metrics.batches.inc({ channel });
    const isFull = this.#queuedBytes + payload.length > QUEUE_BYTES_MAX;
    if (isFull || robotBytes + payload.length > QUEUE_BYTES_PER_ROBOT_MAX) {
      metrics.dropped.inc({ reason: isFull ? 'queue_full' : 'robot_queue_full' });
      return;
    }
    this.#queuedBytes += payload.length;
    this.#bytesByRobot.set(name, robotBytes + payload.length);
    metrics.queuedBytes.set(this.#queuedBytes);
    this.#queue.push({ device, name, channel, payload, arrivedAt: clock.monotonicMs() });
    this.#readAhead(1);
    this.#wake?.();
  }

  /** Stores what arrives until told to stop; what has not been stored then was not acknowledged either. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    while (!signal.aborted) {
      if (this.#queue.length === 0) await this.#arrival();
      if (this.#queuedBytes < COMMIT_BYTES_MAX) await pause(LINGER_MS, signal);
      if (!signal.aborted) await this.#storeSome(signal);
    }
  }

  #arrival(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }

  async #storeSome(signal: AbortSignal): Promise<void> {
    const { committer, clock, metrics, log } = this.#options;
    const arrivals = this.#take();
    try {
      const work = await this.#read(arrivals, signal);
      const committing = committer.commit(work, signal);
      void this.#readMeanwhile(committing);
      const outcomes = await committing;
      this.#backoff.reset();
      if (outcomes.length === 0) return;
      this.#acknowledge(work, outcomes);
      const now = clock.monotonicMs();
      for (const arrival of arrivals) metrics.ackSeconds.observe((now - arrival.arrivedAt) / 1000);
      this.#count(outcomes);
      this.#options.onStored(outcomes, clock.epochMs());
    } catch (error) {
      // Nothing of it was acknowledged, so all of it comes again.
      metrics.dropped.inc({ reason: 'failed' });
      log.error({ err: error, batches: arrivals.length }, 'ingest.failed');
      await pause(this.#backoff.nextMs(), signal);
    } finally {
      this.#release(arrivals);
    }
  }

  #take(): Arrival[] {
    let bytes = 0;
    let count = 0;
    for (const arrival of this.#queue) {
      if (count > 0 && bytes + arrival.payload.length > COMMIT_BYTES_MAX) break;
      bytes += arrival.payload.length;
      count += 1;
    }
    const taken = this.#queue.splice(0, count);
    this.#readCount = Math.max(0, this.#readCount - count);
    this.#readBytes = Math.max(0, this.#readBytes - bytes);
    return taken;
  }

  /** Reads messages that wait while the database works on a commit, so that it gets the next one without delay. */
  async #readMeanwhile(committing: Promise<unknown>): Promise<void> {
    let hasEnded = false;
    const end = (): void => {
      hasEnded = true;
    };
    committing.then(end, end);
    // In between, the statements of the commit go out and its answers come in.
    while (!hasEnded && this.#readAhead(READ_AT_ONCE)) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Reads so many messages at the front of the queue. @returns Whether more may be read before their turn. */
  #readAhead(count: number): boolean {
    for (let read = 0; read < count; read += 1) {
      const arrival = this.#queue[this.#readCount];
      if (!arrival || this.#readBytes >= READ_AHEAD_BYTES_MAX) return false;
      arrival.content = this.#contentOf(arrival);
      this.#readCount += 1;
      this.#readBytes += arrival.payload.length;
    }
    return true;
  }

  #contentOf({ channel, payload }: Arrival): ReadBatch | { readonly problem: unknown } {
    const lane = LANE_OF_CHANNEL[channel];
    if (lane === undefined) return { problem: new Error(`the channel ${channel} carries no batches`) };
    try {
      return readBatch(payload, lane, this.#options.clock.epochMs());
    } catch (problem) {
      return { problem };
    }
  }

  #release(arrivals: readonly Arrival[]): void {
    for (const { name, payload } of arrivals) {
      this.#queuedBytes -= payload.length;
      const left = (this.#bytesByRobot.get(name) ?? 0) - payload.length;
      if (left > 0) this.#bytesByRobot.set(name, left);
      else this.#bytesByRobot.delete(name);
    }
    this.#options.metrics.queuedBytes.set(this.#queuedBytes);
  }

  /** Reads the messages and puts together what belongs to one lane. */
  async #read(arrivals: readonly Arrival[], signal: AbortSignal): Promise<LaneWork[]> {
    const { metrics } = this.#options;
    const lanes = new Map<string, LaneWork & { readonly records: LaneRecord[]; readonly batchIds: number[] }>();
    for (const arrival of arrivals) {
      const robot = await this.#find(arrival.device, signal);
      if (!robot) {
        metrics.dropped.inc({ reason: 'unknown_robot' });
        continue;
      }
      const content = arrival.content ?? this.#contentOf(arrival);
      if ('problem' in content) {
        await this.#quarantine(robot, arrival, content.problem);
        continue;
      }
      const key = `${robot.robotPk}/${content.epoch}/${content.lane}`;
      const entry = lanes.get(key) ?? { robot, epoch: content.epoch, lane: content.lane, records: [], batchIds: [] };
      for (const record of content.records) entry.records.push(record);
      if (content.batchId !== 0) entry.batchIds.push(content.batchId);
      lanes.set(key, entry);
    }
    return [...lanes.values()].filter((entry) => entry.records.length > 0);
  }

  async #find(device: DeviceIdentity, signal: AbortSignal): Promise<RobotRef | undefined> {
    return signal.aborted ? undefined : await this.#options.directory.find(device);
  }

  async #quarantine(robot: RobotRef, arrival: Arrival, error: unknown): Promise<void> {
    const { store, clock, metrics, log } = this.#options;
    const reason = errorMessage(error);
    metrics.quarantined.inc({ reason: 'batch' });
    log.warn({ robotId: robot.robotId, tenantId: robot.tenantId, reason }, 'ingest.batch_quarantined');
    const topic = upTopic(arrival.device, arrival.channel);
    await store.quarantine({ robotPk: robot.robotPk, topic, reason, body: arrival.payload }, clock.epochMs());
  }

  /** Nothing waits for these: a frozen robot must not hold up the others. */
  #acknowledge(work: readonly LaneWork[], outcomes: readonly LaneOutcome[]): void {
    for (const { robot, payload } of acksOf(work, outcomes)) this.#sendAck(downTopic(robot, 'ack'), payload);
  }

  #sendAck(topic: string, payload: Uint8Array): void {
    const { metrics, publish } = this.#options;
    if (this.#acksInFlight >= ACKS_IN_FLIGHT_MAX) {
      metrics.dropped.inc({ reason: 'ack_not_sent' });
      return;
    }
    this.#acksInFlight += 1;
    publish(topic, payload)
      .catch(() => metrics.dropped.inc({ reason: 'ack_not_sent' }))
      .finally(() => {
        this.#acksInFlight -= 1;
      });
  }

  #count(outcomes: readonly LaneOutcome[]): void {
    const { clock, metrics, log } = this.#options;
    for (const outcome of outcomes) {
      metrics.records.inc({ lane: outrider.v1.Lane[outcome.lane] }, outcome.stored.length);
      metrics.duplicates.inc(outcome.duplicates);
      metrics.collisions.inc(outcome.collisions);
      if (outcome.deferred > 0) metrics.dropped.inc({ reason: 'beyond_hole' }, outcome.deferred);
      const { robotId, tenantId } = outcome.robot;
      if (outcome.collision)
        log.error({ robotId, tenantId, epoch: outcome.epoch, count: outcome.collisions }, 'ingest.sequence_collided');
      const received = newestReceivedMs(outcome.stored);
      if (received !== undefined) metrics.setLag(outcome.robot, clock.epochMs() - received);
      for (const record of outcome.stored) {
        if (record.kind === 'telemetry') metrics.samples.inc(record.block.count);
        else if (record.kind === 'gap') {
          metrics.gaps.inc();
          metrics.gapSamples.inc(record.samples);
          log.warn({ robotId, tenantId, samples: record.samples, reason: record.reason }, 'ingest.gap_reported');
        } else if (record.kind === 'poison') {
          metrics.quarantined.inc({ reason: 'record' });
          log.warn({ robotId, tenantId, seq: record.seq, reason: record.reason }, 'ingest.record_quarantined');
        }
      }
    }
  }
}

/** When the robot received the newest of this telemetry; recordings that are being replayed do not count. */
function newestReceivedMs(records: readonly LaneRecord[]): number | undefined {
  let newest: number | undefined;
  for (const record of records) {
    if (record.kind !== 'telemetry') continue;
    const row = record.block.count - 1;
    if (((record.block.flags[row] ?? 0) & SAMPLE_FLAGS.replayed) !== 0) continue;
    const received = Number((record.block.receivedNs[row] ?? 0n) / 1_000_000n);
    if (newest === undefined || received > newest) newest = received;
  }
  return newest;
}
