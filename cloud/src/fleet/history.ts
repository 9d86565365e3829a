import { sampleAt } from '@outrider/shared/protocol/block';
import type { Sample, StreamKind } from '@outrider/shared/telemetry';
import type { EpochMs } from '@outrider/shared/time';
import type { HistoryBlock, TelemetryReader } from '../telemetry/ports.ts';
import { rowTimes } from '../telemetry/recorded-time.ts';
import { batteryPercentage, fieldValues, finiteOrNull, jointsOf, orientationOf } from './readings.ts';

/** What `fields` of a state history may name. */
export const HISTORY_FIELDS = ['battery', 'position', 'joints', 'imu', 'temperatures', 'power'] as const;
export type HistoryField = (typeof HISTORY_FIELDS)[number];
/** Most states in one answer. */
export const HISTORY_STATES_MAX = 10_000;
/** Most samples read for one answer, so that a wide range with a long interval cannot read for minutes. */
const SAMPLES_READ_MAX = 2_000_000;

const KIND_OF: Readonly<Record<HistoryField, StreamKind | undefined>> = {
  battery: 'power',
  power: 'power',
  joints: 'joint_state',
  imu: 'imu',
  temperatures: 'temperature',
  // No source measures the base's position yet: the field is there and null.
  position: undefined,
};

export interface HistoryState {
  readonly timestamp: string;
  readonly [field: string]: unknown;
}

export interface HistoryRequest {
  readonly robotPk: number;
  readonly fromMs: EpochMs;
  readonly toMs: EpochMs;
  readonly fields: readonly HistoryField[];
  /** One state per so much time, the last reading in it; undefined: one per sample. [ms] */
  readonly intervalMs: number | undefined;
  readonly limit: number;
}

/**
 * The states of a robot over time, oldest first.
 *
 * @returns `truncated` when there were more than the limit, or more than one answer may read.
 */
export async function readHistory(
  reader: TelemetryReader,
  request: HistoryRequest,
): Promise<{ states: HistoryState[]; truncated: boolean }> {
  const { robotPk, fromMs, toMs, fields, intervalMs, limit } = request;
  const kinds = [...new Set(fields.map((field) => KIND_OF[field]).filter((kind) => kind !== undefined))];
  if (kinds.length === 0) return { states: [], truncated: false };
  const buckets = new Map<number, Map<HistoryField, { atMs: number; value: unknown }>>();
  let read = 0;
  for await (const block of reader.history({ robotPk, kinds, fromMs, toMs, limit: SAMPLES_READ_MAX })) {
    read += block.count;
    for (const { bucketMs, atMs, row } of lastRows(block, fromMs, intervalMs)) {
      const sample = sampleAt(block, row);
      for (const field of fields) {
        if (KIND_OF[field] !== block.layout.kind) continue;
        let bucket = buckets.get(bucketMs);
        if (!bucket) {
          bucket = new Map();
          buckets.set(bucketMs, bucket);
        }
        const known = bucket.get(field);
        if (!known || known.atMs <= atMs) bucket.set(field, { atMs, value: sample });
      }
    }
    if (intervalMs === undefined && buckets.size > limit * 2) break;
  }
  const ordered = [...buckets.entries()].sort(([a], [b]) => a - b);
  const states = ordered.slice(0, limit).map(([atMs, bucket]) => ({
    timestamp: new Date(atMs).toISOString(),
    ...Object.fromEntries(
      fields.map((field) => [field, readingOf(field, bucket.get(field)?.value as Sample | undefined)]),
    ),
  }));
  return { states, truncated: ordered.length > limit || read >= SAMPLES_READ_MAX };
}

/** The last row of each interval in a block: the others would be unpacked for nothing. */
function lastRows(
  block: HistoryBlock,
  fromMs: number,
  intervalMs: number | undefined,
): Iterable<{ bucketMs: number; atMs: number; row: number }> {
  const rows = new Map<number, { bucketMs: number; atMs: number; row: number }>();
  const recordedAt = rowTimes(block, block.ingestedAt);
  for (let row = 0; row < block.count; row += 1) {
    const atMs = recordedAt(row);
    const bucketMs = intervalMs === undefined ? atMs : fromMs + Math.floor((atMs - fromMs) / intervalMs) * intervalMs;
    const known = rows.get(bucketMs);
    if (!known || known.atMs <= atMs) rows.set(bucketMs, { bucketMs, atMs, row });
  }
  return rows.values();
}

function readingOf(field: HistoryField, sample: Sample | undefined): unknown {
  if (!sample) return null;
  switch (field) {
    case 'battery':
      return batteryPercentage(sample);
    case 'position':
      return null;
    case 'joints':
      return jointsOf(sample);
    case 'imu':
      return {
        orientation: orientationOf(sample),
        angular_velocity: fieldValues(sample, 'angular_velocity').map(finiteOrNull),
        linear_acceleration: fieldValues(sample, 'linear_acceleration').map(finiteOrNull),
      };
    case 'temperatures':
      return fieldValues(sample, 'temperature').map((value, index) => ({
        name: sample.layout.names[index] ?? sample.layout.stream,
        temperature_c: finiteOrNull(value),
      }));
    case 'power':
      return {
        voltage_v: finiteOrNull(fieldValues(sample, 'voltage')[0]),
        current_a: finiteOrNull(fieldValues(sample, 'current')[0]),
        draw_w: finiteOrNull(fieldValues(sample, 'draw')[0]),
      };
  }
}
