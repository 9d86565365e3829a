import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { askingsOf, rowsOfAsked } from './asked-rows.ts';
import { LOAD_STREAM } from './block-template.ts';
import { Consoles } from './consoles.ts';
import { cpuMsOf, familyCpuMsOf, machineCpuMs, residentMbOf } from './processes.ts';
import { type FleetReport, Robots } from './robots.ts';
import { count, ms, percent, type Section, type SectionContext } from './section.ts';
import { enrolFleet, holdsWithin, never, openSite, type Site } from './site.ts';

/** How often a robot of the load sends: what the edge agent calls `outbox.flush_interval_ms`. */
export const FLUSH_MS = 1000;
const ACK_P95_MS = 250;
const ACK_P99_MS = 1000;
const LAG_P95_MS = 500;
const STREAMS = 500;
const FROZEN = 5;
const ROBOTS_PER_STREAM = 2;
const STEPS = [0.5, 0.75, 1];
const PROGRESS_MS = 10_000;
const DRAIN_MS = 90_000;
const GENERATORS = 2;

/** The design load with everybody who reads beside it. */
export const ingestSection: Section = {
  name: 'ingest',
  about: 'robots over TLS into PostgreSQL, with HTTP readers, commands and live streams beside them',
  timeoutMs: (options) => options.minutes * 60_000 + 420_000,
  run,
};

async function run(context: SectionContext): Promise<void> {
  const { options, say, defer } = context;
  const site = await openSite({ say, isDurable: true, profileDir: options.profileDir });
  defer(() => site.end());
  const fleet = await enrolFleet(site, options.robots, say);
  const robots = new Robots(fleet, GENERATORS);
  defer(() => robots.end());
  await robots.connect({ ...site.mqtt, rateHz: options.rateHz, flushMs: FLUSH_MS, joints: options.joints });
  say(`${count(options.robots)} robots connected over TLS`);
  const consoles = new Consoles();
  defer(() => consoles.end());
  await consoles.begin({
    baseUrl: site.cloud.ready.http_url,
    token: await site.cloud.client.token(),
    robotIds: fleet.map(({ robotId }) => robotId),
  });
  const streams = options.isShort ? 50 : STREAMS;
  await consoles.listen(streams, FROZEN, ROBOTS_PER_STREAM);
  say(`${streams} live streams open, ${FROZEN} of them never read`);
  const askings = await askingsOf(site, say);
  await consoles.ask(askings);
  const share = await findShare(context, robots);
  await measure(context, { site, robots, consoles, share, streams });
  await robots.record(0);
  await verify(context, site, robots);
}

/** Raises the load in steps. @returns The largest share of it that was acknowledged as fast as it came. */
async function findShare({ options, say, row }: SectionContext, robots: Robots): Promise<number> {
  const steps = options.isShort ? [1] : STEPS;
  const [settleMs, stepMs] = options.isShort ? [2000, 4000] : [3000, 9000];
  let sustained = steps[0] ?? 1;
  const seen: string[] = [];
  for (const step of steps) {
    await robots.record(step);
    await pause(settleMs, never);
    await robots.forget();
    const before = await robots.report();
    await pause(stepMs, never);
    const { ack, kept } = await robots.report();
    const p95 = ack.quantile(0.95);
    const isSustained = p95 <= ACK_P99_MS && kept <= Math.max((options.robots * step) / 2, before.kept * 2);
    seen.push(`${count(options.robots * step)} robots: p95 ${ms(p95)}${isSustained ? '' : ', not sustained'}`);
    say(seen.at(-1) ?? '');
    if (!isSustained) break;
    sustained = step;
  }
  row({
    what: `load raised in steps, ${stepMs / 1000} s each: acknowledgement by number of robots`,
    goal: `${count(options.robots)} robots sustained`,
    measured: seen.join('; '),
    met: sustained === 1,
  });
  return sustained;
}

interface Running {
  readonly site: Site;
  readonly robots: Robots;
  readonly consoles: Consoles;
  readonly share: number;
  readonly streams: number;
}

async function measure(context: SectionContext, running: Running): Promise<void> {
  const { options, say } = context;
  const { robots, consoles, site, share } = running;
  await robots.record(share);
  await pause(options.isShort ? 1000 : 5000, never);
  await robots.forget();
  await consoles.forget();
  const postgresPid = site.postgres.pid();
  const cloudPid = site.cloud.ready.pid;
  if (options.profileDir !== undefined) process.kill(cloudPid, 'SIGUSR2');
  const used = () => ({
    cloud: cpuMsOf(cloudPid),
    postgres: familyCpuMsOf(postgresPid),
    machine: machineCpuMs(),
    atMs: systemClock.monotonicMs(),
  });
  const before = used();
  const first = await robots.report();
  const endMs = before.atMs + options.minutes * 60_000;
  let last = first;
  while (systemClock.monotonicMs() < endMs) {
    await pause(Math.min(PROGRESS_MS, endMs - systemClock.monotonicMs()), never);
    last = await robots.report();
    const leftS = Math.max(0, Math.round((endMs - systemClock.monotonicMs()) / 1000));
    say(
      `${count(last.samplesAcknowledged - first.samplesAcknowledged)} samples acknowledged, ack p95 ` +
        `${ms(last.ack.quantile(0.95))}, ${last.kept} records wait, ${leftS} s left`,
    );
  }
  const after = used();
  const seconds = (after.atMs - before.atMs) / 1000;
  reportAcks(context, first, last, share, seconds);
  const heard = await consoles.report();
  for (const row of rowsOfAsked(heard.asked)) context.row(row);
  reportStreams(context, heard, running.streams);
  const batches = last.batchesSent - first.batchesSent;
  const cores = (usedMs: number): string => `${(usedMs / 1000 / seconds).toFixed(2)} cores`;
  context.row({
    what: 'CPU meanwhile: control plane, PostgreSQL, robots, consoles, whole machine; memory of the control plane',
    goal: '–',
    measured: [
      `${cores(after.cloud - before.cloud)} (${((after.cloud - before.cloud) / batches).toFixed(2)} ms a batch with all readers)`,
      cores(after.postgres - before.postgres),
      cores(last.cpuMs - first.cpuMs),
      cores(heard.cpuMs),
      percent((after.machine.busyMs - before.machine.busyMs) / (after.machine.allMs - before.machine.allMs)),
      `${Math.round(residentMbOf(cloudPid))} MB`,
    ].join(', '),
    met: undefined,
  });
}

function reportAcks(
  { options, row }: SectionContext,
  first: FleetReport,
  last: FleetReport,
  share: number,
  seconds: number,
): void {
  const { ack, late } = last;
  const samples = last.samplesAcknowledged - first.samplesAcknowledged;
  row({
    what:
      `acknowledgement after the commit: ${count(options.robots * share)} robots × ${options.rateHz} samples/s of ` +
      `${options.joints} joints, a batch every ${FLUSH_MS / 1000} s, ${Math.round(seconds)} s`,
    goal: `p95 ≤ ${ACK_P95_MS} ms, p99 ≤ ${ACK_P99_MS} ms`,
    measured:
      `p50 ${ms(ack.quantile(0.5))}, p95 ${ms(ack.quantile(0.95))}, p99 ${ms(ack.quantile(0.99))}, most ${ms(ack.maxMs)}; ` +
      `${count(samples / seconds)} samples/s; ${last.resends - first.resends} sent again; ` +
      `the robots themselves were late by p99 ${ms(late.quantile(0.99))}`,
    met: ack.quantile(0.95) <= ACK_P95_MS && ack.quantile(0.99) <= ACK_P99_MS,
  });
}

function reportStreams({ row }: SectionContext, heard: Awaited<ReturnType<Consoles['report']>>, streams: number): void {
  const p95 = heard.lag.quantile(0.95);
  const readers = streams - FROZEN;
  row({
    what: `live streams: ${readers} that read and ${FROZEN} that never do; from the newest sample of a batch to its reader`,
    goal: `lag p95 ≤ ${LAG_P95_MS} ms, no reader dropped`,
    measured:
      `p50 ${ms(heard.lag.quantile(0.5))}, p95 ${ms(p95)}, p99 ${ms(heard.lag.quantile(0.99))}; ${count(heard.messages)} ` +
      `messages; ${heard.openStreams} readers open at the end, ${FROZEN - heard.openFrozen} of ${FROZEN} frozen ones cut`,
    met: p95 <= LAG_P95_MS && heard.openStreams === readers && heard.messages > 0,
  });
}

/** Waits until everything is acknowledged, then counts what is in the tables. */
async function verify({ row, say }: SectionContext, site: Site, robots: Robots): Promise<void> {
  const isDrained = await holdsWithin(DRAIN_MS, async () => (await robots.report()).kept === 0, 500);
  const { samplesMade, samplesAcknowledged, collisions, reconnects, kept } = await robots.report();
  const [stored] = await site.database.query<{ samples: number; records: number; robots: number; holes: number }>(
    `select sum(samples)::int8 as samples, sum(records)::int8 as records, count(*)::int8 as robots,
            count(*) filter (where records <> highest)::int8 as holes
       from (select robot_pk, sum(sample_count) as samples, count(*) as records, max(seq) as highest
               from telemetry_block where stream = $1 group by robot_pk, epoch) as each_robot`,
    [LOAD_STREAM],
  );
  const [strays] = await site.database.query<{ quarantined: number; gaps: number }>(
    `select (select count(*) from quarantine)::int8 as quarantined, (select count(*) from telemetry_gap)::int8 as gaps`,
  );
  const [some] = await site.database.query<{ robot_id: string; samples: number }>(
    `select r.robot_id, sum(b.sample_count)::int8 as samples from telemetry_block b join robot r using (robot_pk)
      group by r.robot_id order by r.robot_id limit 1`,
  );
  const overHttp = some ? (await site.cloud.client.sampleCounts(some.robot_id)).get(LOAD_STREAM) : undefined;
  const samples = stored?.samples ?? 0;
  const isWhole =
    isDrained &&
    samples === samplesMade &&
    samplesAcknowledged === samplesMade &&
    stored?.holes === 0 &&
    strays?.quarantined === 0 &&
    strays.gaps === 0 &&
    overHttp === some?.samples;
  say(`${count(samples)} of ${count(samplesMade)} samples found`);
  row({
    what: 'every sample acknowledged and found, each once (counted by SQL; one robot also over HTTP)',
    goal: 'sent = acknowledged = stored',
    measured:
      `${count(samplesMade)} sent, ${count(samplesAcknowledged)} acknowledged, ${count(samples)} stored of ` +
      `${count(stored?.robots ?? 0)} robots; ${kept} records left, ${stored?.holes ?? 0} lanes with holes, ` +
      `${strays?.quarantined ?? 0} quarantined, ${strays?.gaps ?? 0} gaps, ${collisions} collisions, ${reconnects} reconnects`,
    met: isWhole,
  });
}
