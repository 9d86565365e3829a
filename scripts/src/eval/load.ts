import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Recording } from './recording.ts';

/** Reads a table of text. Empty and unreadable cells become NaN; the header's names are trimmed. */
function table(path: string, separator: string): { names: string[]; lines: string[][] } {
  const [head = '', ...body] = readFileSync(path, 'utf8')
    .replace(/^\uFEFF/, '')
    .split(/\r\n|\n|\r/);
  return {
    names: head.split(separator).map((name) => name.trim()),
    lines: body.filter((line) => line.trim() !== '').map((line) => line.split(separator)),
  };
}

const numberOf = (text: string | undefined): number =>
  text === undefined || text.trim() === '' ? Number.NaN : Number(text.trim().replace(',', '.'));

interface TableOptions {
  readonly separator?: string;
  readonly signals: (names: readonly string[]) => readonly string[];
  /** Time of a line. [ms] */
  readonly timeMs: (cell: (name: string) => string, index: number) => number;
  readonly isFault?: (cell: (name: string) => string, index: number) => boolean;
}

function readTable(dir: string, file: string, options: TableOptions): Recording {
  const { names, lines } = table(join(dir, file), options.separator ?? ',');
  const column = new Map(names.map((name, index) => [name, index]));
  const signals = options.signals(names);
  const cellOf =
    (line: string[]) =>
    (name: string): string =>
      line[column.get(name) ?? -1] ?? '';
  return {
    name: file,
    signals,
    timesMs: lines.map((line, index) => options.timeMs(cellOf(line), index)),
    rows: lines.map((line) => Float64Array.from(signals, (signal) => numberOf(cellOf(line)(signal)))),
    isFault: lines.map((line, index) => options.isFault?.(cellOf(line), index) ?? false),
  };
}

const utcMs = (text: string): number => Date.parse(`${text.trim().slice(0, 19).replace(' ', 'T')}Z`);

/** Files of a folder that match, in the order of their names; none when the folder is not there. */
export const filesOf = (dir: string, pattern: RegExp): string[] =>
  existsSync(dir)
    ? readdirSync(dir)
        .filter((file) => pattern.test(file))
        .sort()
    : [];

/** UR3 cobot, 1 Hz: currents, temperatures, speeds; protective stops and lost grips are labelled. */
export const readCobot = (dir: string, file: string, label: 'Robot_ProtectiveStop' | 'grip_lost'): Recording =>
  readTable(dir, file, {
    separator: ';',
    signals: (names) => names.filter((name) => /^(Current|Temperature|Speed)_|^Tool_current$/.test(name)),
    timeMs: (cell) => Date.parse(cell('Timestamp').replaceAll('"', '')),
    isFault: (cell) => cell(label) === 'True',
  });

/** Water circulation rig with a valve that closes, 1 Hz. */
export const readSkab = (dir: string, file: string): Recording =>
  readTable(dir, file, {
    separator: ';',
    signals: (names) => names.filter((name) => !['datetime', 'anomaly', 'changepoint'].includes(name)),
    timeMs: (cell) => utcMs(cell('datetime')),
    isFault: (cell) => Number(cell('anomaly')) === 1,
  });

/** Temperature of a large machine, every 5 minutes; windows around failures are labelled. */
export function readNab(dir: string, file: string): Recording {
  const windows = JSON.parse(readFileSync(join(dir, 'nab_windows.json'), 'utf8')) as Record<string, [string, string][]>;
  const key = Object.keys(windows).find((name) => name.endsWith(file.replace(/^nab_/, ''))) ?? '';
  const spans = (windows[key] ?? []).map(([from, to]) => [utcMs(from), utcMs(to)] as const);
  return readTable(dir, file, {
    signals: () => ['value'],
    timeMs: (cell) => utcMs(cell('timestamp')),
    isFault: (cell) => {
      const at = utcMs(cell('timestamp'));
      return spans.some(([from, to]) => at >= from && at <= to);
    },
  });
}

const UCI_SIGNALS = ['Fx', 'Fy', 'Fz', 'Tx', 'Ty', 'Tz'];
const UCI_STEP_MS = 21;

/** Forces and torques after a robot's motion, 15 samples an instance; the first line says what happened. */
export function readUci(dir: string, file: string): Recording[] {
  const instances: Recording[] = [];
  const blocks = readFileSync(join(dir, file), 'utf8').split(/\r?\n\s*\r?\n/);
  for (const block of blocks) {
    const [label = '', ...lines] = block.split(/\r?\n/).filter((line) => line.trim() !== '');
    const rows = lines
      .map((line) => Float64Array.from(line.trim().split(/\s+/), Number))
      .filter((row) => row.length === 6);
    if (rows.length === 0) continue;
    instances.push({
      name: `${file} ${label.trim()}`,
      signals: UCI_SIGNALS,
      timesMs: rows.map((_, i) => i * UCI_STEP_MS),
      rows,
      isFault: rows.map(() => !/^(normal|ok)$/.test(label.trim())),
    });
  }
  return instances;
}

/** Desired and measured course of a real pendulum actuator, side by side. */
export function readPendulum(dir: string, method: string): Recording {
  const read = (which: string): Recording =>
    readTable(dir, `dfki_pendulum_control_method_${method}_data_${which}.csv`, {
      signals: () => ['position', 'velocity', 'torque'],
      timeMs: (cell) => Number(cell('time')) * 1000,
    });
  const desired = read('desired');
  const measured = read('measured');
  return {
    ...measured,
    signals: [...measured.signals, ...desired.signals.map((name) => `desired_${name}`)],
    rows: measured.rows.map((row, i) => Float64Array.from([...row, ...(desired.rows[i] ?? [NaN, NaN, NaN])])),
  };
}

/** Six-axis arm, normal operation; no times in the file, so the samples get 25 a second. */
export const readMh5 = (dir: string, file: string): Recording => {
  const lines = readFileSync(join(dir, file), 'utf8')
    .split(/\r?\n/)
    .filter((line) => line !== '');
  const rows = lines.map((line) => Float64Array.from(line.split(','), Number));
  const signals = Array.from({ length: (rows[0]?.length ?? 1) - 1 }, (_, i) => `joint_${i + 1}`);
  return {
    name: file,
    signals,
    timesMs: rows.map((_, i) => i * 40),
    rows: rows.map((row) => row.subarray(0, signals.length)),
    isFault: rows.map(() => false),
  };
};

/** Discharges of a lithium cell, one after another. */
export const readNasa = (dir: string, file: string): Recording =>
  readTable(dir, file, {
    signals: () => ['discharge_index', 'capacity_ah', 't_s', 'voltage_v', 'current_a', 'temperature_c'],
    timeMs: (cell) => Number(cell('t_s')) * 1000,
  });

/** A small quadrotor's position estimate and battery in flight; the file has no times, so the samples get 10 a second. */
export const readCrazyflie = (dir: string, file: string): Recording =>
  readTable(dir, file, {
    signals: (names) => names.filter((name) => name !== ''),
    timeMs: (_, index) => index * 100,
  });
