import { encodeModel } from '@outrider/shared/health/model-codec';
import {
  type AnalyserSettings,
  DEFAULT_ANALYSER,
  RobotAnalyser,
  type RobotModel,
} from '@outrider/shared/health/robot-analyser';
import type { HealthVerdict } from '@outrider/shared/health/verdict';
import type { Logger } from '@outrider/shared/log';
import type { DecodedBlock } from '@outrider/shared/protocol/block';
import { pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { LaneOutcome } from '../telemetry/ingest-ports.ts';
import type { RobotRef } from '../telemetry/ports.ts';
import { type CloudVerdict, EDGE_KEY, type HealthStore } from './ports.ts';
import { readModel } from './stored-model.ts';

/** Coarser than on the robot: what comes over HTTP comes slowly, and thousands of robots share this process. */
export const CLOUD_ANALYSER: AnalyserSettings = {
  ...DEFAULT_ANALYSER,
  windows: { hopMs: 10_000, hops: 6 },
  fitWindows: 120,
  calibrateWindows: 80,
  time: 'stamp',
};

/** An edge that judged its robot within this time is the one that decides. [ms] */
const EDGE_FRESH_MS = 60_000;
const FAILSAFE_KEY = 'failsafe';
const QUEUE_BLOCKS_MAX = 5000;
/** Analysis gives way to everything else after this long. [ms] */
const TURN_MS = 5;
const FLUSH_MS = 1000;
/** A verdict that stays the same is written this often. [ms] */
const REPEAT_MS = 10_000;
const STEP = 0.05;
/** No further robot begins to be learnt while those that are take so much. */
const LEARNING_BYTES_MAX = 128 * 1024 * 1024;
const ROBOTS_MAX = 5000;
const IDLE_MS = 600_000;

interface Kept {
  readonly robot: RobotRef;
  analyser: RobotAnalyser;
  /** Streams that are stored. */
  saved: number;
  raised: HealthVerdict | undefined;
  reported: HealthVerdict | undefined;
  reportedMs: number;
  usedMs: number;
}

export interface HealthKeeperOptions {
  readonly store: HealthStore;
  readonly settings: AnalyserSettings;
  readonly metrics: Registry;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Judges robots whose edge does not: telemetry over HTTP, older agents. It hears of commits after they are
 * acknowledged, in a bounded queue of its own, so that a slow analysis costs analysis and nothing else.
 */
export class HealthKeeper implements Service {
  readonly name = 'health';
  readonly #options: HealthKeeperOptions;
  readonly #queue: { readonly robot: RobotRef; readonly block: DecodedBlock }[] = [];
  readonly #robots = new Map<number, Kept>();
  readonly #edgeSeen = new Map<number, number>();
  readonly #latched = new Set<number>();
  readonly #left: Counter<'reason'>;
  #isFull = false;
  #wake: (() => void) | undefined;

  constructor(options: HealthKeeperOptions) {
    this.#options = options;
    const registers = [options.metrics];
    this.#left = new Counter({
      name: 'outrider_health_blocks_left_out_total',
      help: 'Telemetry blocks that the health analysis did not look at.',
      labelNames: ['reason'],
      registers,
    });
    const robots = this.#robots;
    new Gauge({
      name: 'outrider_health_robots',
      help: 'Robots that the control plane judges itself.',
      registers,
      collect() {
        this.set(robots.size);
      },
    });
  }

  /** Hears of a commit. Only puts it into the queue. */
  stored(outcomes: readonly LaneOutcome[]): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const { robot, stored } of outcomes) {
      for (const record of stored) {
        if (record.kind === 'state') this.#heard(robot.robotPk, record.key, record.valueJson, nowMs);
        if (record.kind !== 'telemetry' || this.#edgeDecides(robot.robotPk, nowMs)) continue;
        if (this.#queue.length >= QUEUE_BLOCKS_MAX) this.#left.inc({ reason: 'queue_full' });
        else this.#queue.push({ robot, block: record.block });
      }
    }
    if (this.#queue.length > 0) this.#wake?.();
  }

  async run(signal: AbortSignal): Promise<void> {
    let flushMs = this.#options.clock.monotonicMs();
    while (!signal.aborted) {
      if (this.#queue.length === 0) await Promise.race([this.#arrival(), pause(FLUSH_MS, signal)]);
      await this.#turn();
      if (this.#options.clock.monotonicMs() - flushMs >= FLUSH_MS) {
        await this.flush();
        flushMs = this.#options.clock.monotonicMs();
      }
      // Whatever else waits comes first.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Writes what changed: verdicts, alarms, and what was learnt. */
  async flush(): Promise<void> {
    const { store, clock, log } = this.#options;
    const nowMs = clock.monotonicMs();
    let learningBytes = 0;
    const due: { kept: Kept; said: CloudVerdict }[] = [];
    for (const [robotPk, kept] of this.#robots) {
      learningBytes += kept.analyser.learningBytes;
      if (nowMs - kept.usedMs > IDLE_MS || this.#edgeDecides(robotPk, nowMs)) {
        this.#robots.delete(robotPk);
        continue;
      }
      const verdict = kept.analyser.verdict();
      if (kept.raised || isNews(kept, verdict, nowMs))
        due.push({ kept, said: { robot: kept.robot, verdict, raised: kept.raised } });
    }
    this.#isFull = learningBytes > LEARNING_BYTES_MAX || this.#robots.size >= ROBOTS_MAX;
    try {
      if (due.length > 0)
        await store.report(
          due.map(({ said }) => said),
          clock.epochMs(),
        );
      for (const { kept, said } of due) {
        kept.reported = said.verdict;
        kept.reportedMs = nowMs;
        if (kept.raised === said.raised) kept.raised = undefined;
      }
      for (const kept of this.#robots.values()) await this.#saveIfNew(kept);
    } catch (error) {
      // The database is away: the same is written with the next flush.
      log.warn({ err: error, robots: due.length }, 'health.report_failed');
    }
  }

  #heard(robotPk: number, key: string, valueJson: string, nowMs: number): void {
    if (key === EDGE_KEY) this.#edgeSeen.set(robotPk, nowMs);
    if (key !== FAILSAFE_KEY) return;
    if (valueJson.includes('"phase":"LATCHED"')) this.#latched.add(robotPk);
    else this.#latched.delete(robotPk);
  }

  #edgeDecides(robotPk: number, nowMs: number): boolean {
    const seenMs = this.#edgeSeen.get(robotPk);
    if (seenMs === undefined) return false;
    if (nowMs - seenMs <= EDGE_FRESH_MS) return true;
    this.#edgeSeen.delete(robotPk);
    return false;
  }

  #arrival(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }

  /** Looks at blocks in the order in which they came, for a little while. */
  async #turn(): Promise<void> {
    const { clock } = this.#options;
    const startMs = clock.monotonicMs();
    let done = 0;
    for (const { robot, block } of this.#queue) {
      if (done > 0 && clock.monotonicMs() - startMs >= TURN_MS) break;
      done += 1;
      if (this.#edgeDecides(robot.robotPk, clock.monotonicMs())) continue;
      const kept = this.#robots.get(robot.robotPk) ?? (await this.#open(robot));
      if (!kept) continue;
      kept.usedMs = clock.monotonicMs();
      kept.analyser.mayLearn = !this.#latched.has(robot.robotPk);
      kept.analyser.observeBlock(block);
      kept.raised = kept.analyser.takeRaised() ?? kept.raised;
    }
    this.#queue.splice(0, done);
  }

  /** Begins to analyse a robot, unless there is no room or its own agent does, which another replica may have heard. */
  async #open(robot: RobotRef): Promise<Kept | undefined> {
    if (this.#isFull) {
      this.#left.inc({ reason: 'too_many_robots' });
      return undefined;
    }
    const { settings, log, store, clock } = this.#options;
    const { model, edgeJudgedMs } = await store.load(robot.robotPk).catch((error: unknown) => {
      log.warn({ err: error, robotId: robot.robotId }, 'health.model_unavailable');
      return { model: undefined, edgeJudgedMs: undefined };
    });
    if (edgeJudgedMs !== undefined) {
      const ageMs = Math.max(0, clock.epochMs() - edgeJudgedMs);
      this.#edgeSeen.set(robot.robotPk, clock.monotonicMs() - ageMs);
      if (this.#edgeDecides(robot.robotPk, clock.monotonicMs())) return undefined;
    }
    const known = model ? readModel(model) : new Map();
    const kept: Kept = {
      robot,
      analyser: new RobotAnalyser(settings, known),
      saved: known.size,
      raised: undefined,
      reported: undefined,
      reportedMs: Number.NEGATIVE_INFINITY,
      usedMs: clock.monotonicMs(),
    };
    this.#robots.set(robot.robotPk, kept);
    return kept;
  }

  async #saveIfNew(kept: Kept): Promise<void> {
    const { store, clock, settings } = this.#options;
    if (kept.analyser.learntStreams === kept.saved) return;
    const model = kept.analyser.model();
    let agreed = model;
    const merge = (body: Uint8Array | undefined): Uint8Array => {
      const stored: RobotModel = body ? readModel(body) : new Map();
      agreed = new Map([...model, ...stored]);
      return encodeModel(agreed);
    };
    await store.saveModel(kept.robot.robotPk, merge, clock.epochMs());
    kept.saved = agreed.size;
    // Another replica was first with some of it: both judge by what is stored.
    if ([...model].some(([stream, ours]) => agreed.get(stream) !== ours))
      kept.analyser = new RobotAnalyser(settings, agreed);
  }
}

function isNews({ reported, reportedMs }: Kept, verdict: HealthVerdict, nowMs: number): boolean {
  if (!reported) return true;
  if (verdict.updatedAtMs !== reported.updatedAtMs && nowMs - reportedMs >= REPEAT_MS) return true;
  return (
    verdict.state !== reported.state ||
    verdict.riskLevel !== reported.riskLevel ||
    verdict.alarmSinceMs !== reported.alarmSinceMs ||
    Math.abs((verdict.anomalyScore ?? 0) - (reported.anomalyScore ?? 0)) >= STEP
  );
}
