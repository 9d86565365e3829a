/** Consecutive samples of one machine. */
export interface Recording {
  readonly name: string;
  readonly signals: readonly string[];
  /** [ms] */
  readonly timesMs: readonly number[];
  readonly rows: readonly Float64Array[];
  /** What the labels say of each sample. */
  readonly isFault: readonly boolean[];
}

/** A part of a recording by position, the end excluded. */
export function slice(recording: Recording, from: number, to: number): Recording {
  return {
    ...recording,
    timesMs: recording.timesMs.slice(from, to),
    rows: recording.rows.slice(from, to),
    isFault: recording.isFault.slice(from, to),
  };
}

/** A part by share of its length. */
export const part = (recording: Recording, from: number, to: number): Recording =>
  slice(recording, Math.floor(from * recording.rows.length), Math.floor(to * recording.rows.length));

/** Cuts where the data pauses and, when only normal data is wanted, where a fault is. */
export function runs(recording: Recording, gapMs: number, normalOnly: boolean): Recording[] {
  const found: Recording[] = [];
  let start = 0;
  const close = (end: number): void => {
    if (end > start) found.push(slice(recording, start, end));
  };
  for (let i = 0; i < recording.rows.length; i += 1) {
    const step = i === 0 ? 0 : (recording.timesMs[i] as number) - (recording.timesMs[i - 1] as number);
    if (step > gapMs || step < 0) {
      close(i);
      start = i;
    }
    if (normalOnly && recording.isFault[i]) {
      close(i);
      start = i + 1;
    }
  }
  close(recording.rows.length);
  return found;
}
