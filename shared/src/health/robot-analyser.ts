import type { DecodedBlock } from '../protocol/block.ts';
import { fieldRange, SAMPLE_FLAGS, type Sample, type StreamLayout, sameLayout } from '../telemetry.ts';
import { hoursToShow } from './alarm-level.ts';
import { SIGNALS_MAX, type Signals, signalsOf } from './signals.ts';
import { type LearningSettings, StreamAnalyser, type StreamFinding, type StreamWatcher } from './stream-analyser.ts';
import type { StreamModel } from './stream-model.ts';
import { costOf, type HealthVerdict, riskOf, type SignalCost } from './verdict.ts';
import { DEFAULT_WINDOWS } from './windows.ts';

export interface AnalyserSettings extends LearningSettings {
  /** False alarms on normal data that the whole robot may raise, an hour. */
  readonly falseAlarmsPerHour: number;
  /** Which time windows go by: the source's own where it has one, or that of reception. */
  readonly time: 'stamp' | 'received';
}

/** At one window a second: ten minutes of normal work to learn from, five to set the alarm level. */
export const DEFAULT_ANALYSER: AnalyserSettings = {
  windows: DEFAULT_WINDOWS,
  fitWindows: 600,
  calibrateWindows: 300,
  falseAlarmsPerHour: 0.1,
  time: 'received',
};

/** What was learnt of a robot, by stream and the names of its signals. */
export type RobotModel = ReadonlyMap<string, StreamModel>;

export type WatchStream = (
  key: string,
  signals: Signals,
  settings: LearningSettings,
  known: StreamModel | undefined,
) => StreamWatcher;

const analyse: WatchStream = (_key, { names, indices }, settings, known) =>
  new StreamAnalyser(names, indices, settings, known);

/** A stamp before the year 2000 is that of a clock which counts from its start. */
const STAMP_NS_MIN = 946_684_800_000_000_000n;
/** Streams that are analysed; later ones are not. */
const STREAMS_MAX = 24;
const SIGNALS_SHOWN_MAX = 8;
/** A stream is stale after so many of its usual intervals, and not before STALE_MIN_MS. */
const STALE_INTERVALS = 5;
const STALE_MIN_MS = 2000;
/** Some streams come only when something changes: what was a usual gap before is no silence. */
const STALE_GAPS = 3;
const GAP_MEMORY = 0.999;
/** A stream that was gone for so long is no longer part of the robot. */
const FORGET_MS = 600_000;
/** What a stale stream alone is worth: enough for an alarm, not for a high risk. */
const STALE_ANOMALY = 0.6;
/** Streams of orders, by their names: what comes back is compared with them. */
const COMMAND_NAME = /command|desired|target|setpoint|reference/i;
const COMPARED_FIELDS = ['position', 'velocity', 'effort'] as const;

interface Watched {
  readonly layout: StreamLayout;
  readonly isOrders: boolean;
  readonly analyser: StreamWatcher;
  finding: StreamFinding | undefined;
  lastMs: number;
  lastMonoMs: number;
  intervalMs: number;
  /** Longest gap of late; it fades with the samples that come. */
  gapMs: number;
  isReplayed: boolean;
  staleSinceMs: number;
}

/** Compares a stream of measurements with one of orders, joint by joint. */
interface Comparison {
  readonly orders: StreamLayout;
  /** Position in the orders' values, and in the measured sample's. */
  readonly pairs: readonly (readonly [number, number])[];
  readonly row: Float64Array;
  readonly watched: Watched;
}

/**
 * Watches a robot: each stream against what it normally is, orders against what came of them, and streams that fall
 * silent. Pure: time comes with the samples and with `tick`. The same on the robot and in the cloud.
 */
export class RobotAnalyser {
  readonly #settings: AnalyserSettings;
  readonly #known: RobotModel;
  readonly #watch: WatchStream;
  /** By stream and signals: a stream that changes its shape is another one. */
  readonly #streams = new Map<string, Watched>();
  readonly #layouts = new Map<string, StreamLayout>();
  #byLayout = new WeakMap<StreamLayout, Watched | null>();
  readonly #comparisons = new Map<string, Comparison | undefined>();
  readonly #orders = new Map<string, Sample>();
  #mayLearn = true;
  #alarmSinceMs: number | undefined;
  #raised: HealthVerdict | undefined;
  #updatedAtMs = 0;

  /** @param watch What looks at a stream; training looks in another way than watching. */
  constructor(settings: AnalyserSettings, known: RobotModel = new Map(), watch: WatchStream = analyse) {
    this.#settings = settings;
    this.#known = known;
    this.#watch = watch;
  }

  /** Whether what comes may be taken for normal: not while the robot is stopped by its failsafe. */
  set mayLearn(value: boolean) {
    this.#mayLearn = value;
  }

  /** Everything that is learnt so far. */
  model(): RobotModel {
    const models = [...this.#streams].flatMap(([key, { analyser }]): [string, StreamModel][] =>
      analyser.model ? [[key, analyser.model]] : [],
    );
    return new Map([...this.#known, ...models]);
  }

  /** Streams of `model()`, without making it. */
  get learntStreams(): number {
    let count = this.#known.size;
    for (const [key, { analyser }] of this.#streams) if (analyser.isLearnt && !this.#known.has(key)) count += 1;
    return count;
  }

  /** Memory that learning takes until it is done. [bytes] */
  get learningBytes(): number {
    let bytes = 0;
    for (const { analyser } of this.#streams.values()) bytes += analyser.learningBytes;
    return bytes;
  }

  /** Takes a sample of any stream. */
  observe(sample: Sample): void {
    const watched = this.#watchedOf(sample.layout);
    if (!watched) return;
    const hasStamp = this.#settings.time === 'stamp' && sample.stampNs >= STAMP_NS_MIN;
    const atMs = Number((hasStamp ? sample.stampNs : sample.receivedNs) / 1000n) / 1000;
    const isReplayed = (sample.flags & SAMPLE_FLAGS.replayed) !== 0;
    this.#take(watched, atMs, Number(sample.receivedMonoNs) / 1e6, sample.values, isReplayed);
    if (sample.layout.kind !== 'joint_state') return;
    if (watched.isOrders) {
      this.#orders.set(sample.layout.stream, sample);
      return;
    }
    const comparison = this.#comparisonFor(sample.layout);
    const orders = comparison && this.#orders.get(comparison.orders.stream);
    if (!comparison || !orders || !sameLayout(orders.layout, comparison.orders)) return;
    comparison.pairs.forEach(([ordered, measured], i) => {
      comparison.row[i] = (sample.values[measured] as number) - (orders.values[ordered] as number);
    });
    this.#take(comparison.watched, atMs, Number(sample.receivedMonoNs) / 1e6, comparison.row, isReplayed);
  }

  /** Takes the samples of a block. Its layout was decoded anew and is mostly that of the block before. */
  observeBlock(block: DecodedBlock): void {
    const before = this.#layouts.get(block.layout.stream);
    const layout = before && sameLayout(before, block.layout) ? before : block.layout;
    if (layout !== before) {
      // However many names a robot makes up, few are remembered.
      if (this.#layouts.size >= STREAMS_MAX) this.#layouts.clear();
      this.#layouts.set(layout.stream, layout);
    }
    const { cells, count } = block;
    const width = cells.length / count;
    // Orders are kept until the next ones come; nothing else outlasts its turn.
    const isKept = COMMAND_NAME.test(layout.stream);
    let values = new Float64Array(width);
    for (let row = 0; row < count; row += 1) {
      if (isKept && row > 0) values = new Float64Array(width);
      for (let column = 0; column < width; column += 1) values[column] = cells[column * count + row] as number;
      this.observe({
        layout,
        stampNs: block.stampNs[row] as bigint,
        receivedNs: block.receivedNs[row] as bigint,
        receivedMonoNs: block.receivedMonoNs[row] as bigint,
        flags: block.flags[row] as number,
        values,
      });
    }
  }

  /** Looks for streams that have fallen silent. Call it about once a second. */
  tick(nowMonoMs: number, nowMs: number): void {
    const newest = new Map<string, number>();
    for (const { layout, lastMonoMs } of this.#streams.values())
      newest.set(layout.stream, Math.max(lastMonoMs, newest.get(layout.stream) ?? 0));
    for (const [key, watched] of this.#streams) {
      const silentMs = nowMonoMs - (newest.get(watched.layout.stream) ?? 0);
      const isStale =
        !watched.isReplayed &&
        watched.intervalMs > 0 &&
        silentMs > Math.max(STALE_MIN_MS, STALE_INTERVALS * watched.intervalMs, STALE_GAPS * watched.gapMs);
      if (isStale && silentMs > FORGET_MS) this.#forget(key);
      else if (!isStale) watched.staleSinceMs = Number.NaN;
      else if (Number.isNaN(watched.staleSinceMs)) watched.staleSinceMs = nowMs - silentMs;
    }
    this.#judge(nowMs);
  }

  /** The verdict with which an alarm began, once. */
  takeRaised(): HealthVerdict | undefined {
    const raised = this.#raised;
    this.#raised = undefined;
    return raised;
  }

  /** What the analyser says now. */
  verdict(): HealthVerdict {
    const watched = [...this.#streams.values()];
    const learnt = watched.filter(({ analyser }) => analyser.isLearnt);
    const isLearning = learnt.length === 0;
    const stale = watched.filter(({ staleSinceMs }) => !Number.isNaN(staleSinceMs));
    const findings = learnt.flatMap(({ layout, finding }) => (finding ? [{ stream: layout.stream, finding }] : []));
    const anomaly = Math.max(
      0,
      ...findings.map(({ finding }) => finding.anomaly),
      ...(stale.length > 0 ? [STALE_ANOMALY] : []),
    );
    const suspects = [
      ...findings.flatMap(({ stream, finding }) =>
        finding.suspects.map((suspect) => ({ ...suspect, signal: `${stream}:${suspect.signal}` })),
      ),
      ...stale.map(({ layout, staleSinceMs }) => ({
        signal: `${layout.stream}:no samples`,
        score: STALE_ANOMALY,
        sinceMs: staleSinceMs,
      })),
    ];
    const cost = costOf(anomaly);
    return {
      state: isLearning ? 'learning' : 'watching',
      progress: isLearning ? Math.max(0, ...watched.map(({ analyser }) => analyser.progress)) : 1,
      anomalyScore: isLearning && stale.length === 0 ? null : anomaly,
      healthScore: 1 - cost,
      riskLevel: isLearning && stale.length === 0 ? 'unknown' : riskOf(anomaly, this.#alarmSinceMs !== undefined),
      signals: shared(suspects, cost),
      alarmSinceMs: this.#alarmSinceMs,
      updatedAtMs: this.#updatedAtMs,
      evidence: isLearning
        ? undefined
        : {
            normalHours: Math.min(...learnt.map(({ analyser }) => analyser.normalHours)),
            neededHours: hoursToShow(this.#settings.falseAlarmsPerHour),
          },
    };
  }

  #take(watched: Watched, atMs: number, monoMs: number, values: ArrayLike<number>, isReplayed: boolean): void {
    const stepMs = monoMs - watched.lastMonoMs;
    if (watched.lastMonoMs > 0) watched.gapMs = Math.max(GAP_MEMORY * watched.gapMs, stepMs);
    if (stepMs > 0 && watched.lastMonoMs > 0)
      watched.intervalMs += (stepMs - watched.intervalMs) / (watched.intervalMs === 0 ? 1 : 20);
    watched.lastMonoMs = monoMs;
    watched.lastMs = atMs;
    watched.isReplayed = isReplayed;
    watched.staleSinceMs = Number.NaN;
    if (atMs > this.#updatedAtMs) this.#updatedAtMs = atMs;
    const finding = watched.analyser.push(atMs, values, this.#mayLearn);
    if (!finding) return;
    watched.finding = finding;
    if (finding.change) this.#judge(atMs);
  }

  /** Raises and clears the robot's alarm: it stands while any stream's does. */
  #judge(nowMs: number): void {
    let isAlarm = false;
    for (const { finding, staleSinceMs } of this.#streams.values())
      isAlarm ||= finding?.isAlarm === true || !Number.isNaN(staleSinceMs);
    if (isAlarm && this.#alarmSinceMs === undefined) {
      this.#alarmSinceMs = nowMs;
      this.#raised = this.verdict();
    } else if (!isAlarm) this.#alarmSinceMs = undefined;
  }

  #watchedOf(layout: StreamLayout): Watched | undefined {
    const seen = this.#byLayout.get(layout);
    if (seen !== undefined) return seen ?? undefined;
    const signals = signalsOf(layout);
    const key = keyOf(layout.stream, signals.names);
    let watched = this.#streams.get(key);
    if (!watched && signals.names.length > 0 && this.#streams.size < STREAMS_MAX) {
      watched = this.#open(layout, key, signals);
      this.#comparisons.clear();
    }
    this.#byLayout.set(layout, watched ?? null);
    return watched;
  }

  #open(layout: StreamLayout, key: string, signals: Signals): Watched {
    // Alarms of all streams add up, so each gets its part of what the robot may raise.
    const settings = { ...this.#settings, falseAlarmsPerHour: this.#settings.falseAlarmsPerHour / EXPECTED_STREAMS };
    const watched: Watched = {
      layout,
      isOrders: COMMAND_NAME.test(layout.stream),
      analyser: this.#watch(key, signals, settings, this.#known.get(key)),
      finding: undefined,
      lastMs: 0,
      lastMonoMs: 0,
      intervalMs: 0,
      gapMs: 0,
      isReplayed: false,
      staleSinceMs: Number.NaN,
    };
    this.#streams.set(key, watched);
    return watched;
  }

  #forget(key: string): void {
    this.#streams.delete(key);
    this.#layouts.clear();
    this.#byLayout = new WeakMap();
    this.#comparisons.clear();
  }

  #comparisonFor(measured: StreamLayout): Comparison | undefined {
    if (this.#orders.size === 0) return undefined;
    if (this.#comparisons.has(measured.stream)) return this.#comparisons.get(measured.stream);
    const found = [...this.#orders.values()].map(({ layout }) => pairsOf(layout, measured)).find(Boolean);
    const comparison = found && this.#compare(measured, found);
    this.#comparisons.set(measured.stream, comparison);
    return comparison;
  }

  #compare(measured: StreamLayout, { orders, names, pairs }: Pairs): Comparison | undefined {
    const stream = `${measured.stream} less ${orders.stream}`;
    const key = keyOf(stream, names);
    const layout: StreamLayout = { ...measured, stream, names, fields: [] };
    const signals = { names, indices: Int32Array.from(names, (_, i) => i) };
    const watched = this.#streams.get(key) ?? this.#open(layout, key, signals);
    return { orders, pairs, row: new Float64Array(names.length), watched };
  }
}

/** Robots have a few streams; what one may raise must not fall when another joins later. */
const EXPECTED_STREAMS = 4;

const keyOf = (stream: string, signals: readonly string[]): string => `${stream}\n${signals.join(',')}`;

/** The stream of a model's key. */
export const streamOf = (key: string): string => key.slice(0, key.indexOf('\n'));

interface Pairs {
  readonly orders: StreamLayout;
  readonly names: readonly string[];
  readonly pairs: readonly (readonly [number, number])[];
}

/** What both streams say of the same joints; `undefined` when there is no such joint. */
function pairsOf(orders: StreamLayout, measured: StreamLayout): Pairs | undefined {
  const names: string[] = [];
  const pairs: [number, number][] = [];
  measured.names.forEach((joint, i) => {
    const j = orders.names.indexOf(joint);
    if (j < 0) return;
    for (const field of COMPARED_FIELDS) {
      const from = fieldRange(orders, field);
      const to = fieldRange(measured, field);
      if (!from || !to || j >= from.width || i >= to.width) continue;
      names.push(`${joint}.${field} error`);
      pairs.push([from.start + j, to.start + i]);
    }
  });
  const kept = Math.min(pairs.length, SIGNALS_MAX);
  return kept > 0 ? { orders, names: names.slice(0, kept), pairs: pairs.slice(0, kept) } : undefined;
}

/** Shares the cost among the worst signals by how odd each is. */
function shared(
  suspects: readonly { readonly signal: string; readonly score: number; readonly sinceMs: number }[],
  cost: number,
): SignalCost[] {
  const worst = suspects.toSorted((a, b) => b.score - a.score).slice(0, SIGNALS_SHOWN_MAX);
  const sum = worst.reduce((total, { score }) => total + score * score, 0);
  return worst.map(({ signal, score, sinceMs }) => ({ signal, score, sinceMs, cost: (cost * score * score) / sum }));
}
