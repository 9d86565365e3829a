import { errorMessage } from '@outrider/shared/errors';
import { type AnalyserSettings, RobotAnalyser } from '@outrider/shared/health/robot-analyser';
import { encodeVerdict, type HealthVerdict } from '@outrider/shared/health/verdict';
import { newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import { type Clock, type EpochMs, toIso } from '@outrider/shared/time';
import type { OutboxEvent } from '../outbox/records.ts';
import { ModelFile } from './model-file.ts';

/** How often the verdict is looked at, and so the most often that it is reported. */
const LOOK_MS = 1000;
/** An unchanged verdict is reported this often, so that the cloud knows that it still holds. */
const REPEAT_MS = 10_000;
/** A change of a score that is worth a report. */
const STEP = 0.05;
/** A model that could not be written is tried again so much later. */
const RETRY_SAVE_MS = 60_000;
/** The alarm level is refined all the time; so much of that may be lost with a power cut. */
const REFINED_SAVE_MS = 3_600_000;

export interface HealthWatchOptions {
  readonly settings: AnalyserSettings;
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether what the robot does now may be taken for normal. */
  readonly mayLearn: () => boolean;
  /** Takes the verdict for the state lane. */
  readonly report: (value: unknown) => void;
  /** Takes events for the event lane. */
  readonly record: (event: OutboxEvent) => Promise<void>;
}

/** Runs the analyser on the robot: it needs no link, and what it finds waits in the outbox like everything else. */
export class HealthWatch implements Service {
  readonly name = 'health-watch';
  readonly #options: HealthWatchOptions;
  readonly #file: ModelFile;
  #analyser: RobotAnalyser;
  #savedCount = 0;
  #savedMs = 0;
  #saveAfterMs = 0;
  #reported: HealthVerdict | undefined;
  #reportedMs = Number.NEGATIVE_INFINITY;

  constructor(options: HealthWatchOptions) {
    this.#options = options;
    this.#file = new ModelFile(options.stateDir, options.log);
    this.#analyser = new RobotAnalyser(options.settings);
  }

  /** Takes what was learnt before. Call it before the first sample. */
  async load(): Promise<void> {
    const known = await this.#file.load();
    this.#analyser = new RobotAnalyser(this.#options.settings, known);
    if (known.size > 0) this.#options.log.info({ streams: known.size }, 'health.model_loaded');
    // What came from disk need not be written again.
    this.#savedCount = known.size;
    this.#savedMs = this.#options.clock.monotonicMs();
  }

  /** Takes a sample; a few microseconds. */
  add(sample: Sample): void {
    this.#analyser.observe(sample);
    const raised = this.#analyser.takeRaised();
    if (raised) this.#raise(raised);
  }

  verdict(): HealthVerdict {
    return this.#analyser.verdict();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.look();
      await pause(LOOK_MS, signal);
    }
    await this.#saveIfNew(0);
  }

  /** What happens each second. */
  async look(): Promise<void> {
    const { clock, mayLearn } = this.#options;
    this.#analyser.mayLearn = mayLearn();
    this.#analyser.tick(clock.monotonicMs(), clock.epochMs());
    const raised = this.#analyser.takeRaised();
    if (raised) this.#raise(raised);
    this.#report();
    await this.#saveIfNew();
  }

  #report(): void {
    const verdict = this.verdict();
    const nowMs = this.#options.clock.monotonicMs();
    const before = this.#reported;
    if (before && !differs(before, verdict) && nowMs - this.#reportedMs < REPEAT_MS) return;
    this.#reported = verdict;
    this.#reportedMs = nowMs;
    this.#options.report(encodeVerdict(verdict));
  }

  #raise(verdict: HealthVerdict): void {
    const { record, log, clock } = this.#options;
    const occurredAtMs = (verdict.alarmSinceMs ?? clock.epochMs()) as EpochMs;
    const event: OutboxEvent = {
      eventId: newId('evt'),
      type: 'anomaly.detected.v1',
      occurredAtMs,
      traceId: newId('anomaly'),
      payload: {
        anomaly_score: verdict.anomalyScore ?? 0,
        risk_level: verdict.riskLevel === 'unknown' ? 'medium' : verdict.riskLevel,
        signals: verdict.signals.map(({ signal, score, sinceMs }) => ({
          signal,
          score,
          since: toIso(sinceMs as EpochMs),
        })),
      },
    };
    log.warn(
      { anomaly_score: verdict.anomalyScore, signals: verdict.signals.map(({ signal }) => signal) },
      'health.anomaly',
    );
    void record(event).catch((error: unknown) => log.warn({ reason: errorMessage(error) }, 'event.lost'));
  }

  /** Writes streams that are newly learnt at once, and refined alarm levels when the file is as old as given. */
  async #saveIfNew(refinedAfterMs = REFINED_SAVE_MS): Promise<void> {
    const { log, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const isNew = this.#analyser.learntStreams !== this.#savedCount;
    const isRefined = this.#analyser.learntStreams > 0 && nowMs - this.#savedMs >= refinedAfterMs;
    if ((!isNew && !isRefined) || nowMs < this.#saveAfterMs) return;
    const model = this.#analyser.model();
    try {
      await this.#file.save(model);
      this.#savedCount = model.size;
      this.#savedMs = nowMs;
      if (isNew) log.info({ streams: model.size }, 'health.learnt');
    } catch (error) {
      this.#saveAfterMs = nowMs + RETRY_SAVE_MS;
      log.warn({ reason: errorMessage(error) }, 'health.model_not_saved');
    }
  }
}

function differs(before: HealthVerdict, now: HealthVerdict): boolean {
  return (
    before.state !== now.state ||
    before.riskLevel !== now.riskLevel ||
    before.alarmSinceMs !== now.alarmSinceMs ||
    Math.abs((before.anomalyScore ?? 0) - (now.anomalyScore ?? 0)) >= STEP ||
    Math.abs(before.healthScore - now.healthScore) >= STEP
  );
}
