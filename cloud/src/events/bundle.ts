import { newId } from '@outrider/shared/ids';
import type { BundleLine } from './ports.ts';

/** The one type that comes with every commit. */
export const TELEMETRY_EVENT = 'telemetry.ingested.v1';

/** Telemetry of one stream that a commit stored. */
export interface IngestedStream {
  readonly tenantId: string;
  readonly robotId: string;
  readonly stream: string;
  readonly samples: number;
  readonly fromMs: number;
  readonly toMs: number;
  /** What came over HTTP has an event id, and a trace, of its own. */
  readonly eventId?: string;
  readonly traceId?: string;
}

/** The telemetry events of one commit: a line each, of tenant, robot and the whole envelope, between tabs. */
export interface EventBundle {
  readonly traceId: string;
  readonly lines: string;
}

interface Share {
  readonly first: IngestedStream;
  readonly streams: Map<string, { samples: number; fromMs: number; toMs: number }>;
}

const iso = (atMs: number): string => new Date(atMs).toISOString();

/** What a commit stored, as one event a robot, or one for each event id where there are some. */
export function bundleOf(ingested: readonly IngestedStream[], ingestedAtMs: number): EventBundle {
  const shares = new Map<string, Share>();
  for (const entry of ingested) {
    const key = `${entry.tenantId}.${entry.robotId}.${entry.eventId ?? ''}`;
    let share = shares.get(key);
    if (!share) {
      share = { first: entry, streams: new Map() };
      shares.set(key, share);
    }
    const { samples, fromMs, toMs } = entry;
    const known = share.streams.get(entry.stream);
    if (!known) share.streams.set(entry.stream, { samples, fromMs, toMs });
    else {
      known.samples += samples;
      known.fromMs = Math.min(known.fromMs, fromMs);
      known.toMs = Math.max(known.toMs, toMs);
    }
  }
  const traceId = newId('trc');
  const at = iso(ingestedAtMs);
  let lines = '';
  for (const { first, streams } of shares.values()) {
    const list = [...streams].map(([stream, { samples, fromMs, toMs }]) => ({
      stream,
      samples,
      from: iso(fromMs),
      to: iso(toMs),
    }));
    const envelope = {
      event_id: first.eventId ?? newId('evt'),
      event_type: TELEMETRY_EVENT,
      occurred_at: at,
      robot_id: first.robotId,
      trace_id: first.traceId ?? traceId,
      payload: { streams: list, samples: list.reduce((sum, each) => sum + each.samples, 0), ingested_at: at },
    };
    lines += `${first.tenantId}\t${first.robotId}\t${JSON.stringify(envelope)}\n`;
  }
  return { traceId, lines };
}

/** Reads a bundle's lines. JSON has neither tabs nor line ends of its own. */
export function readBundle(lines: string): BundleLine[] {
  return lines
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [tenantId = '', robotId = '', json = ''] = line.split('\t');
      return { tenantId, robotId, json };
    });
}
