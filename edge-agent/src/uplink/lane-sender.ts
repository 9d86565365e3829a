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
  /** Highest position sent over this connection: no acknowledgement may go beyond it. */
  #highest: number;
  readonly #cloudHas: number;

  /**
   * @param watermark What the cloud has already and this outbox has sent.
   * @param cloudHas What the cloud says it has: acknowledgements up to there count for what was sent.
   */
  constructor(
    lane: LaneName,
    outbox: Outbox,
    clock: Clock,
    options: {
      window: number;
      watermark: number;
      cloudHas?: number;
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
    this.#cloudHas = options.cloudHas ?? options.watermark;
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
      const payload = this.#encode(batch);
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
      this.#inFlight.push({ ...range, sentAt: this.#clock.monotonicMs() });
      this.#budget?.spend(payload.length);
      this.#send(this.lane, payload, range);
    }
  }

  /** @returns How long the newest batch it covers was on its way [ms]; `undefined` for an ack that makes no sense. */
  acknowledge(epoch: string, cloudUpto: number): number | undefined {
    const upto = cloudUpto <= this.#cloudHas ? Math.min(cloudUpto, this.#highest) : cloudUpto;
    if (upto > this.#highest || !this.#outbox.acknowledge({ epoch, lane: this.lane, upto })) return undefined;
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

  #encode(records: readonly StoredRecord[]): Uint8Array {
    batchWriter.reset();
    const batch = {
      protocolVersion: PROTOCOL_VERSION,
      epoch: this.#outbox.epoch,
      lane: LANE_NUMBERS[this.lane],
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
