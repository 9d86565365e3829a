import { DomainError } from '../errors.ts';
import type { Sample } from '../telemetry.ts';
import { calibrate } from './calibrate.ts';
import { type Alarms, alarmsOf, areaUnderRoc, bestF1 } from './judging.ts';
import { type AnalyserSettings, RobotAnalyser } from './robot-analyser.ts';
import type { LearningSettings, StreamWatcher } from './stream-analyser.ts';
import { finish, fitShape, type StreamModel } from './stream-model.ts';
import { StreamScorer } from './stream-scorer.ts';
import { trainClassifier } from './supervised.ts';
import { WindowFeed } from './window-feed.ts';

/** A window of a recording, and whether a sample of its newest hop is labelled as a fault. */
export interface LabelledWindow {
  readonly atMs: number;
  readonly features: Float32Array;
  readonly isFault: boolean;
  /** Its newest hop is normal and an earlier one is not: no fault, and no example of what is normal. */
  readonly isEcho: boolean;
}

/** Everything that a recording holds of one stream, as the analyser will see it. */
export interface StreamWindows {
  readonly signals: readonly string[];
  readonly settings: LearningSettings;
  readonly windows: LabelledWindow[];
}

/** What was learnt of a stream. */
export interface TrainedStream {
  readonly model: StreamModel;
  readonly normalWindows: number;
  readonly faultWindows: number;
  /** How a model of the first part does on the last; absent where that part has no fault, or the first none. */
  readonly heldOut: HeldOut | undefined;
}

export interface HeldOut extends Alarms {
  readonly auroc: number;
  /** At the level that is best in hindsight: what a more permissive setting could reach. */
  readonly f1Best: number;
}

/** Of what is learnt from: this share gives the looks, the rest of the normal windows the alarm level. */
const FIT_SHARE = 0.67;
/** Of the whole: this share is learnt from to judge the rest. */
const JUDGED_FROM = 0.65;
const NORMAL_WINDOWS_MIN = 120;
/** Fewer labelled windows teach nothing that holds. */
const FAULT_WINDOWS_MIN = 5;
const MS_PER_HOUR = 3_600_000;

/** Turns the samples of a recording into labelled windows, stream by stream, by the analyser's own rules. */
export class TrainingSet {
  readonly streams = new Map<string, StreamWindows>();
  readonly #analyser: RobotAnalyser;
  #isFault = false;

  constructor(settings: AnalyserSettings) {
    this.#analyser = new RobotAnalyser(settings, new Map(), (key, { names, indices }, ofStream) => {
      const stream: StreamWindows = { signals: names, settings: ofStream, windows: [] };
      this.streams.set(key, stream);
      return this.#collect(stream, new WindowFeed(indices, ofStream.windows), ofStream.windows.hops);
    });
  }

  add(sample: Sample, isFault: boolean): void {
    this.#isFault = isFault;
    this.#analyser.observe(sample);
  }

  #collect({ windows }: StreamWindows, feed: WindowFeed, hops: number): StreamWatcher {
    let isFault = false;
    let hopsSinceFault = hops;
    return {
      isLearnt: false,
      model: undefined,
      normalHours: 0,
      learningBytes: 0,
      progress: 0,
      push: (atMs, values) => {
        const ended = feed.hopsEnded;
        const features = feed.push(atMs, values);
        if (feed.hopsEnded > ended) {
          hopsSinceFault = isFault ? 0 : hopsSinceFault + 1;
          const isEcho = !isFault && hopsSinceFault < hops;
          if (features) windows.push({ atMs, features: Float32Array.from(features), isFault, isEcho });
          // The sample itself belongs to the next hop.
          isFault = false;
        }
        isFault ||= this.#isFault;
        return undefined;
      },
    };
  }
}

/**
 * Learns one stream from a recording: what is normal, what its faults look like where labels say so, and the alarm
 * level from normal windows that neither was learnt from.
 *
 * @throws DomainError `invalid` that says what is missing.
 */
export function trainStream(stream: StreamWindows): TrainedStream {
  const { windows, settings } = stream;
  const normalWindows = windows.filter(isNormal).length;
  const faultWindows = windows.filter(({ isFault }) => isFault).length;
  if (normalWindows < NORMAL_WINDOWS_MIN)
    throw new DomainError(
      'invalid',
      `${normalWindows} normal windows of ${settings.windows.hopMs / 1000} s; ${NORMAL_WINDOWS_MIN} are needed`,
    );
  const model = learnFrom(stream, windows);
  return {
    model,
    normalWindows,
    faultWindows,
    heldOut: judge(stream),
  };
}

const isNormal = ({ isFault, isEcho }: LabelledWindow): boolean => !isFault && !isEcho;

function learnFrom({ signals, settings }: StreamWindows, windows: readonly LabelledWindow[]): StreamModel {
  const normal = windows.filter(isNormal);
  const faults = windows.filter(({ isFault }) => isFault).length;
  const fit = normal.slice(0, Math.floor(FIT_SHARE * normal.length));
  const level = normal.slice(fit.length).map(({ features }) => features);
  const fitFeatures = fit.map(({ features }) => features);
  const windowMs = middleStepMs(windows);
  const shape = finish(fitShape(signals, fitFeatures, windowMs, level));
  const fitEndMs = fit.at(-1)?.atMs ?? 0;
  const taught = windows.filter(({ isFault, atMs }) => isFault || atMs <= fitEndMs);
  const classifier =
    faults < FAULT_WINDOWS_MIN
      ? undefined
      : trainClassifier(
          shape,
          taught.map(({ features }) => features),
          taught.map(({ isFault }) => isFault),
        );
  const model = finish(calibrate(shape, level, settings.falseAlarmsPerHour, classifier));
  return { ...model, windows: settings.windows };
}

/** Learns from the first part and judges the last, which it has not seen. */
function judge(stream: StreamWindows): HeldOut | undefined {
  const { windows, settings } = stream;
  const from = Math.floor(JUDGED_FROM * windows.length);
  const [before, after] = [windows.slice(0, from), windows.slice(from)];
  const faultsOf = (part: readonly LabelledWindow[]): number => part.filter(({ isFault }) => isFault).length;
  if (faultsOf(before) < FAULT_WINDOWS_MIN || faultsOf(after) === 0 || faultsOf(after) === after.length)
    return undefined;
  if (before.filter(isNormal).length < NORMAL_WINDOWS_MIN / 2) return undefined;
  const model = learnFrom(stream, before);
  const scorer = new StreamScorer(model, model.classifier);
  const judged = {
    scores: after.map(({ features }) => scorer.combine(scorer.look(features), model.tails)),
    isFault: after.map(({ isFault }) => isFault),
    timesMs: after.map(({ atMs }) => atMs),
  };
  const alarms = alarmsOf([judged], model.alarm, model.windowMs, settings.falseAlarmsPerHour);
  return { auroc: areaUnderRoc([judged]), f1Best: bestF1([judged]), ...alarms };
}

/** Time from window to window; breaks in the recording do not count. */
function middleStepMs(windows: readonly LabelledWindow[]): number {
  const steps = windows.slice(1).map(({ atMs }, i) => atMs - (windows[i]?.atMs ?? atMs));
  return Math.max(1, steps.toSorted((a, b) => a - b)[steps.length >> 1] ?? MS_PER_HOUR);
}
