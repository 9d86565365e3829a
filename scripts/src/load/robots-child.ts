/**
 * A process of simulated robots. Told by messages of its parent what to do; ends with it.
 */
import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { blockTemplates, hotSample } from './block-template.ts';
import { Latencies } from './latencies.ts';
import type { RobotsOrder, RobotsReport } from './robots.ts';
import { type RobotTally, SimRobot } from './sim-robot.ts';

/** Handshakes that may be under way at once: a fleet that comes back together is another load than this one. */
const CONNECTING_MAX = 16;
const TICK_MS = 10;
const TEND_EVERY_MS = 1000;
const never = new AbortController().signal;

const freshTally = (): RobotTally => ({
  samplesMade: 0,
  samplesAcknowledged: 0,
  batchesSent: 0,
  resends: 0,
  reconnects: 0,
  connected: 0,
  refused: 0,
  collisions: 0,
  instructions: 0,
  instructionsRefused: 0,
  lastReason: '',
  ack: new Latencies(),
});

const tally = freshTally();
let robots: SimRobot[] = [];
let late = new Latencies();
let flushMs = 1000;
/** How many of the robots record. */
let active = 0;
/** How far into the interval the round of robots has come. */
let turn = 0;
let turnStartedMs = 0;

/** Robots take their turns spread over the interval. */
function tick(): void {
  const nowMs = systemClock.monotonicMs();
  if (active === 0) {
    turnStartedMs = nowMs;
    turn = 0;
    return;
  }
  for (;;) {
    const dueMs = turnStartedMs + (turn / active) * flushMs;
    if (dueMs > nowMs) return;
    late.add(nowMs - dueMs);
    robots[turn]?.record();
    turn += 1;
    if (turn < active) continue;
    turn = 0;
    turnStartedMs += flushMs;
  }
}

async function connectAll(): Promise<void> {
  for (const robot of robots) {
    while (startedCount() - greetedCount() >= CONNECTING_MAX) await pause(5, never);
    started.add(robot);
    robot.start();
  }
  while (greetedCount() < robots.length) await pause(20, never);
}

const hotSince = new Map<string, number>();

function overheatAll(everyMs: number, flushMs: number): void {
  robots.forEach((robot, index) => {
    const heat = (): void => {
      const takenMs = systemClock.epochMs();
      hotSince.set(robot.robotId, takenMs);
      // The flush comes when it comes, whatever the sample.
      setTimeout(() => robot.append(hotSample(takenMs), 1), Math.random() * flushMs);
    };
    setTimeout(heat, index * everyMs);
  });
}

const started = new Set<SimRobot>();
const startedCount = (): number => started.size;
const greetedCount = (): number => [...started].filter((robot) => robot.isGreeted).length;

function report(): RobotsReport {
  const { user, system } = process.cpuUsage();
  const made: RobotsReport = {
    ...tally,
    ack: tally.ack.toData(),
    late: late.toData(),
    greeted: greetedCount(),
    kept: robots.reduce((sum, robot) => sum + robot.keptCount, 0),
    cpuMs: (user + system) / 1000,
  };
  return made;
}

process.on('disconnect', () => process.exit(0));
process.on('message', (order: RobotsOrder) => {
  switch (order.do) {
    case 'connect': {
      flushMs = order.flushMs;
      const rows = Math.max(1, Math.round((order.rateHz * order.flushMs) / 1000));
      const templates = blockTemplates({ joints: order.joints, rows, rateHz: order.rateHz });
      robots = order.robots.map(
        (credentials) =>
          new SimRobot({
            credentials,
            host: order.host,
            port: order.port,
            caPem: order.caPem,
            localAddress: order.localAddress,
            templates,
            isBrokerAlone: order.isBrokerAlone === true,
            tally,
          }),
      );
      setInterval(tick, TICK_MS);
      setInterval(() => {
        for (const robot of robots) robot.tend();
      }, TEND_EVERY_MS);
      connectAll().then(
        () => process.send?.({ answer: order.id }),
        (error: unknown) => process.send?.({ answer: order.id, error: String(error) }),
      );
      return;
    }
    case 'record':
      turnStartedMs = systemClock.monotonicMs();
      turn = 0;
      active = Math.round(order.share * robots.length);
      process.send?.({ answer: order.id });
      return;
    case 'overheat':
      overheatAll(order.everyMs, order.flushMs);
      process.send?.({ answer: order.id });
      return;
    case 'overheated':
      process.send?.({ answer: order.id, value: [...hotSince] });
      return;
    case 'forget':
      tally.ack = new Latencies();
      late = new Latencies();
      process.send?.({ answer: order.id });
      return;
    case 'report':
      process.send?.({ answer: order.id, value: report() });
      return;
    case 'end':
      for (const robot of robots) robot.stop();
      process.send?.({ answer: order.id });
      setTimeout(() => process.exit(0), 500);
      return;
  }
});
