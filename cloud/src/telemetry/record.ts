import { hash } from 'node:crypto';
import { errorMessage } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/messages';
import { type DecodedBlock, decodeBlock } from '@outrider/shared/protocol/block';
import { bodyCrc, isEpoch } from '@outrider/shared/protocol/codec';
import { type BlockSpan, blockSpan, saneTimeOr } from './recorded-time.ts';
import { jsonProblem, textProblem } from './storable.ts';
import type { Positioned } from './watermark.ts';

const { BodyKind, EventRecord, GapRecord, Lane, StateRecord } = outrider.v1;

/** Bytes of SHA-256 that are kept of a record's body to tell contents apart. */
export const HASH_BYTES = 16;
const NO_HASH = new Uint8Array(0);
const KEY_CHARACTERS_MAX = 256;

/** A position under an epoch that has ended. */
export interface Origin {
  readonly epoch: string;
  readonly seq: number;
}

interface RecordBase extends Positioned {
  readonly bootId: string;
  /** Where the record was first, as its robot says. */
  readonly origin?: Origin;
}

export interface TelemetryRecord extends RecordBase {
  readonly kind: 'telemetry';
  readonly body: Uint8Array;
  readonly block: DecodedBlock;
  readonly span: BlockSpan;
}

export interface EventLaneRecord extends RecordBase {
  readonly kind: 'event';
  readonly eventId: string;
  readonly type: string;
  readonly occurredAtMs: number;
  readonly traceId: string;
  readonly payloadJson: string;
}

export interface StateLaneRecord extends RecordBase {
  readonly kind: 'state';
  readonly key: string;
  readonly atMs: number;
  readonly valueJson: string;
}

export interface GapLaneRecord extends RecordBase {
  readonly kind: 'gap';
  readonly reason: string;
  readonly samples: number;
  readonly fromMs: number;
  readonly toMs: number;
}

/** A record that has a position but no usable content. It is kept for a person and acknowledged. */
export interface PoisonRecord extends RecordBase {
  readonly kind: 'poison';
  readonly reason: string;
  readonly body: Uint8Array;
}

export type LaneRecord = TelemetryRecord | EventLaneRecord | StateLaneRecord | GapLaneRecord | PoisonRecord;

/** Reads one record of a batch. What is wrong with it becomes part of it; nothing is thrown. */
export function readRecord(
  wire: outrider.v1.Record.$Properties,
  lane: outrider.v1.Lane,
  nowMs: number,
): LaneRecord | undefined {
  const seq = wire.seq ?? 0;
  if (!Number.isSafeInteger(seq) || seq < 1) return undefined;
  const body = wire.body ?? NO_HASH;
  const origin = readOrigin(wire);
  const position = {
    ...(origin && { origin }),
    seq,
    seqTo: seq,
    hash: hash('sha256', body, 'buffer').subarray(0, HASH_BYTES),
    bootId: textProblem(wire.bootId ?? '', KEY_CHARACTERS_MAX) === undefined ? (wire.bootId ?? '') : '',
  };
  try {
    if (bodyCrc(body) !== (wire.crc ?? 0) >>> 0) throw new Error('its checksum does not match its body');
    return readBody(wire, lane, body, position, nowMs);
  } catch (error) {
    return { ...position, kind: 'poison', reason: errorMessage(error).slice(0, KEY_CHARACTERS_MAX), body };
  }
}

/** A claim that makes no sense is none: the record is good without it. */
function readOrigin(wire: outrider.v1.Record.$Properties): Origin | undefined {
  const epoch = wire.origEpoch ?? '';
  const seq = wire.origSeq ?? 0;
  return isEpoch(epoch) && Number.isSafeInteger(seq) && seq >= 1 ? { epoch, seq } : undefined;
}

function readBody(
  wire: outrider.v1.Record.$Properties,
  lane: outrider.v1.Lane,
  body: Uint8Array,
  position: RecordBase,
  nowMs: number,
): LaneRecord {
  switch (wire.kind) {
    case BodyKind.BODY_TELEMETRY:
      requireLane(lane, Lane.LANE_TELEMETRY);
      return readTelemetry(body, position, nowMs);
    case BodyKind.BODY_EVENT:
      requireLane(lane, Lane.LANE_EVENT);
      return readEvent(body, position, nowMs);
    case BodyKind.BODY_STATE:
      requireLane(lane, Lane.LANE_STATE);
      return readState(body, position, nowMs);
    case BodyKind.BODY_GAP:
      return readGap(wire, body, position, nowMs);
    default:
      throw new Error(`its body is of kind ${wire.kind}, which is not known here`);
  }
}

function readTelemetry(body: Uint8Array, position: RecordBase, nowMs: number): TelemetryRecord {
  const block = decodeBlock(body);
  requireStorable('stream', block.layout.stream, KEY_CHARACTERS_MAX);
  return { ...position, kind: 'telemetry', body, block, span: blockSpan(block, nowMs) };
}

function readEvent(body: Uint8Array, position: RecordBase, nowMs: number): EventLaneRecord {
  const event = EventRecord.decode(body);
  requireStorable('event_id', event.eventId, KEY_CHARACTERS_MAX);
  requireStorable('type', event.type, KEY_CHARACTERS_MAX);
  if (event.traceId !== '') requireStorable('trace_id', event.traceId, KEY_CHARACTERS_MAX);
  requireJson('payload_json', event.payloadJson);
  const { eventId, type, traceId, payloadJson } = event;
  return {
    ...position,
    kind: 'event',
    eventId,
    type,
    traceId,
    payloadJson,
    occurredAtMs: saneTimeOr(event.occurredAtMs, nowMs),
  };
}

function readState(body: Uint8Array, position: RecordBase, nowMs: number): StateLaneRecord {
  const state = StateRecord.decode(body);
  requireStorable('key', state.key, KEY_CHARACTERS_MAX);
  requireJson('value_json', state.valueJson);
  return {
    ...position,
    kind: 'state',
    key: state.key,
    valueJson: state.valueJson,
    atMs: saneTimeOr(state.atMs, nowMs),
  };
}

function readGap(
  wire: outrider.v1.Record.$Properties,
  body: Uint8Array,
  position: RecordBase,
  nowMs: number,
): GapLaneRecord {
  const gap = GapRecord.decode(body);
  const seqTo = wire.seqTo === 0 || wire.seqTo === undefined || wire.seqTo === null ? position.seq : wire.seqTo;
  if (!Number.isSafeInteger(seqTo) || seqTo < position.seq) throw new Error('its seq_to is before its seq');
  requireStorable('reason', gap.reason, KEY_CHARACTERS_MAX);
  return {
    ...position,
    kind: 'gap',
    seqTo,
    hash: NO_HASH,
    reason: gap.reason,
    samples: Number.isSafeInteger(gap.samples) ? gap.samples : 0,
    fromMs: saneTimeOr(gap.fromMs, nowMs),
    toMs: saneTimeOr(gap.toMs, nowMs),
  };
}

function requireLane(lane: outrider.v1.Lane, expected: outrider.v1.Lane): void {
  if (lane !== expected) throw new Error(`its body belongs on lane ${expected}, not on lane ${lane}`);
}

function requireStorable(field: string, text: string, charactersMax: number): void {
  const problem = textProblem(text, charactersMax);
  if (problem) throw new Error(`${field} ${problem}`);
}

function requireJson(field: string, text: string): void {
  const problem = jsonProblem(text);
  if (problem) throw new Error(`${field} ${problem}`);
}
