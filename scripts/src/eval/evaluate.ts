import { type Alarms, alarmsOf, areaUnderRoc, bestF1 } from '@outrider/shared/health/judging';
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
import type { Task } from './tasks.ts';

/** What one method did with one task. */
export interface Result extends Alarms {
  readonly method: string;
  /** NaN where the test data has no faults. */
  readonly auroc: number;
  /** At the level that is best in hindsight. */
  readonly f1Best: number;
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
    const { basis, score } = method.learn(learning);
    const parts = test.map((windows) => scored(windows, score(windows)));
    const alarms = alarmsOf(parts, basis, windowMs, task.perHour);
    return { method: method.name, auroc: areaUnderRoc(parts), f1Best: bestF1(parts), ...alarms };
  });
  return { task, counts: [fit.flat().length, calibrate.flat().length, test.flat().length], windowMs, results };
}
