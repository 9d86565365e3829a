import {
  analyser,
  analyserWithLabels,
  fixedLimits,
  type LabelledWindow,
  type Learning,
  type Method,
  robustZ,
  scored,
  windowsOf,
} from './methods.ts';
import { type Alarms, alarmsOf, areaUnderRoc } from './metrics.ts';
import type { Task } from './tasks.ts';

/** What one method did with one task. */
export interface Result extends Alarms {
  readonly method: string;
  /** NaN where the test data has no faults. */
  readonly auroc: number;
}

export interface Evaluation {
  readonly task: Task;
  /** Windows learnt from, for the level, judged. */
  readonly counts: readonly [number, number, number];
  readonly windowMs: number;
  readonly results: readonly Result[];
}

/** Lets every method learn, calibrate and judge, each on the same parts. */
export function evaluate(task: Task): Evaluation {
  const cut = (recordings: Task['fit']): LabelledWindow[][] =>
    recordings.map((recording) => windowsOf(recording, task.windows)).filter((windows) => windows.length > 0);
  const fit = cut(task.fit);
  const calibrate = cut(task.calibrate);
  const test = cut(task.test);
  const longest = fit.reduce((a, b) => (a.length >= b.length ? a : b), [] as LabelledWindow[]);
  const windowMs =
    longest.length > 1
      ? ((longest.at(-1)?.atMs ?? 0) - (longest[0]?.atMs ?? 0)) / (longest.length - 1)
      : task.windows.hopMs * task.windows.hops;
  const learning: Learning = {
    signals: task.fit[0]?.signals ?? [],
    windowMs,
    perHour: task.perHour,
    fit,
    calibrate,
    labelled: cut(task.labelled),
  };
  const methods: Method[] = [fixedLimits, robustZ, analyser, ...(task.labelled.length > 0 ? [analyserWithLabels] : [])];
  const results = methods.map((method): Result => {
    const { rule, score } = method.learn(learning);
    const parts = test.map((windows) => scored(windows, score(windows)));
    return { method: method.name, auroc: areaUnderRoc(parts), ...alarmsOf(parts, rule, windowMs) };
  });
  return { task, counts: [fit.flat().length, calibrate.flat().length, test.flat().length], windowMs, results };
}
