import { type AlarmBasis, AlarmLevel } from './alarm-level.ts';

/** Scores of consecutive windows with what the labels say of them. */
export interface Scored {
  readonly scores: readonly number[];
  readonly isFault: readonly boolean[];
  readonly timesMs: readonly number[];
}

/** Chance that a faulty window scores higher than a normal one. 0.5 is guessing; NaN when one of the kinds is missing. */
export function areaUnderRoc(parts: readonly Scored[]): number {
  const all = parts.flatMap(({ scores, isFault }) =>
    scores.map((score, i) => ({ score, isFault: isFault[i] === true })),
  );
  all.sort((a, b) => a.score - b.score);
  const faults = all.filter((entry) => entry.isFault).length;
  const normals = all.length - faults;
  let ranks = 0;
  for (let i = 0; i < all.length; ) {
    let j = i;
    while (j < all.length && (all[j] as { score: number }).score === (all[i] as { score: number }).score) j += 1;
    const rank = (i + 1 + j) / 2;
    for (let k = i; k < j; k += 1) if (all[k]?.isFault) ranks += rank;
    i = j;
  }
  return faults === 0 || normals === 0 ? Number.NaN : (ranks - (faults * (faults + 1)) / 2) / (faults * normals);
}

/** What an alarm rule does with scores. */
export interface Alarms {
  readonly precision: number;
  readonly recall: number;
  readonly f1: number;
  /** Alarms that began in normal data, and the hours of it. */
  readonly falseAlarms: number;
  readonly normalHours: number;
  /** Of the normal time, how much an alarm stood. */
  readonly alarmShare: number;
  readonly episodes: number;
  readonly detected: number;
  /** Median over the detected episodes, from their first labelled window. [ms] */
  readonly delayMs: number;
}

/** Follows the scores as the agent would: what one part teaches of the level, the next one knows. */
export function alarmsOf(parts: readonly Scored[], basis: AlarmBasis, windowMs: number, perHour: number): Alarms {
  let hits = 0;
  let misses = 0;
  let falses = 0;
  let normals = 0;
  let falseAlarms = 0;
  let episodes = 0;
  const delays: number[] = [];
  let known = basis;
  for (const { scores, isFault, timesMs } of parts) {
    const alarm = new AlarmLevel(known, windowMs, perHour);
    let startMs = Number.NaN;
    let isFound = false;
    scores.forEach((score, i) => {
      const change = alarm.observe(score);
      const fault = isFault[i] === true;
      if (fault && Number.isNaN(startMs)) {
        startMs = timesMs[i] as number;
        isFound = false;
        episodes += 1;
      }
      if (!fault) startMs = Number.NaN;
      if (fault && alarm.isActive && !isFound) {
        isFound = true;
        delays.push((timesMs[i] as number) - startMs);
      }
      if (fault && alarm.isActive) hits += 1;
      else if (fault) misses += 1;
      else if (alarm.isActive) falses += 1;
      if (!fault) normals += 1;
      if (!fault && change === 'raised') falseAlarms += 1;
    });
    known = alarm.basis;
  }
  delays.sort((a, b) => a - b);
  const precision = hits / Math.max(1, hits + falses);
  const recall = hits / Math.max(1, hits + misses);
  return {
    precision,
    recall,
    f1: precision + recall === 0 ? 0 : (2 * precision * recall) / (precision + recall),
    falseAlarms,
    alarmShare: falses / Math.max(1, normals),
    normalHours: (normals * windowMs) / 3_600_000,
    episodes,
    detected: delays.length,
    delayMs: delays.length === 0 ? Number.NaN : (delays[delays.length >> 1] as number),
  };
}

/** The F1 of single windows at the level that is best in hindsight: what ranking alone leaves room for. */
export function bestF1(parts: readonly Scored[]): number {
  const all = parts.flatMap(({ scores, isFault }) =>
    scores.map((score, i) => ({ score, isFault: isFault[i] === true })),
  );
  all.sort((a, b) => b.score - a.score);
  const faults = all.filter((entry) => entry.isFault).length;
  let best = faults === 0 ? Number.NaN : 0;
  let hits = 0;
  all.forEach(({ score, isFault }, i) => {
    if (isFault) hits += 1;
    if (score !== all[i + 1]?.score) best = Math.max(best, (2 * hits) / (i + 1 + faults));
  });
  return best;
}

/** Chance of so many events or more where `expected` are expected. */
export function chanceOfMore(count: number, expected: number): number {
  let term = Math.exp(-expected);
  let below = 0;
  for (let k = 0; k < count; k += 1) {
    below += term;
    term *= expected / (k + 1);
  }
  return Math.max(0, 1 - below);
}
