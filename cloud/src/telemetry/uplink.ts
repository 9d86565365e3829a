import { DomainError } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/messages';
import { decodeWire, isEpoch } from '@outrider/shared/protocol/codec';
import type { UpChannel } from '@outrider/shared/protocol/topics';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import { type LaneRecord, readRecord } from './record.ts';

const { Lane, UplinkBatch } = outrider.v1;

/** Channels that carry batches, and the lane that belongs to each. */
export const LANE_OF_CHANNEL: Readonly<Partial<Record<UpChannel, outrider.v1.Lane>>> = {
  event: Lane.LANE_EVENT,
  state: Lane.LANE_STATE,
  telemetry: Lane.LANE_TELEMETRY,
};

/** Most records in one batch. An honest edge sends a few hundred. */
const RECORDS_PER_BATCH_MAX = 10_000;

/** A batch that was understood as a whole. */
export interface ReadBatch {
  readonly epoch: string;
  readonly lane: outrider.v1.Lane;
  readonly records: readonly LaneRecord[];
  /** 0: its edge does not name its batches. */
  readonly batchId: number;
}

/**
 * Reads a message of a lane's channel.
 *
 * @throws DomainError `invalid` when nothing in it can be given a position.
 */
export function readBatch(payload: Uint8Array, channelLane: outrider.v1.Lane, nowMs: number): ReadBatch {
  const batch = decodeWire(UplinkBatch, payload, 'uplink batch');
  if (batch.protocolVersion !== PROTOCOL_VERSION) throw refuse('protocol_version', `is not ${PROTOCOL_VERSION}`);
  if (!isEpoch(batch.epoch)) throw refuse('epoch', 'is not 16 lower-case hexadecimal digits');
  if (batch.lane !== channelLane) throw refuse('lane', 'is not the one of its topic');
  if (batch.records.length > RECORDS_PER_BATCH_MAX) throw refuse('records', `are more than ${RECORDS_PER_BATCH_MAX}`);
  const records: LaneRecord[] = [];
  for (const wire of batch.records) {
    const record = readRecord(wire, channelLane, nowMs);
    if (!record) throw refuse('records', 'hold one without a position');
    records.push(record);
  }
  return { epoch: batch.epoch, lane: channelLane, records, batchId: batch.batchId };
}

/** Why an edge with this protocol version may not send; empty when it may. */
export function refusalOf(version: number): string {
  if (version === PROTOCOL_VERSION) return '';
  const behind = version < PROTOCOL_VERSION ? 'edge agent' : 'control plane';
  return `this control plane speaks protocol ${PROTOCOL_VERSION}, the edge agent ${version}: update the ${behind}`;
}

function refuse(field: string, reason: string): DomainError {
  return new DomainError('invalid', `uplink batch: ${field} ${reason}`, { problems: [{ field, reason }] });
}
