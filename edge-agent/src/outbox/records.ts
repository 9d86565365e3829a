import { crc32 } from 'node:zlib';
import type { EventType } from '@outrider/shared/events';
import { outrider } from '@outrider/shared/messages';
import { bodyCrc } from '@outrider/shared/protocol/codec';

const { BodyKind, EventRecord, GapRecord, Lane, StateRecord } = outrider.v1;

/** The lanes of the outbox, in the order in which they are sent. */
export const LANES = ['event', 'state', 'telemetry'] as const;
export type LaneName = (typeof LANES)[number];

export const LANE_NUMBERS: Readonly<Record<LaneName, outrider.v1.Lane>> = {
  event: Lane.LANE_EVENT,
  state: Lane.LANE_STATE,
  telemetry: Lane.LANE_TELEMETRY,
};

/** The lane behind a number from the wire; `undefined` for numbers that are none. */
export const laneOf = (wire: outrider.v1.Lane): LaneName | undefined =>
  LANES.find((lane) => LANE_NUMBERS[lane] === wire);

/** What the rows of a lane hold when they hold no gap. */
export const LANE_BODY_KINDS: Readonly<Record<LaneName, outrider.v1.BodyKind>> = {
  event: BodyKind.BODY_EVENT,
  state: BodyKind.BODY_STATE,
  telemetry: BodyKind.BODY_TELEMETRY,
};

/** Something that happened. `eventId` makes it idempotent: the same id again is the same event. */
export interface OutboxEvent {
  readonly eventId: string;
  readonly type: EventType;
  readonly occurredAtMs: number;
  readonly traceId: string;
  readonly payload: unknown;
}

/** A record before it has a position. */
export interface NewRecord {
  readonly kind: outrider.v1.BodyKind;
  readonly crc: number;
  readonly body: Uint8Array;
  /** Telemetry samples inside; 1 for events and states. */
  readonly samples: number;
  readonly fromMs: number;
  readonly toMs: number;
  /** Telemetry samples that were left out of it for want of room; its body says so too. Absent: none. */
  readonly thinned?: number;
}

/** A record as it lies on disk and goes on the wire. */
export interface StoredRecord extends NewRecord {
  /** Position in the lane, from 1. */
  readonly seq: number;
  /** Last position that a gap covers; 0 for everything else. */
  readonly seqTo: number;
  readonly bootId: string;
  /** Its first position, when that was under another epoch. */
  readonly origin?: Origin;
}

/** A position under an epoch that has ended. */
export interface Origin {
  readonly epoch: string;
  readonly seq: number;
}

/** Why a gap is there. */
export const GAP_REASONS = ['evicted', 'disk_full', 'checksum', 'missing', 'corruption', 'refused'] as const;
export type GapReason = (typeof GAP_REASONS)[number];

/** What a gap stands for. `records` and `samples` are what was lost. */
export interface GapSummary {
  readonly reason: GapReason;
  readonly records: number;
  readonly samples: number;
  readonly fromMs: number;
  readonly toMs: number;
}

export function telemetryRecord(body: Uint8Array, samples: number, fromMs: number, toMs: number): NewRecord {
  return { kind: BodyKind.BODY_TELEMETRY, crc: bodyCrc(body), body, samples, fromMs, toMs };
}

/** Used again for each event: a new one grows its buffer step by step, which costs a third of the encoding. */
const eventWriter = EventRecord.encode({});

export function eventRecord(event: OutboxEvent): NewRecord {
  const payloadJson = JSON.stringify(event.payload);
  const { eventId, type, occurredAtMs, traceId } = event;
  eventWriter.reset();
  const body = EventRecord.encode({ eventId, type, occurredAtMs, traceId, payloadJson }, eventWriter).finish();
  const at = event.occurredAtMs;
  return { kind: BodyKind.BODY_EVENT, crc: bodyCrc(body), body, samples: 1, fromMs: at, toMs: at };
}

export function stateRecord(key: string, valueJson: string, atMs: number): NewRecord {
  const body = StateRecord.encode({ key, atMs, valueJson }).finish();
  return { kind: BodyKind.BODY_STATE, crc: bodyCrc(body), body, samples: 1, fromMs: atMs, toMs: atMs };
}

export function gapRecord(gap: GapSummary): NewRecord {
  const body = GapRecord.encode({ ...gap }).finish();
  const { samples, fromMs, toMs } = gap;
  return { kind: BodyKind.BODY_GAP, crc: bodyCrc(body), body, samples, fromMs, toMs };
}

/** Two neighbouring gaps of one reason as one. */
export function joinGaps(a: GapSummary, b: GapSummary): GapSummary {
  return {
    reason: a.reason,
    records: a.records + b.records,
    samples: a.samples + b.samples,
    fromMs: earlier(a.fromMs, b.fromMs),
    toMs: Math.max(a.toMs, b.toMs),
  };
}

export function readGap(body: Uint8Array): GapSummary {
  const { reason, records, samples, fromMs, toMs } = GapRecord.decode(body);
  return { reason: GAP_REASONS.find((known) => known === reason) ?? 'missing', records, samples, fromMs, toMs };
}

/** The earlier of two times where 0 means "not known". */
export const earlier = (a: number, b: number): number => (a === 0 ? b : b === 0 ? a : Math.min(a, b));

/** A record as a row of its lane's table. After damage any field may hold anything. */
export interface StoredRow {
  readonly seq: number;
  readonly seq_to: number;
  readonly crc: number;
  readonly boot_id: string;
  readonly kind: number;
  readonly samples: number;
  readonly from_ms: number;
  readonly to_ms: number;
  /** Absent in files from before blocks were thinned. */
  readonly thinned?: number;
  readonly body: Buffer;
}

/** When a record's samples were received. */
export type RowSpan = Pick<StoredRow, 'from_ms' | 'to_ms'>;

/**
 * What a row's `crc` says, so that a changed bit anywhere in the row shows and none is sent as good: the CRC of the
 * body, which goes on the wire, combined with that of all other fields.
 */
export function rowCrc(row: Omit<StoredRow, 'crc' | 'body'>, crcOfBody: number): number {
  const { seq, seq_to, kind, samples, from_ms, to_ms, boot_id, thinned } = row;
  // Rows that were never thinned keep the CRC that they had before there was such a thing.
  const more = thinned ? ` ${thinned}` : '';
  return (crcOfBody ^ crc32(`${seq} ${seq_to} ${kind} ${samples} ${from_ms} ${to_ms} ${boot_id}${more}`)) >>> 0;
}

/** Whether a row of a lane is what was written, as far as a CRC can tell. */
export function isSoundRow(row: StoredRow, lane: LaneName): boolean {
  const kindFits = row.kind === BodyKind.BODY_GAP ? row.seq_to >= row.seq : row.kind === LANE_BODY_KINDS[lane];
  return kindFits && Buffer.isBuffer(row.body) && row.crc === rowCrc(row, bodyCrc(row.body));
}

/** What goes with a row. Its fields may be damaged too: what is no number counts as not known. */
export function lossOf(
  row: Pick<StoredRow, 'samples' | 'from_ms' | 'to_ms' | 'thinned'>,
  reason: GapReason,
): GapSummary {
  const known = (value: unknown): number => (typeof value === 'number' && Number.isFinite(value) ? value : 0);
  const counted = (value: number | undefined): number =>
    Number.isSafeInteger(value) ? Math.max(0, value as number) : 0;
  // What was thinned before is lost for good now, so the gap speaks of all that the position ever held.
  const samples = counted(row.samples) + counted(row.thinned);
  return { reason, records: 1, samples, fromMs: known(row.from_ms), toMs: known(row.to_ms) };
}
