import { sampleFlagNames } from '@outrider/shared/telemetry';
import { describeAlert } from '../alert/describe.ts';
import { finiteOrNull } from '../fleet/readings.ts';
import type { LiveUpdate } from '../telemetry/ports.ts';

/** One message of the stream, WIA §8.2's shape on every transport. */
export interface LiveMessage {
  readonly type: string;
  readonly timestamp: string;
  readonly data: Readonly<Record<string, unknown>>;
}

const iso = (atMs: number): string => new Date(atMs).toISOString();

/** An update as consoles read it. Values that JSON cannot hold are null. */
export function describeUpdate(update: LiveUpdate): LiveMessage {
  const base = { robot_id: update.robotId, ingested_at: iso(update.ingestedAt) };
  switch (update.type) {
    case 'telemetry': {
      let start = 0;
      const values: Record<string, (number | null)[]> = {};
      for (const { name, width } of update.sample.layout.fields) {
        values[name] = Array.from(update.sample.values.subarray(start, start + width), finiteOrNull);
        start += width;
      }
      return {
        type: 'telemetry',
        timestamp: iso(update.recordedAt),
        data: {
          ...base,
          stream: update.stream,
          kind: update.kind,
          names: update.sample.layout.names,
          values,
          flags: sampleFlagNames(update.sample.flags),
          sample_count: update.sampleCount,
        },
      };
    }
    case 'event':
      return {
        type: 'event',
        timestamp: iso(update.event.occurredAt),
        data: {
          ...base,
          event_id: update.event.eventId,
          event_type: update.event.type,
          trace_id: update.event.traceId,
          payload: update.event.payload,
        },
      };
    case 'state':
      return { type: 'state', timestamp: iso(update.at), data: { ...base, key: update.key, value: update.value } };
    case 'presence':
      return { type: 'presence', timestamp: iso(update.ingestedAt), data: { ...base, presence: update.presence } };
    case 'alert': {
      const { change, at, actor, alert } = update.news;
      return { type: 'alert', timestamp: iso(at), data: { ...base, change, actor, alert: describeAlert(alert) } };
    }
  }
}
