/** One line of the table. */
export interface LoadRow {
  readonly what: string;
  readonly goal: string;
  readonly measured: string;
  /** `undefined`: there is no goal, the figure is for the reader. */
  readonly met: boolean | undefined;
}

export interface LoadOptions {
  readonly robots: number;
  readonly rateHz: number;
  readonly joints: number;
  readonly minutes: number;
  /** Everything once and for a moment: to see that the tool works, not what the machine can do. */
  readonly isShort: boolean;
  /** Folder for profiles of the control plane; absent: none are written. */
  readonly profileDir?: string;
}

export interface SectionContext {
  readonly options: LoadOptions;
  readonly say: (line: string) => void;
  /** Adds a line to the table; what a section has added stays, also when it fails later. */
  readonly row: (row: LoadRow) => void;
  /** Run in reverse order when the section is over, however it ended. */
  readonly defer: (close: () => Promise<unknown>) => void;
}

/** A part of the load run that can be asked for alone. */
export interface Section {
  readonly name: string;
  readonly about: string;
  timeoutMs(options: LoadOptions): number;
  run(context: SectionContext): Promise<void>;
}

export const ms = (value: number): string =>
  Number.isNaN(value) ? '–' : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const count = (value: number): string => Math.round(value).toLocaleString('en-US');
export const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
