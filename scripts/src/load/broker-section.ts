import { fork } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { noMosquitto, startMosquitto } from '@outrider/cloud/testing/engines';
import { pause } from '@outrider/shared/service';
import { format, spreadOf } from '../bench/measure.ts';
import { end } from '../bench/robot.ts';
import { freePorts } from '../stack.ts';
import { cpuMsOf, familyCpuMsOf } from './processes.ts';
import { type RobotLoad, Robots } from './robots.ts';
import { count, type Section, type SectionContext } from './section.ts';
import type { SimCredentials } from './sim-robot.ts';
import { enrolFleet, never, openSite, type Site } from './site.ts';

const ROBOTS = 100;
const FLUSH_MS = 100;
const ROWS = 10;
const RATIO_MAX = 2;
const ROBOT_PROCESSES = 1;

/** What a message costs in processor time. */
export const brokerSection: Section = {
  name: 'broker',
  about: 'processor time a message: broker and ingest together, against brokers with nothing behind them, alternating',
  timeoutMs: () => 300_000,
  run,
};

interface Target {
  readonly name: string;
  readonly load: Pick<RobotLoad, 'host' | 'port' | 'caPem' | 'isBrokerAlone'>;
  readonly cpuMs: () => number;
}

async function run(context: SectionContext): Promise<void> {
  const { options, say, defer, row } = context;
  const site = await openSite({ say, isDurable: true, profileDir: options.profileDir });
  defer(() => site.end());
  const fleet = await enrolFleet(site, ROBOTS, say);
  const directory = mkdtempSync(join(tmpdir(), 'outrider-load-broker-'));
  defer(async () => rmSync(directory, { recursive: true, force: true }));
  const postgresPid = site.postgres.pid();
  const cloudPid = site.cloud.ready.pid;
  if (options.profileDir !== undefined) process.kill(cloudPid, 'SIGUSR2');
  const ours: Target = { name: 'outrider-cloud', load: site.mqtt, cpuMs: () => cpuMsOf(cloudPid) };
  const mosquitto = noMosquitto === false ? await startMosquittoOf(context, site, directory) : undefined;
  const aedes = await startAedes(context, directory, site);
  const targets = [ours, aedes, ...(mosquitto ? [mosquitto] : [])];
  const [pairs, seconds] = options.isShort ? [1, 4] : [3, 5];
  const costs = new Map<Target, number[]>();
  const postgresMs: number[] = [];
  for (let pair = 0; pair < pairs; pair += 1) {
    // Each begins a round once.
    for (const target of [...targets.slice(pair % targets.length), ...targets.slice(0, pair % targets.length)]) {
      const before = familyCpuMsOf(postgresPid);
      const { perMessageMs, messages } = await measure(target, fleet, options.joints, seconds);
      costs.set(target, [...(costs.get(target) ?? []), perMessageMs]);
      if (target === ours) postgresMs.push((familyCpuMsOf(postgresPid) - before) / messages);
      say(`${target.name}: ${format(perMessageMs)} ms a message, ${count(messages / seconds)} messages/s`);
    }
  }
  const ownCosts = costs.get(ours) ?? [];
  for (const peer of targets.slice(1)) {
    const peerCosts = costs.get(peer) ?? [];
    const ratio = spreadOf(ownCosts.map((own, pair) => own / (peerCosts[pair] as number)));
    row({
      what: `processor time a message of ${ROWS} samples of ${options.joints} joints over TLS, QoS 1, ${count((ROBOTS * 1000) / FLUSH_MS)} a second: broker, checks, decoding, statements and acknowledgements in outrider-cloud, against ${peer.name} that only takes it`,
      goal: `≤ ${RATIO_MAX}×`,
      measured:
        `${format(spreadOf(ownCosts).median)} against ${format(spreadOf(peerCosts).median)} ms: ${format(ratio.median)} ` +
        `(${format(ratio.low)} – ${format(ratio.high)}, ${ratio.runs} pairs); PostgreSQL besides: ${format(spreadOf(postgresMs).median)} ms`,
      met: ratio.median <= RATIO_MAX,
    });
  }
}

async function measure(
  target: Target,
  fleet: readonly SimCredentials[],
  joints: number,
  seconds: number,
): Promise<{ perMessageMs: number; messages: number }> {
  const robots = new Robots(fleet, ROBOT_PROCESSES);
  try {
    await robots.connect({ ...target.load, rateHz: (ROWS * 1000) / FLUSH_MS, flushMs: FLUSH_MS, joints });
    await robots.record(1);
    await pause(1500, never);
    const before = { cpuMs: target.cpuMs(), report: await robots.report() };
    await pause(seconds * 1000, never);
    const after = { cpuMs: target.cpuMs(), report: await robots.report() };
    const messages = (after.report.samplesAcknowledged - before.report.samplesAcknowledged) / ROWS;
    if (messages === 0) throw new Error(`${target.name} took nothing: ${after.report.lastReason}`);
    return { perMessageMs: (after.cpuMs - before.cpuMs) / messages, messages };
  } finally {
    await robots.end();
  }
}

async function startMosquittoOf({ defer }: SectionContext, site: Site, directory: string): Promise<Target> {
  // It runs as a user of its own.
  chmodSync(directory, 0o755);
  const [listenPort, cloudPort] = (await freePorts(2)) as [number, number];
  const args = ['broker-config', 'mosquitto', '--state-dir', join(site.stateDir, 'cloud'), '--out', directory];
  const ports = ['--listen-port', String(listenPort), '--cloud-port', String(cloudPort)];
  const config = (await site.stack.cloudCommand([...args, ...ports], { DATABASE_URL: site.postgres.url })).trim();
  const engine = await startMosquitto(config, directory, listenPort, []);
  defer(() => engine.stop());
  const pid = engine.pid();
  return {
    name: 'Mosquitto',
    load: { host: '127.0.0.1', port: listenPort, caPem: site.caPem, isBrokerAlone: true },
    cpuMs: () => cpuMsOf(pid),
  };
}

async function startAedes({ defer }: SectionContext, directory: string, site: Site): Promise<Target> {
  const files = ['server.key', 'server.pem', 'ca.pem'].map((name) => join(directory, name));
  const child = fork(fileURLToPath(new URL('./aedes-child.js', import.meta.url)), files, { execArgv: [] });
  defer(() => end(child));
  const [port] = (await once(child, 'message')) as [number];
  return {
    name: 'bare aedes',
    load: { host: '127.0.0.1', port, caPem: site.caPem, isBrokerAlone: true },
    cpuMs: () => cpuMsOf(child.pid ?? 0),
  };
}
