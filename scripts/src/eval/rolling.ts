import { AlarmLevel } from '@outrider/shared/health/alarm-level';
import { calibrate } from '@outrider/shared/health/calibrate';
import { finish, fitShape } from '@outrider/shared/health/stream-model';
import { StreamScorer } from '@outrider/shared/health/stream-scorer';
import { type LabelledWindow, windowsOf } from './methods.ts';
import type { Task } from './tasks.ts';

/** How the setting holds on the normal windows of one task, learnt from and judged at many places. */
export interface Holding {
  readonly name: string;
  readonly isChosenOn: boolean;
  readonly splits: number;
  readonly alarms: number;
  /** What the setting allows. */
  readonly expected: number;
  /** Of the normal time, how much an alarm stood. */
  readonly alarmShare: number;
}

/** Splits of these shares of the data, a quarter of their length apart. */
const SHARES = [1, 0.6, 0.35];
/** Of a split: learnt from, then for the level; the rest is judged. */
const [FIT, LEVEL] = [0.35, 0.65];
const WINDOWS_MIN = 150;
/** The calibration of the alarm level was worked out on these. The others were only looked at with it finished. */
const CHOSEN_ON = /protective stop|valve1_0|valve1_1|^MH5 \(|B0028|path_1,/;

/** Learns and judges normal data of each task at many places, at the rate that one alarm in what sets the level is. */
export function rolling(tasks: readonly Task[]): Holding[] {
  return tasks
    .filter(({ name, labelled }) => !/^MH5, injected/.test(name) && (labelled.length === 0 || /protective/.test(name)))
    .flatMap((task) => {
      const holding = holdingOf(task);
      return holding.splits > 0 ? [holding] : [];
    });
}

function holdingOf(task: Task): Holding {
  const injected = /injected/.test(task.name);
  const recordings = [...task.fit, ...task.calibrate, ...(injected ? [] : task.test)];
  const windows = recordings
    .flatMap((recording) => windowsOf(recording, task.windows))
    .filter(({ isFault }) => !isFault);
  const counts = { splits: 0, alarms: 0, expected: 0, alarmWindows: 0, judged: 0 };
  for (const share of SHARES) {
    const length = Math.floor(share * windows.length);
    if (length < WINDOWS_MIN) continue;
    for (let from = 0; from + length <= windows.length; from += Math.floor(length / 4)) {
      const split = windows.slice(from, from + length);
      const { alarms, expected, alarmWindows, judged } = judge(task, split);
      counts.splits += 1;
      counts.alarms += alarms;
      counts.expected += expected;
      counts.alarmWindows += alarmWindows;
      counts.judged += judged;
    }
  }
  const { splits, alarms, expected, alarmWindows, judged } = counts;
  const alarmShare = alarmWindows / Math.max(1, judged);
  return { name: task.name, isChosenOn: CHOSEN_ON.test(task.name), splits, alarms, expected, alarmShare };
}

function judge(
  task: Task,
  split: readonly LabelledWindow[],
): Record<'alarms' | 'expected' | 'alarmWindows' | 'judged', number> {
  const features = split.map((window) => window.features);
  const [fitTo, levelTo] = [Math.floor(FIT * split.length), Math.floor(LEVEL * split.length)];
  const level = features.slice(fitTo, levelTo);
  const windowMs = windowMsOf(task);
  const shape = finish(fitShape(task.fit[0]?.signals ?? [], features.slice(0, fitTo), windowMs, level));
  const perHour = 3_600_000 / (level.length * windowMs);
  const model = finish(calibrate(shape, level, perHour));
  const scorer = new StreamScorer(model, undefined);
  for (const window of level) scorer.look(window);
  const alarm = new AlarmLevel(model.alarm, windowMs, perHour);
  const judged = features.slice(levelTo);
  let alarms = 0;
  let alarmWindows = 0;
  for (const window of judged) {
    if (alarm.observe(scorer.combine(scorer.look(window), model.tails)) === 'raised') alarms += 1;
    if (alarm.isActive) alarmWindows += 1;
  }
  return { alarms, expected: judged.length / level.length, alarmWindows, judged: judged.length };
}

/** Time between windows, by the longest recording. */
function windowMsOf(task: Task): number {
  const windows = task.fit
    .map((recording) => windowsOf(recording, task.windows))
    .reduce((a, b) => (a.length >= b.length ? a : b), []);
  return ((windows.at(-1)?.atMs ?? 0) - (windows[0]?.atMs ?? 0)) / Math.max(1, windows.length - 1);
}
