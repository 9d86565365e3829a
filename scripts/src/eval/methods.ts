import { type AlarmBasis, alarmBasis } from '@outrider/shared/health/alarm-level';
import { calibrate } from '@outrider/shared/health/calibrate';
import type { Scored } from '@outrider/shared/health/judging';
import { quantileOfSorted, robustScale, sortedFinite } from '@outrider/shared/health/statistics';
import { finish, fitShape, type StreamModel } from '@outrider/shared/health/stream-model';
import { StreamScorer } from '@outrider/shared/health/stream-scorer';
import { trainClassifier } from '@outrider/shared/health/supervised';
import { SignalWindows, type WindowOptions } from '@outrider/shared/health/windows';
import type { Recording } from './recording.ts';

/** One window: its features, the samples of its newest hop, and what the labels say of those. */
export interface LabelledWindow {
  readonly features: Float64Array;
  readonly rows: readonly Float64Array[];
  readonly atMs: number;
  readonly isFault: boolean;
}

/** Cuts a recording into windows as the analyser does. */
export function windowsOf(recording: Recording, options: WindowOptions): LabelledWindow[] {
  const windows = new SignalWindows(recording.signals.length, options);
  const indices = recording.signals.map((_, i) => i);
  const found: LabelledWindow[] = [];
  let rows: Float64Array[] = [];
  let isFault = false;
  let hopStartMs = Number.NaN;
  const take = (features: Float64Array | undefined, atMs: number): void => {
    if (features) found.push({ features, rows, atMs, isFault });
  };
  recording.rows.forEach((row, i) => {
    const atMs = recording.timesMs[i] as number;
    const features = windows.push(atMs, row, indices);
    if (Number.isNaN(hopStartMs)) hopStartMs = atMs;
    if (atMs - hopStartMs >= options.hopMs) {
      take(features, atMs);
      rows = [];
      isFault = false;
      hopStartMs = atMs;
    }
    rows.push(row);
    isFault ||= recording.isFault[i] === true;
  });
  const endMs = (recording.timesMs.at(-1) ?? 0) + options.hopMs;
  take(windows.flush(endMs), endMs);
  return found;
}

/** Something that learns from normal windows and then scores others. */
export interface Method {
  readonly name: string;
  learn(parts: Learning): { readonly basis: AlarmBasis; score(windows: readonly LabelledWindow[]): number[] };
}

export interface Learning {
  readonly signals: readonly string[];
  readonly windowMs: number;
  readonly perHour: number;
  readonly fit: readonly (readonly LabelledWindow[])[];
  readonly calibrate: readonly (readonly LabelledWindow[])[];
  /** Windows with faults among them, for those who learn from labels. */
  readonly labelled: readonly (readonly LabelledWindow[])[];
}

const scoredBy = (
  learning: Learning,
  score: (windows: readonly LabelledWindow[]) => number[],
): { basis: AlarmBasis; score(windows: readonly LabelledWindow[]): number[] } => ({
  basis: alarmBasis(learning.calibrate.flatMap(score), learning.windowMs, learning.perHour),
  score,
});

/** Limits at what was ever measured on normal data; beyond, how far in shares of the range. */
export const fixedLimits: Method = {
  name: 'fixed limits',
  learn(learning) {
    const rows = learning.fit.flat().flatMap((window) => window.rows);
    const limits = learning.signals.map((_, i) => {
      const sorted = sortedFinite(rows.map((row) => row[i] as number));
      return { low: quantileOfSorted(sorted, 0), high: quantileOfSorted(sorted, 1) };
    });
    const beyond = (row: Float64Array): number =>
      Math.max(
        ...limits.map(({ low, high }, i) => {
          const value = row[i] as number;
          return Number.isNaN(value) ? -1 : Math.max(value - high, low - value) / Math.max(high - low, 1e-9);
        }),
      );
    return scoredBy(learning, (windows) => windows.map((window) => Math.max(...window.rows.map(beyond))));
  },
};

/** The largest robust z-score of any signal. */
export const robustZ: Method = {
  name: 'robust z-score',
  learn(learning) {
    const rows = learning.fit.flat().flatMap((window) => window.rows);
    const scales = learning.signals.map((_, i) => robustScale(rows.map((row) => row[i] as number)));
    const distance = (row: Float64Array): number =>
      Math.max(
        ...scales.map(({ center, scale: width }, i) => {
          const value = row[i] as number;
          return Number.isNaN(value) ? 0 : Math.abs(value - center) / width;
        }),
      );
    return scoredBy(learning, (windows) => windows.map((window) => Math.max(...window.rows.map(distance))));
  },
};

/** What runs on the robot. */
export const analyser: Method = { name: 'analyser', learn: (learning) => learned(learning, false) };

/** What runs on the robot, with a classifier learnt from labels. */
export const analyserWithLabels: Method = { name: 'analyser + labels', learn: (learning) => learned(learning, true) };

function learned(learning: Learning, withLabels: boolean): ReturnType<Method['learn']> {
  const fit = learning.fit.flat().map((window) => window.features);
  const heldOut = learning.calibrate.flat().map((window) => window.features);
  const shape = finish(fitShape(learning.signals, fit, learning.windowMs, heldOut));
  const labelled = learning.labelled.flat();
  const classifier = withLabels
    ? trainClassifier(
        shape,
        labelled.map((window) => window.features),
        labelled.map((window) => window.isFault),
      )
    : undefined;
  const model: StreamModel = finish(calibrate(shape, heldOut, learning.perHour, classifier));
  return {
    basis: model.alarm,
    score: (windows) => {
      const scorer = new StreamScorer(model, model.classifier);
      return windows.map((window) => scorer.combine(scorer.look(window.features), model.tails));
    },
  };
}

/** Scores a part of a recording. */
export const scored = (windows: readonly LabelledWindow[], scores: readonly number[]): Scored => ({
  scores,
  isFault: windows.map((window) => window.isFault),
  timesMs: windows.map((window) => window.atMs),
});
