import { join } from 'node:path';
import type { WindowOptions } from '@outrider/shared/health/windows';
import { inject } from './inject.ts';
import {
  filesOf,
  readCobot,
  readCrazyflie,
  readMh5,
  readNab,
  readNasa,
  readPendulum,
  readSkab,
  readUci,
} from './load.ts';
import { part, type Recording, runs, slice } from './recording.ts';

/** One question: learn here, set the alarm level there, and find the faults somewhere later. */
export interface Task {
  readonly name: string;
  /** What was learnt from, what the level was set on, what was judged. */
  readonly split: string;
  readonly windows: WindowOptions;
  /** False alarms that are allowed on normal data. */
  readonly perHour: number;
  readonly fit: readonly Recording[];
  readonly calibrate: readonly Recording[];
  /** What a classifier learns from; empty where there are no labels to learn from. */
  readonly labelled: readonly Recording[];
  readonly test: readonly Recording[];
}

const MAX_GAP_MS = 30_000;
/** A hop a sample at about 1 Hz. */
const ONE_HZ: WindowOptions = { hopMs: 900, hops: 10 };
/** A signal that is compared at one sample a step, whatever its time. */
const STEP_MS = 1000;
const EACH_STEP: WindowOptions = { hopMs: 900, hops: 10 };

/** A data set that the evaluation knows, and how it becomes tasks. */
interface DataSet {
  readonly name: string;
  readonly folder: 'fault' | 'battery';
  readonly files: RegExp;
  readonly tasks: (dir: string, files: readonly string[]) => Task[];
}

const each =
  (make: (dir: string, file: string) => Task | Task[]) =>
  (dir: string, files: readonly string[]): Task[] =>
    files.flatMap((file) => make(dir, file));

const DATA_SETS: readonly DataSet[] = [
  { name: 'UR3 CobotOps', folder: 'fault', files: /^ur3_cobotops.*\.csv$/, tasks: cobotTasks },
  { name: 'SKAB valve', folder: 'fault', files: /^skab_(valve|other).*\.csv$/, tasks: each(skabTask) },
  { name: 'SKAB anomaly-free', folder: 'fault', files: /^skab_anomaly-free.*\.csv$/, tasks: each(skabNormalTask) },
  { name: 'NAB machine temperature', folder: 'fault', files: /^nab_.*\.csv$/, tasks: each(nabTask) },
  { name: 'UCI robot failures', folder: 'fault', files: /^uci_robot_failures_lp\d\.data$/, tasks: each(uciTask) },
  { name: 'MH5', folder: 'fault', files: /^mh5_normal.*\.csv$/, tasks: each(mh5Tasks) },
  { name: 'DFKI pendulum', folder: 'fault', files: /^dfki_.*ddp_data_measured\.csv$/, tasks: each(pendulumTask) },
  { name: 'NASA battery', folder: 'battery', files: /^nasa_.*\.csv$/, tasks: each(nasaTask) },
  { name: 'Crazyflie', folder: 'battery', files: /^crazyflie_.*\.csv$/, tasks: each(crazyflieTask) },
];

/** All tasks that the data allows, and the names of the data sets that are not there. */
export function allTasks(dataDir: string): { readonly tasks: readonly Task[]; readonly missing: readonly string[] } {
  const tasks: Task[] = [];
  const missing: string[] = [];
  for (const set of DATA_SETS) {
    const dir = join(dataDir, set.folder);
    const files = filesOf(dir, set.files);
    if (files.length === 0) missing.push(set.name);
    else tasks.push(...set.tasks(dir, files));
  }
  return { tasks, missing };
}

function cobotTasks(dir: string, files: readonly string[]): Task[] {
  return (['Robot_ProtectiveStop', 'grip_lost'] as const).map((label) => {
    const [first, ...later] = files.map((file) => readCobot(dir, file, label)) as [Recording, ...Recording[]];
    // With a later session, the first one teaches and the later ones are judged.
    const [fitTo, calibrateTo] = later.length > 0 ? [0.7, 1] : [0.45, 0.65];
    const test = later.length > 0 ? later : [part(first, calibrateTo, 1)];
    return {
      name: `UR3 CobotOps, ${label === 'grip_lost' ? 'grip lost' : 'protective stop'}`,
      split: later.length > 0 ? 'session 1: 70/30 %, later sessions judged' : 'in time: 45/20/35 %',
      windows: ONE_HZ,
      perHour: 6,
      fit: runs(part(first, 0, fitTo), MAX_GAP_MS, true),
      calibrate: runs(part(first, fitTo, calibrateTo), MAX_GAP_MS, true),
      labelled: runs(part(first, 0, fitTo), MAX_GAP_MS, false),
      test: test.flatMap((recording) => runs(recording, MAX_GAP_MS, false)),
    };
  });
}

function skabTask(dir: string, file: string): Task {
  const recording = readSkab(dir, file);
  return {
    name: `SKAB ${shortName(file, 'skab_')}`,
    split: 'rows 0–260, 260–400, the rest',
    windows: ONE_HZ,
    perHour: 6,
    fit: [slice(recording, 0, 260)],
    calibrate: [slice(recording, 260, 400)],
    labelled: [],
    test: [slice(recording, 400, recording.rows.length)],
  };
}

function skabNormalTask(dir: string, file: string): Task {
  return inTime('SKAB anomaly-free (normal only)', readSkab(dir, file), ONE_HZ, 2);
}

/** 35 % to learn, 30 % for the level, 35 % to judge. */
function inTime(name: string, recording: Recording, windows: WindowOptions, perHour: number): Task {
  return {
    name,
    split: 'in time: 35/30/35 %',
    windows,
    perHour,
    fit: [part(recording, 0, 0.35)],
    calibrate: [part(recording, 0.35, 0.65)],
    labelled: [],
    test: [part(recording, 0.65, 1)],
  };
}

function nabTask(dir: string, file: string): Task {
  const recording = readNab(dir, file);
  return {
    name: 'NAB machine temperature',
    split: 'in time, labelled windows left out of the first two: 30/20/50 %',
    windows: { hopMs: 290_000, hops: 12 },
    perHour: 1 / (24 * 7),
    fit: runs(part(recording, 0, 0.3), 1e9, true),
    calibrate: runs(part(recording, 0.3, 0.5), 1e9, true),
    labelled: [],
    test: [part(recording, 0.5, 1)],
  };
}

const UCI_INSTANCE_MS = 315;

function uciTask(dir: string, file: string): Task {
  const instances = distinct(readUci(dir, file));
  const normal = instances.filter((instance) => instance.isFault[0] === false);
  const faulty = instances.filter((instance) => instance.isFault[0] === true);
  const third = Math.floor(normal.length / 3);
  const half = Math.floor(faulty.length / 2);
  return {
    name: `UCI ${shortName(file, 'uci_robot_failures_').toUpperCase()}`,
    split: 'instances in the order of the file: normal 1/3, 1/3, 1/3; faults 1/2 to learn from labels, 1/2 judged',
    windows: { hopMs: 21, hops: 15 },
    // One normal instance in ten: with seven to set the level on, nothing finer can be asked for.
    perHour: (0.1 * 3_600_000) / UCI_INSTANCE_MS,
    fit: normal.slice(0, third),
    calibrate: normal.slice(third, 2 * third),
    labelled: [...normal.slice(0, third), ...faulty.slice(0, half)],
    test: [...normal.slice(2 * third), ...faulty.slice(half)],
  };
}

/** The set repeats instances, within files and between them: each file is judged by itself, each instance once. */
const distinct = (instances: readonly Recording[]): Recording[] => [
  ...new Map(instances.map((instance) => [instance.rows.map((row) => row.join()).join(';'), instance])).values(),
];

function mh5Tasks(dir: string, file: string): Task[] {
  const recording = readMh5(dir, file);
  const windows: WindowOptions = { hopMs: 400, hops: 10 };
  const normal = inTime('MH5 (normal only)', recording, windows, 30);
  const test = inject(part(recording, 0.65, 1), [
    { kind: 'stuck', signal: 2, from: 0.2, to: 0.3 },
    { kind: 'weak', signal: 1, from: 0.45, to: 0.55 },
    { kind: 'offset', signal: 4, from: 0.7, to: 0.8 },
  ]);
  return [normal, { ...normal, name: 'MH5, injected: stuck, weak, offset', test: [test] }];
}

/** What was ordered against what was measured; half of the torque sensor's signal is lost. */
function pendulumTask(dir: string, file: string): Task {
  const method = file.replace(/^dfki_pendulum_control_method_(.*)_data_measured\.csv$/, '$1');
  const both = readPendulum(dir, method);
  const recording: Recording = {
    ...both,
    signals: ['position error', 'velocity error', 'torque error', 'torque'],
    rows: both.rows.map((row) => {
      const [p = 0, v = 0, q = 0, dp = 0, dv = 0, dq = 0] = row;
      return Float64Array.of(p - dp, v - dv, q - dq, q);
    }),
  };
  const task = inTime(
    'DFKI pendulum, injected: order against measurement off, stuck',
    recording,
    { hopMs: 20, hops: 10 },
    600,
  );
  const test = inject(part(recording, 0.65, 1), [
    { kind: 'offset', signal: 0, from: 0.25, to: 0.45 },
    { kind: 'stuck', signal: 1, from: 0.65, to: 0.85 },
  ]);
  return { ...task, test: [test] };
}

/** A cell's capacity below this share of its first is called worn. */
const WORN_CAPACITY = 0.975;

/** Discharges one after another: voltage, current, temperature and the charge taken so far. */
function nasaTask(dir: string, file: string): Task {
  const raw = readNasa(dir, file);
  const first = raw.rows[0]?.[1] ?? Number.NaN;
  let takenAh = 0;
  const rows = raw.rows.map((row, i) => {
    const [index, , atS = 0, voltage = Number.NaN, current = Number.NaN, temperature = Number.NaN] = row;
    const before = raw.rows[i - 1];
    takenAh = before?.[0] === index ? takenAh + (Math.abs(current) * (atS - (before?.[2] ?? atS))) / 3600 : 0;
    return Float64Array.of(voltage, current, temperature, takenAh);
  });
  const recording: Recording = {
    name: raw.name,
    signals: ['voltage', 'current', 'temperature', 'charge taken'],
    timesMs: rows.map((_, i) => i * STEP_MS),
    rows,
    isFault: raw.rows.map((row) => (row[1] as number) < WORN_CAPACITY * first),
  };
  return {
    name: `NASA battery ${shortName(file, 'nasa_').slice(0, 5)}, worn (capacity < 97.5 %)`,
    split: 'discharges in time: 30/20/50 % of the rows, worn ones left out of the first two',
    windows: EACH_STEP,
    perHour: 6,
    fit: runs(part(recording, 0, 0.3), 1e9, true),
    calibrate: runs(part(recording, 0.3, 0.5), 1e9, true),
    labelled: [],
    test: [part(recording, 0.5, 1)],
  };
}

function crazyflieTask(dir: string, file: string): Task {
  const recording = readCrazyflie(dir, file);
  const task = inTime(
    `Crazyflie ${shortName(file, 'crazyflie_')}, injected: voltage off, stuck`,
    recording,
    { hopMs: 1000, hops: 10 },
    20,
  );
  const voltage = recording.signals.indexOf('battery_voltage');
  const test = inject(part(recording, 0.65, 1), [
    { kind: 'offset', signal: voltage, from: 0.25, to: 0.4 },
    { kind: 'stuck', signal: 0, from: 0.6, to: 0.75 },
  ]);
  return { ...task, test: [test] };
}

const shortName = (file: string, prefix: string): string => file.replace(prefix, '').replace(/\.\w+$/, '');
