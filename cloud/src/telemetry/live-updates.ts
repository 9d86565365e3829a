import { decodeBlock, encodeSample, sampleAt } from '@outrider/shared/protocol/block';
import type { EpochMs } from '@outrider/shared/time';
import type { LaneOutcome } from './ingest-ports.ts';
import type { LiveTelemetry, LiveUpdate } from './ports.ts';

/** What consoles hear of a commit: the newest sample of each stream, and each event and state. */
export function updatesOf(outcomes: readonly LaneOutcome[], ingestedAtMs: number): LiveUpdate[] {
  const updates: LiveUpdate[] = [];
  const streams = new Map<string, LiveTelemetry>();
  const ingestedAt = ingestedAtMs as EpochMs;
  for (const { robot, stored } of outcomes) {
    const { tenantId, robotId } = robot;
    for (const record of stored) {
      if (record.kind === 'telemetry') {
        const { stream, kind } = record.block.layout;
        const key = `${robot.robotPk}/${stream}`;
        const before = streams.get(key);
        const recordedAt = record.span.lastMs as EpochMs;
        const sampleCount = record.block.count + (before?.sampleCount ?? 0);
        if (before && before.recordedAt > recordedAt) streams.set(key, { ...before, sampleCount });
        else {
          const sample = sampleAt(record.block, record.span.lastRow);
          streams.set(key, {
            type: 'telemetry',
            tenantId,
            robotId,
            ingestedAt,
            stream,
            kind,
            recordedAt,
            sampleCount,
            sample,
          });
        }
      } else if (record.kind === 'event') {
        const { eventId, type, traceId } = record;
        const occurredAt = record.occurredAtMs as EpochMs;
        const payload: unknown = JSON.parse(record.payloadJson);
        const event = { eventId, type, occurredAt, ingestedAt, traceId, payload };
        updates.push({ type: 'event', tenantId, robotId, ingestedAt, event });
      } else if (record.kind === 'state') {
        const at = record.atMs as EpochMs;
        updates.push({
          type: 'state',
          tenantId,
          robotId,
          ingestedAt,
          key: record.key,
          at,
          value: JSON.parse(record.valueJson),
        });
      }
    }
  }
  return [...updates, ...streams.values()];
}

/** Packs updates for another replica: each a length, a JSON header, and for telemetry a block of one sample. */
export function packUpdates(updates: readonly LiveUpdate[]): Uint8Array {
  return Buffer.concat(
    updates.flatMap((update) => {
      const isTelemetry = update.type === 'telemetry';
      const header = Buffer.from(JSON.stringify(isTelemetry ? { ...update, sample: undefined } : update));
      const body = isTelemetry ? encodeSample(update.sample) : Buffer.alloc(0);
      const lengths = Buffer.alloc(8);
      lengths.writeUInt32LE(header.length, 0);
      lengths.writeUInt32LE(body.length, 4);
      return [lengths, header, body];
    }),
  );
}

/** Reads what another replica packed. @throws when it is not that. */
export function unpackUpdates(bytes: Uint8Array): LiveUpdate[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const updates: LiveUpdate[] = [];
  for (let at = 0; at < buffer.length; ) {
    const headerEnd = at + 8 + buffer.readUInt32LE(at);
    const bodyEnd = headerEnd + buffer.readUInt32LE(at + 4);
    const header = JSON.parse(buffer.toString('utf8', at + 8, headerEnd)) as LiveUpdate;
    if (header.type === 'telemetry') {
      const sample = sampleAt(decodeBlock(buffer.subarray(headerEnd, bodyEnd)), 0);
      updates.push({ ...header, sample });
    } else updates.push(header);
    at = bodyEnd;
  }
  return updates;
}
