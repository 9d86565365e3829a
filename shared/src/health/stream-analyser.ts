import { AlarmLevel, hoursOf } from './alarm-level.ts';
import { calibrate } from './calibrate.ts';
import { fitShape, type Steps, type StreamModel, type View } from './stream-model.ts';
import { StreamScorer } from './stream-scorer.ts';
import { surprise } from './tail.ts';
import { WindowFeed } from './window-feed.ts';
import type { WindowOptions } from './windows.ts';

export interface LearningSettings {
  readonly windows: WindowOptions;
  /** Windows whose looks are learnt, and windows after those that set the alarm level. */
  readonly fitWindows: number;
  readonly calibrateWindows: number;
  /** False alarms that this stream may raise on normal data, an hour. */
  readonly falseAlarmsPerHour: number;
}

/** What a stream's newest window says. */
export interface StreamFinding {
  readonly atMs: number;
  /** 0 to 1; 0.5 is where an alarm begins. */
  readonly anomaly: number;
  readonly isAlarm: boolean;
  readonly change: 'raised' | 'cleared' | undefined;
  /** The signals that stand out, worst first. */
  readonly suspects: readonly Suspect[];
}

export interface Suspect {
  readonly signal: string;
  /** 0 to 1, by itself. */
  readonly score: number;
  /** Since when it stands out. [ms] */
  readonly sinceMs: number;
}

/** A signal stands out when one in so many normal windows looks like it (−log10), and until it falls below half. */
const STANDS_OUT = 2;
const SUSPECTS_MAX = 12;
/** What no single signal can be blamed for. */
const SHARED_VIEWS: readonly (readonly [View, string])[] = [
  ['together', 'all signals together'],
  ['novelty', 'unknown situation'],
  ['quiet', 'all signals calmer'],
  ['timing', 'sample timing'],
  ['learnt', 'learnt fault pattern'],
];
/** What the robot's analysis needs of each stream. */
export interface StreamWatcher {
  readonly isLearnt: boolean;
  readonly model: StreamModel | undefined;
  /** Normal work on which the alarm level rests; 0 while nothing is learnt. [h] */
  readonly normalHours: number;
  /** Memory that learning takes until it is done. [bytes] */
  readonly learningBytes: number;
  /** 0 to 1: how much of what learning needs is there. */
  readonly progress: number;
  /**
   * Takes a sample.
   *
   * @param mayLearn Whether the robot is in a state that may be taken for normal.
   * @returns What the window says that ends with this sample, when one does and the stream is watched.
   */
  push(atMs: number, values: ArrayLike<number>, mayLearn: boolean): StreamFinding | undefined;
}

/** Learns and watches one stream: first it collects, then it fits in small steps, then it judges every window. */
export class StreamAnalyser implements StreamWatcher {
  readonly #signals: readonly string[];
  readonly #settings: LearningSettings;
  readonly #feed: WindowFeed;
  readonly #since: Float64Array;
  readonly #sharedSince = new Map<View, number>();
  #collected: Float32Array[] = [];
  #firstMs = Number.NaN;
  #fitting: Steps<StreamModel> | undefined;
  #model: StreamModel | undefined;
  #scorer: StreamScorer | undefined;
  #alarm: AlarmLevel | undefined;

  /** @param model What was learnt before; used when it is about the same signals. */
  constructor(
    signals: readonly string[],
    indices: ArrayLike<number>,
    settings: LearningSettings,
    model: StreamModel | undefined,
  ) {
    this.#signals = signals;
    this.#settings = settings;
    this.#since = new Float64Array(signals.length).fill(Number.NaN);
    const known = model && fitsSignals(model, signals) ? model : undefined;
    this.#feed = new WindowFeed(indices, known?.windows ?? settings.windows);
    if (known) this.#watch(known);
  }

  get isLearnt(): boolean {
    return this.#model !== undefined;
  }

  /** What was learnt, with the alarm level as it is by now. */
  get model(): StreamModel | undefined {
    return this.#model && this.#alarm ? { ...this.#model, alarm: this.#alarm.basis } : undefined;
  }

  get normalHours(): number {
    return this.#model && this.#alarm ? hoursOf(this.#alarm.basis, this.#model.windowMs) : 0;
  }

  get learningBytes(): number {
    return this.#collected.length * (this.#collected[0]?.byteLength ?? 0);
  }

  get progress(): number {
    if (this.#model) return 1;
    const { fitWindows, calibrateWindows } = this.#settings;
    return Math.min(0.99, this.#collected.length / (fitWindows + calibrateWindows));
  }

  push(atMs: number, values: ArrayLike<number>, mayLearn: boolean): StreamFinding | undefined {
    const features = this.#feed.push(atMs, values);
    if (!features) return undefined;
    if (this.#model && this.#scorer && this.#alarm)
      return this.#judge(this.#model, this.#scorer, this.#alarm, features, atMs);
    if (this.#fitting) this.#fitSome(this.#fitting);
    else if (mayLearn) this.#collect(features, atMs);
    return undefined;
  }

  #collect(features: Float64Array, atMs: number): void {
    if (this.#collected.length === 0) this.#firstMs = atMs;
    this.#collected.push(Float32Array.from(features));
    const { fitWindows, calibrateWindows } = this.#settings;
    if (this.#collected.length < fitWindows + calibrateWindows) return;
    // Learning may have paused; the hop is then what the windows are apart.
    const measuredMs = (atMs - this.#firstMs) / (this.#collected.length - 1);
    const windowMs = Math.max(1, measuredMs);
    this.#fitting = learn(this.#signals, this.#collected, windowMs, this.#settings);
  }

  #fitSome(fitting: Steps<StreamModel>): void {
    const { done, value } = fitting.next();
    if (!done) return;
    this.#fitting = undefined;
    this.#collected = [];
    this.#watch(value);
  }

  #watch(model: StreamModel): void {
    this.#model = model;
    this.#scorer = new StreamScorer(model, model.classifier);
    this.#alarm = new AlarmLevel(model.alarm, model.windowMs, this.#settings.falseAlarmsPerHour);
  }

  #judge(
    model: StreamModel,
    scorer: StreamScorer,
    alarm: AlarmLevel,
    features: Float64Array,
    atMs: number,
  ): StreamFinding {
    const raw = scorer.look(features);
    const score = scorer.combine(raw, model.tails);
    const { raiseAt } = alarm.rule;
    const change = alarm.observe(score);
    const suspects: Suspect[] = [];
    const add = (signal: string, blame: number, sinceMs: number): void => {
      if (!Number.isNaN(sinceMs)) suspects.push({ signal, score: share(blame, raiseAt), sinceMs });
    };
    scorer.blame(raw, model.tails).forEach((blame, i) => {
      const since = stillSince(this.#since[i] as number, blame, atMs);
      this.#since[i] = since;
      add(this.#signals[i] as string, blame, since);
    });
    for (const [view, name] of SHARED_VIEWS) {
      const tail = model.tails[view];
      const blame = tail ? surprise(tail, raw.values[view]) : 0;
      const since = stillSince(this.#sharedSince.get(view) ?? Number.NaN, blame, atMs);
      this.#sharedSince.set(view, since);
      add(name, blame, since);
    }
    suspects.sort((a, b) => b.score - a.score);
    return {
      atMs,
      anomaly: share(score, raiseAt),
      isAlarm: alarm.isActive,
      change,
      suspects: suspects.slice(0, SUSPECTS_MAX),
    };
  }
}

/** Fits and calibrates, in steps. The first windows give the shape, the later ones its distributions. */
export function* learn(
  signals: readonly string[],
  windows: readonly ArrayLike<number>[],
  windowMs: number,
  settings: LearningSettings,
): Steps<StreamModel> {
  const fit = windows.slice(0, settings.fitWindows);
  const heldOut = windows.slice(settings.fitWindows);
  const shape = yield* fitShape(signals, fit, windowMs, heldOut);
  const model = yield* calibrate(shape, heldOut, settings.falseAlarmsPerHour);
  return { ...model, windows: settings.windows };
}

/** A score against the alarm level as 0 to 1, so that 0.5 is the level. */
const share = (score: number, raiseAt: number): number => (score <= 0 ? 0 : score / (score + raiseAt));

function stillSince(since: number, blame: number, atMs: number): number {
  if (blame >= STANDS_OUT) return Number.isNaN(since) ? atMs : since;
  return blame < STANDS_OUT / 2 ? Number.NaN : since;
}

const fitsSignals = (model: StreamModel, signals: readonly string[]): boolean =>
  model.signals.length === signals.length && model.signals.every((name, i) => name === signals[i]);
