import type { Recording } from './recording.ts';

/** Faults that are put into real normal data where no labelled ones exist. Said so wherever they are used. */
const INJECTED = {
  /** The reading stays what it was. */
  stuck: (values: Float64Array, signal: number, _spread: number, first: number) => {
    values[signal] = first;
  },
  /** The reading is off by half of its spread. */
  offset: (values: Float64Array, signal: number, spread: number) => {
    values[signal] = (values[signal] as number) + 0.5 * spread;
  },
  /** Only 70 % of the motion is left. */
  weak: (values: Float64Array, signal: number) => {
    values[signal] = 0.7 * (values[signal] as number);
  },
} as const;
type Injected = keyof typeof INJECTED;

interface Injection {
  readonly kind: Injected;
  readonly signal: number;
  /** Where, as shares of the recording. */
  readonly from: number;
  readonly to: number;
}

/** A recording with faults in it, labelled. */
export function inject(recording: Recording, injections: readonly Injection[]): Recording {
  const rows = recording.rows.map((row) => Float64Array.from(row));
  const isFault = [...recording.isFault];
  for (const { kind, signal, from, to } of injections) {
    const column = recording.rows.map((row) => row[signal] as number).filter(Number.isFinite);
    const mean = column.reduce((sum, value) => sum + value, 0) / Math.max(1, column.length);
    const spread = Math.sqrt(column.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, column.length));
    const start = Math.floor(from * rows.length);
    const first = recording.rows[start]?.[signal] ?? 0;
    for (let i = start; i < Math.floor(to * rows.length); i += 1) {
      INJECTED[kind](rows[i] as Float64Array, signal, spread, first);
      isFault[i] = true;
    }
  }
  return { ...recording, rows, isFault };
}
