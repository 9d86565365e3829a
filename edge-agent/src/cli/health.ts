import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { hoursOf } from '@outrider/shared/health/alarm-level';
import { decodeModel } from '@outrider/shared/health/model-codec';
import { DEFAULT_ANALYSER, type RobotModel, streamOf } from '@outrider/shared/health/robot-analyser';
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig } from '../config.ts';
import type { Trained } from '../health/train-model.ts';
import type { AgentStatus, HealthView } from '../local-api/status.ts';
import { EXIT } from './exit-codes.ts';
import { formatHealth } from './format.ts';
import { callAgent } from './local-client.ts';
import { examples, withConfig } from './options.ts';

interface TrainArguments {
  readonly config: string;
  readonly labels?: string;
  readonly columns?: string;
  readonly out?: string;
  readonly falseAlarmsPerHour?: number;
  readonly json?: boolean;
}

/** `outrider-edge health`: what the analyser says and rests on, and how it is taught. */
export function addHealth(program: Command): void {
  const health = program.command('health').description('See what the analyser says of this robot, or teach it.');
  withConfig(health.command('status'))
    .description("Show the analyser's verdict, what it rests on, and what was learnt.")
    .option('--json', 'as JSON')
    .addHelpText('after', examples('outrider-edge health status', 'outrider-edge health status --json | jq .streams'))
    .action(({ config, json }: { readonly config: string; readonly json?: boolean }) => statusCommand(config, json));
  withConfig(health.command('train'))
    .argument('<file>', 'a recording of this robot: .mcap, rosbag2 .db3, PX4 .ulg, or .csv with --columns')
    .description('Learn from a recording what is normal and, with labels, what its faults look like.')
    .option('--labels <column|file>', 'which samples show a fault; without it all are normal')
    .option('--columns <mapping>', 'for a .csv: a YAML that says which column is what (as `columns` in edge.yaml)')
    .option('--out <file>', 'where to; default health.trained in state_dir, which the agent takes at its next start')
    .option('--false-alarms-per-hour <n>', 'for the report; default: health.false_alarms_per_hour', positive)
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `${examples(
        'outrider-edge health train run.csv --columns columns.yaml --labels protective_stop',
        'outrider-edge health train drive.mcap --labels faults.csv --out RB-7.model',
        'outrider-edge health train normal.mcap',
      )}

Labels: the name of a column of a CSV recording, in which anything but 0, false, no, normal, ok, none or nothing is a
fault; or a CSV file with the columns from and to, a line for each fault: ISO 8601 times of reception, or seconds from
the first sample. The streams must have the names that they have on the robot. Streams that were learnt before and are
not in the recording stay as they are. The control plane takes the file with: outrider-cloud health-model put`,
    )
    .action((file: string, given: TrainArguments) => trainCommand(file, given));
}

async function statusCommand(config: string, asJson: boolean | undefined): Promise<void> {
  const { localApi, stateDir } = loadConfig(config);
  const { health } = (await callAgent(localApi.socketPath, 'GET', '/status')) as AgentStatus;
  const streams = streamsOf(await readKnown(join(stateDir, 'health.model')));
  if (asJson) console.log(JSON.stringify({ health, streams }, null, 2));
  else console.log([...verdictLines(health), ...streamLines(streams)].join('\n'));
}

function verdictLines(health: HealthView | null): string[] {
  if (!health) return ['health       the analyser is switched off (health.enabled)'];
  const { normal_h, needed_h } = health;
  if (normal_h === null || needed_h === null) return formatHealth(health);
  const hours = `${normal_h.toFixed(1)} h of normal work, ${needed_h.toFixed(0)} h show the false-alarm rate`;
  return [
    ...formatHealth(health),
    `rests on     ${hours}${normal_h < needed_h ? ': until then it is an extrapolation' : ''}`,
  ];
}

interface KnownStream {
  readonly stream: string;
  readonly signals: number;
  readonly normal_h: number;
  readonly knows_faults: boolean;
}

const streamsOf = (model: RobotModel): KnownStream[] =>
  [...model].map(([key, { signals, alarm, windowMs, classifier }]) => ({
    stream: streamOf(key),
    signals: signals.length,
    normal_h: Math.round(hoursOf(alarm, windowMs) * 1000) / 1000,
    knows_faults: classifier !== undefined,
  }));

const streamLines = (streams: readonly KnownStream[]): string[] =>
  streams.length === 0
    ? ['learnt       nothing yet']
    : streams.map(
        ({ stream, signals, normal_h, knows_faults }, i) =>
          `${i === 0 ? 'learnt' : '      '}       ${stream}: ${signals} signals, level from ${normal_h.toFixed(1)} h${knows_faults ? ', knows labelled faults' : ''}`,
      );

/** What a file holds already; nothing when there is none. */
async function readKnown(path: string): Promise<RobotModel> {
  try {
    return decodeModel(await readFile(path));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return new Map();
    throw error;
  }
}

async function trainCommand(file: string, given: TrainArguments): Promise<void> {
  const config = given.out === undefined ? loadConfig(given.config) : undefined;
  const out = given.out === undefined ? join(config?.stateDir ?? '', 'health.trained') : resolve(given.out);
  const falseAlarmsPerHour =
    given.falseAlarmsPerHour ?? config?.health?.falseAlarmsPerHour ?? DEFAULT_ANALYSER.falseAlarmsPerHour;
  const { trainModel } = await import('../health/train-model.ts');
  const { loadColumns } = await import('../whatif/run.ts');
  const { saveModel } = await import('../health/model-file.ts');
  const columns = given.columns === undefined ? undefined : loadColumns(resolve(given.columns));
  const trained = await trainModel({
    recording: { file: resolve(file), ...(columns && { columns }) },
    labels: given.labels,
    settings: { ...DEFAULT_ANALYSER, falseAlarmsPerHour },
  });
  if (given.labels !== undefined && trained.labelledSamples === 0 && trained.malformed < trained.samples)
    throw new DomainError('invalid', `--labels ${given.labels}: marks none of the ${trained.samples} samples`);
  const learnt = trained.streams.length > 0;
  if (learnt) await saveModel(dirname(out), out, new Map([...(await readKnown(out)), ...trained.model]));
  const settings = { file: learnt ? out : null, falseAlarmsPerHour };
  if (given.json) console.log(JSON.stringify(jsonOf(trained, settings), null, 2));
  else console.log(wordsOf(trained, settings).join('\n'));
  if (!learnt) process.exitCode = EXIT.failure;
}

interface TrainingFacts {
  readonly file: string | null;
  readonly falseAlarmsPerHour: number;
}

function jsonOf({ streams, skipped, samples, labelledSamples, malformed }: Trained, facts: TrainingFacts): object {
  return {
    file: facts.file,
    samples,
    labelled_samples: labelledSamples,
    malformed_samples: malformed,
    false_alarms_per_hour: facts.falseAlarmsPerHour,
    streams: streams.map(({ stream, signals, normalWindows, faultWindows, heldOut }) => ({
      stream,
      signals,
      normal_windows: normalWindows,
      fault_windows: faultWindows,
      held_out: heldOut
        ? {
            auroc: heldOut.auroc,
            f1: heldOut.f1,
            best_f1: heldOut.f1Best,
            faults: heldOut.episodes,
            found: heldOut.detected,
            false_alarms: heldOut.falseAlarms,
            normal_h: heldOut.normalHours,
          }
        : null,
    })),
    skipped,
  };
}

function wordsOf(trained: Trained, facts: TrainingFacts): string[] {
  const { streams, skipped, samples, labelledSamples, malformed, malformedWhy } = trained;
  return [
    `${samples} samples, ${labelledSamples} of them labelled as faults`,
    ...(malformed > 0 ? [`${malformed} could not be read: ${malformedWhy}`] : []),
    ...streams.flatMap(({ stream, signals, normalWindows, faultWindows, heldOut }) => [
      `${stream}: ${signals} signals, ${normalWindows} normal windows, ${faultWindows} with a fault`,
      heldOut
        ? `  the last third, judged by what the rest taught: ${heldOut.detected} of ${heldOut.episodes} faults found, ` +
          `${heldOut.falseAlarms} false alarms in ${heldOut.normalHours.toFixed(2)} h; AUROC ${heldOut.auroc.toFixed(3)}, ` +
          `F1 ${heldOut.f1.toFixed(2)} at ${facts.falseAlarmsPerHour} false alarms an hour of the robot (a stream may raise a quarter), ${heldOut.f1Best.toFixed(2)} at best`
        : '  not judged: that takes five labelled windows in the first two thirds and a fault in the last',
    ]),
    ...skipped.map(({ stream, reason }) => `${stream}: left out: ${reason}`),
    ...(facts.file === null
      ? ['nothing was learnt']
      : [`written: ${facts.file}`, ...(facts.file.endsWith('health.trained') ? ['restart the agent to use it'] : [])]),
  ];
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 3600)) throw new InvalidArgumentError('It must be a number above 0, 3600 at most.');
  return value;
}
