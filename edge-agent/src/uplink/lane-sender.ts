import { randomInt } from 'node:crypto';
import { outrider } from '@outrider/shared/messages';
import { BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX } from '@outrider/shared/protocol/codec';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import type { Clock, MonotonicMs } from '@outrider/shared/time';
import type { Outbox } from '../outbox/outbox.ts';
import { LANE_NUMBERS, type LaneName, type StoredRecord } from '../outbox/records.ts';
import type { Budget } from './budget.ts';

const { UplinkBatch } = outrider.v1;
/** Room for what a batch adds to its records' bodies. */
const ENVELOPE_BYTES = 512;
const RECORD_BYTES = 64;
const ORIGIN_BYTES = 32;
/** The most that `randomInt` takes. */
const BATCH_ID_END = 2 ** 48 - 1;
/** Batches of a connection that may still be named, those that were sent again included. */
const NAMEABLE_MAX = 256;
/** Used again for each batch: a new one would double and copy its buffer a dozen times on the way to a batch's size. */
let batchWriter = UplinkBatch.encode({});

/** Positions of a batch. */
export interface BatchRange {
  readonly from: number;
  readonly upto: number;
}

interface InFlight extends BatchRange {
  readonly sentAt: MonotonicMs;
}
/** What the lane's sender looks at of an acknowledgement. */
export type LaneAck = Pick<outrider.v1.Ack, 'epoch' | 'upto' | 'batchIds'>;
type Send = (lane: LaneName, payload: Uint8Array, range: BatchRange) => void;

/** Sends one lane over one connection: a window of batches, each kept in the outbox until the cloud has it. */
export class LaneSender {
  readonly lane: LaneName;
  readonly #outbox: Outbox;
  readonly #clock: Clock;
  readonly #window: number;
  readonly #send: Send;
  readonly #budget: Budget | undefined;
  #inFlight: InFlight[] = [];
  #sentUpto: number;
  /** Highest position sent over this connection. */
  #highest: number;
  /** Up to here the cloud has what this very sender sent. */
  #ackedUpto: number;
  /** The cloud's watermark of this epoch, whoever moved it. */
  #cloudUpto: number;
  readonly #isNaming: boolean;
  /** Batches that were not named yet, also those that were sent again in others since. */
  readonly #nameable = new Map<number, InFlight>();
  /** Named, and not deleted: what comes before is not. */
  #named: InFlight[] = [];

  /** @param watermark Where to begin: what the cloud has acknowledged to this outbox. */
  constructor(
    lane: LaneName,
    outbox: Outbox,
    clock: Clock,
    options: {
      window: number;
      watermark: number;
      /** What the cloud says it has of this epoch. It may be another robot's. */
      cloudHas?: number;
      /** Whether acknowledgements name batches; those of an older cloud do not. */
      isNaming?: boolean;
      /** What the link may carry of this lane. Absent: all. */
      budget?: Budget | undefined;
      send: Send;
    },
  ) {
    this.lane = lane;
    this.#outbox = outbox;
    this.#clock = clock;
    this.#window = options.window;
    this.#send = options.send;
    this.#budget = options.budget;
    this.#sentUpto = options.watermark;
    this.#highest = options.watermark;
    this.#ackedUpto = options.watermark;
    this.#cloudUpto = options.cloudHas ?? options.watermark;
    this.#isNaming = options.isNaming ?? false;
  }

  /** First position that waits for an acknowledgement; `undefined` when none does. */
  get oldestInFlight(): number | undefined {
    return this.#inFlight[0]?.from;
  }

  /** Sends until the window is full or the lane is. @param oneRecord Alone, to find out which one is refused. */
  fill(oneRecord = false): void {
    const window = oneRecord ? 1 : this.#window;
    const bytesMax = this.#budget?.batchBytesMax ?? BATCH_BYTES_MAX;
    while (this.#inFlight.length < window && (this.#budget?.hasRoom() ?? true)) {
      const records = this.#outbox.next(this.lane, this.#sentUpto, oneRecord ? 0 : bytesMax - ENVELOPE_BYTES);
      const first = records[0];
      if (!first) return;
      const batch = oneRecord ? [first] : cut(records, bytesMax);
      const batchId = randomInt(1, BATCH_ID_END);
      const payload = this.#encode(batch, batchId);
      if (payload.length > PAYLOAD_BYTES_MAX) {
        // It would cost the connection each time. It stays in quarantine, and a gap says so.
        this.#outbox.refuseRecord(this.lane, first.seq);
        continue;
      }
      const last = batch.at(-1) ?? first;
      this.#sentUpto = Math.max(last.seq, last.seqTo);
      this.#highest = Math.max(this.#highest, this.#sentUpto);
      this.#outbox.setInFlight(this.lane, this.#sentUpto);
      const range = { from: first.seq, upto: this.#sentUpto };
      this.#track(batchId, { ...range, sentAt: this.#clock.monotonicMs() });
      this.#budget?.spend(payload.length);
      this.#send(this.lane, payload, range);
    }
  }

  /**
   * Deletes what the cloud has of this sender's: batches that were named, up to the watermark. The watermark alone says
   * little, because another robot that has a copy of this database moves it too.
   *
   * @returns How long the newest batch it covers was on its way [ms]; `undefined` for an ack that is not for this sender.
   */
  acknowledge(ack: LaneAck): number | undefined {
    if (ack.epoch !== this.#outbox.epoch) return undefined;
    const upto = this.#isNaming ? this.#namedUpto(ack) : this.#coveredUpto(ack);
    if (upto === undefined || !this.#outbox.acknowledge({ epoch: ack.epoch, lane: this.lane, upto })) return undefined;
    this.#ackedUpto = upto;
    for (const [id, batch] of this.#nameable) if (batch.upto <= upto) this.#nameable.delete(id);
    const now = this.#clock.monotonicMs();
    let latencyMs = 0;
    while (this.#inFlight[0] && this.#inFlight[0].upto <= upto) {
      latencyMs = now - this.#inFlight[0].sentAt;
      this.#inFlight.shift();
    }
    this.#sentUpto = Math.max(this.#sentUpto, upto);
    if (this.#inFlight.length === 0) this.#outbox.setInFlight(this.lane, 0);
    return latencyMs;
  }

  get ackedUpto(): number {
    return this.#ackedUpto;
  }

  /** Whether the oldest batch has waited too long. */
  isOverdue(timeoutMs: number): boolean {
    const oldest = this.#inFlight[0];
    return oldest !== undefined && this.#clock.monotonicMs() - oldest.sentAt >= timeoutMs;
  }

  /** Sends everything that is not acknowledged again, from the oldest on. */
  resend(): void {
    const oldest = this.#inFlight[0];
    if (!oldest) return;
    this.#sentUpto = oldest.from - 1;
    this.#inFlight = [];
    this.fill();
  }

  #track(batchId: number, batch: InFlight): void {
    this.#inFlight.push(batch);
    this.#nameable.set(batchId, batch);
    const [oldest] = this.#nameable.keys();
    if (this.#nameable.size > NAMEABLE_MAX && oldest !== undefined) this.#nameable.delete(oldest);
  }

  /** Up to where the batches that were named follow each other; `undefined` when none of these is ours. */
  #namedUpto({ batchIds, upto }: LaneAck): number | undefined {
    this.#cloudUpto = Math.max(this.#cloudUpto, upto);
    const named = batchIds.map((id) => this.#nameable.get(id)).filter((batch) => batch !== undefined);
    this.#named = [...this.#named, ...named].sort((a, b) => a.from - b.from);
    let reached = this.#ackedUpto;
    for (const batch of this.#named)
      if (batch.from <= reached + 1 && batch.upto <= this.#cloudUpto) reached = Math.max(reached, batch.upto);
    this.#named = this.#named.filter((batch) => batch.upto > reached);
    return named.length > 0 || reached > this.#ackedUpto ? reached : undefined;
  }

  /** Of an older cloud: its watermark, as far as this connection has sent. */
  #coveredUpto({ upto }: LaneAck): number | undefined {
    if (upto > this.#highest && upto > this.#cloudUpto) return undefined;
    return Math.max(this.#ackedUpto, Math.min(upto, this.#highest));
  }

  #encode(records: readonly StoredRecord[], batchId: number): Uint8Array {
    batchWriter.reset();
    const batch = {
      protocolVersion: PROTOCOL_VERSION,
      epoch: this.#outbox.epoch,
      lane: LANE_NUMBERS[this.lane],
      batchId,
      records: records.map(({ seq, seqTo, crc, bootId, kind, body, origin }) => ({
        ...{ seq, seqTo, crc, bootId, kind, body },
        ...(origin && { origEpoch: origin.epoch, origSeq: origin.seq }),
      })),
    };
    try {
      return UplinkBatch.encode(batch, batchWriter).finish();
    } catch (error) {
      // It may have stopped inside a record, and would go on there.
      batchWriter = UplinkBatch.encode({});
      throw error;
    }
  }
}

/** As many records as fit, with what each adds to its body; at least one. */
function cut(records: readonly StoredRecord[], bytesMax: number): readonly StoredRecord[] {
  let bytes = ENVELOPE_BYTES;
  const end = records.findIndex((record) => {
    bytes += record.body.length + RECORD_BYTES + (record.origin ? ORIGIN_BYTES : 0);
    return bytes > bytesMax;
  });
  return end === -1 ? records : records.slice(0, Math.max(1, end));
}
