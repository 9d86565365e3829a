import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import type { Robot } from '../stack.ts';
import { LOAD_STREAM } from './block-template.ts';
import type { Asked, Asking, Consoles } from './consoles.ts';
import type { Robots } from './robots.ts';
import { holdsWithin, never, type Site } from './site.ts';

const STOP: Asking = {
  name: 'stop',
  method: 'POST',
  path: '/api/v1/robots/{robot}/failsafe/trigger',
  body: JSON.stringify({ mode: 'emergency_stop', reason: 'outage {nonce}' }),
  ratePerS: 0,
};
const READY_WAIT_MS = 20_000;
const DRAIN_MS = 120_000;

export interface OutagePlan {
  readonly awayMs: number;
  /** Failsafe calls to simulated robots while the database is away. */
  readonly stops: number;
  /** A robot of the real agent that takes part. */
  readonly edge?: Robot;
  readonly say: (line: string) => void;
}

export interface OutageResult {
  /** What `/ready` said of the database while it was away; empty when it went on saying that all is well. */
  readonly reason: string;
  readonly stops: Asked;
  /** HTTP status of the same call to the real robot. */
  readonly edgeStop: number | undefined;
  /** Records that the robots held when the database came back. */
  readonly held: number;
  readonly readyAgainMs: number;
  readonly drainedMs: number;
  readonly made: number;
  readonly acknowledged: number;
  readonly stored: number;
  /** Robots one of whose positions is missing. */
  readonly holes: number;
  readonly gaps: number;
  /** Telemetry of the real robot that is stored. */
  readonly edgeSamples: number;
  /** Whether the control plane is the process that it was. */
  readonly isSameProcess: boolean;
}

/** Takes the database away under load and brings it back, with everything that must hold meanwhile and after. */
export async function runOutage(
  site: Site,
  robots: Robots,
  consoles: Consoles,
  plan: OutagePlan,
): Promise<OutageResult> {
  const { say, edge, awayMs } = plan;
  const pid = site.cloud.child.pid;
  await robots.record(1);
  if (edge) {
    const { client } = site.cloud;
    const hasSamples = await holdsWithin(60_000, async () => (await client.sampleCounts(edge.robotId)).size > 0, 250);
    if (!hasSamples) throw new Error('the real agent has sent nothing within 60 s');
  }
  await pause(2000, never);
  await site.postgres.pause();
  const awayAtMs = systemClock.monotonicMs();
  let reason = '';
  await holdsWithin(READY_WAIT_MS, async () => {
    reason = await databaseReason(site);
    return reason !== '';
  });
  say(`/ready: ${reason || 'says nothing'}`);
  const stops = await consoles.burst(STOP, plan.stops, 4);
  const edgeStop = edge ? await stopEdge(site, edge.robotId) : undefined;
  say(
    `stops meanwhile: ${stops.took.count - stops.failed} of ${stops.took.count} confirmed, the real robot ${edgeStop}`,
  );
  await pause(Math.max(0, awayMs - (systemClock.monotonicMs() - awayAtMs)), never);
  const { kept: held } = await robots.report();
  await site.postgres.resume();
  const backAtMs = systemClock.monotonicMs();
  const isReady = await holdsWithin(READY_WAIT_MS, async () => (await databaseReason(site)) === '');
  const readyAgainMs = isReady ? systemClock.monotonicMs() - backAtMs : Number.NaN;
  await robots.record(0);
  const isDrained = await holdsWithin(DRAIN_MS, async () => (await robots.report()).kept === 0, 200);
  const drainedMs = isDrained ? systemClock.monotonicMs() - backAtMs : Number.NaN;
  say(`ready again after ${readyAgainMs.toFixed(0)} ms, ${held} records drained after ${drainedMs.toFixed(0)} ms`);
  if (edge) await settleEdge(site, edge);
  const { samplesMade, samplesAcknowledged } = await robots.report();
  return {
    reason,
    stops,
    edgeStop,
    held,
    readyAgainMs,
    drainedMs,
    made: samplesMade,
    acknowledged: samplesAcknowledged,
    ...(await countStored(site, edge?.robotId ?? '')),
    isSameProcess: site.cloud.child.pid === pid && site.cloud.child.lastDeath === undefined,
  };
}

/** What `/ready` says is wrong with the database; empty when nothing is. */
async function databaseReason(site: Site): Promise<string> {
  try {
    const reply = await fetch(`${site.cloud.ready.http_url}/ready`);
    const { checks } = (await reply.json()) as { checks: Record<string, { status: string; reason?: string }> };
    const database = checks['database'];
    return reply.status === 503 && database?.status === 'failed' ? `${reply.status}, database ${database.reason}` : '';
  } catch (error) {
    return `no answer: ${String(error)}`;
  }
}

async function stopEdge(site: Site, robotId: string): Promise<number> {
  const body = { mode: 'emergency_stop', reason: 'outage' };
  return (await site.cloud.client.request('POST', `/api/v1/robots/${robotId}/failsafe/trigger`, body)).status;
}

/** Ends the real agent once nothing that it recorded before now waits on it. */
async function settleEdge(site: Site, edge: Robot): Promise<void> {
  const isFresh = await holdsWithin(
    60_000,
    async () => {
      const [row] = await site.database.query<{ age_ms: number }>(
        `select extract(epoch from now() - max(recorded_until))::float8 * 1000 as age_ms
           from telemetry_block b join robot r using (robot_pk) where r.robot_id = $1`,
        [edge.robotId],
      );
      return (row?.age_ms ?? Number.POSITIVE_INFINITY) < 5000;
    },
    250,
  );
  if (!isFresh) throw new Error('the real agent has not caught up within 60 s');
}

async function countStored(
  site: Site,
  edgeId: string,
): Promise<Pick<OutageResult, 'stored' | 'holes' | 'gaps' | 'edgeSamples'>> {
  const [row] = await site.database.query<{ stored: number; holes: number; gaps: number; edge_samples: number }>(
    `with each_lane as (
       select r.robot_id, sum(sample_count) as samples, count(*) as records, max(seq) as highest,
              sum(sample_count) filter (where stream = $1) as joints
         from telemetry_block b join robot r using (robot_pk) group by r.robot_id, b.epoch)
     select coalesce(sum(joints) filter (where robot_id <> $2), 0)::int8 as stored,
            coalesce(sum(samples) filter (where robot_id = $2), 0)::int8 as edge_samples,
            count(*) filter (where records <> highest)::int8 as holes,
            (select count(*) from telemetry_gap)::int8 as gaps
       from each_lane`,
    [LOAD_STREAM, edgeId],
  );
  return {
    stored: row?.stored ?? 0,
    holes: row?.holes ?? 0,
    gaps: row?.gaps ?? 0,
    edgeSamples: row?.edge_samples ?? 0,
  };
}
