import { resolve } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { deviceName } from '@outrider/shared/ids';
import type { Sample } from '@outrider/shared/telemetry';
import { type Command, Option } from 'commander';
import { type AgentConfig, loadConfig } from '../config.ts';
import { EXPORT_FORMATS, type ExportFormat, type ExportResult, exportSamples } from '../export/export.ts';
import { type ExportNotes, samplesOfAgent, samplesOfDisk } from '../export/outbox-samples.ts';
import { isoOfNs } from '../export/sample-json.ts';
import { EPOCH_HEADER } from '../local-api/app.ts';
import { EXIT } from './exit-codes.ts';
import { callAgent, fetchBytes } from './local-client.ts';
import { collected, examples, pastTime, withConfig } from './options.ts';

interface ExportArguments {
  readonly config: string;
  readonly format: ExportFormat;
  readonly out: string;
  readonly stream?: readonly string[];
  readonly from?: bigint;
  readonly to?: bigint;
  readonly json?: boolean;
}

/** `outrider-edge export`: what is still on this robot's disk, for other tools. */
export function addExport(program: Command): void {
  withConfig(program.command('export'))
    .description('Write the telemetry that is still on this disk to a file that other tools open.')
    .addOption(new Option('--format <format>', 'of the file').choices(EXPORT_FORMATS).default('mcap'))
    .requiredOption('--out <file>', 'where to; for CSV without exactly one --stream a folder')
    .option('--stream <name>', 'only this stream; may be given several times', collected)
    .option('--from <time>', 'only what was received from then on: ISO 8601, or how long ago (15m, 2h)', pastTime)
    .option('--to <time>', 'only what was received until then', pastTime)
    .option('--json', 'say what was written as JSON')
    .addHelpText(
      'after',
      examples(
        'outrider-edge export --out last-hour.mcap --from 1h',
        'outrider-edge export --format csv --stream mcu/joint_state --out joints.csv',
        'outrider-edge export --format csv --out folder/',
      ),
    )
    .action((given: ExportArguments) => exportCommand(given));
}

async function exportCommand(given: ExportArguments): Promise<void> {
  const config = loadConfig(given.config);
  const notes: ExportNotes = { gaps: 0, damaged: 0 };
  const out = resolve(given.out);
  const result = await exportSamples(await outboxSamples(config, notes), {
    format: given.format,
    out,
    streams: given.stream ?? [],
    fromNs: given.from,
    toNs: given.to,
    facts: { robot: deviceName(config.device), source: 'outbox' },
  });
  if (given.json) console.log(JSON.stringify({ ...jsonOf(result), gaps: notes.gaps, damaged_records: notes.damaged }));
  else console.log(wordsOf(result, notes).join('\n'));
  if (result.samples === 0) process.exitCode = EXIT.failure;
}

/** From the running agent, which holds its database for itself, or from the disk when none runs. */
async function outboxSamples(
  config: AgentConfig,
  notes: ExportNotes,
): Promise<AsyncIterable<Sample> | Iterable<Sample>> {
  const { socketPath } = config.localApi;
  try {
    await callAgent(socketPath, 'GET', '/status');
  } catch (error) {
    if (error instanceof DomainError && error.code === 'unavailable') return samplesOfDisk(config.stateDir, notes);
    throw error;
  }
  return samplesOfAgent(async (after) => {
    const { bytes, headers } = await fetchBytes(socketPath, `/outbox/telemetry?after=${after}`);
    return { bytes, epoch: String(headers[EPOCH_HEADER] ?? '') };
  }, notes);
}

/** A result as JSON, whose numbers cannot hold ns. */
export function jsonOf({ files, samples, streams, fromNs, toNs }: ExportResult): Record<string, unknown> {
  const span = samples > 0 ? { from: isoOfNs(fromNs), to: isoOfNs(toNs) } : {};
  return { files, samples, streams, ...span };
}

function wordsOf({ files, samples, streams, fromNs, toNs }: ExportResult, { gaps, damaged }: ExportNotes): string[] {
  return [
    ...files,
    samples === 0 ? 'no sample matches' : `${samples} samples from ${isoOfNs(fromNs)} to ${isoOfNs(toNs)}`,
    ...Object.entries(streams).map(([stream, count]) => `  ${stream}: ${count}`),
    ...(gaps > 0 ? [`${gaps} gaps: records that were dropped on this robot before`] : []),
    ...(damaged > 0 ? [`${damaged} damaged records were left out`] : []),
    'The disk holds only what the cloud has not acknowledged yet; earlier telemetry is in the cloud.',
  ];
}
