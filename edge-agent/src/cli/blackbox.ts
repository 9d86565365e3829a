import { copyFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { systemClock, toIso } from '@outrider/shared/time';
import { type Command, Option } from 'commander';
import { BoxShelf, type BoxView } from '../blackbox/shelf.ts';
import { loadConfig } from '../config.ts';
import { EXPORT_FORMATS, type ExportFormat, exportSamples } from '../export/export.ts';
import { jsonOf } from './export.ts';
import { bytes } from './format.ts';
import { collected, examples, withConfig } from './options.ts';

interface ListArguments {
  readonly config: string;
  readonly json?: boolean;
}
interface BoxExportArguments extends ListArguments {
  readonly out: string;
  readonly format: ExportFormat;
  readonly stream?: readonly string[];
}

/** `outrider-edge blackbox`: what was recorded around each stop. Needs no agent. */
export function addBlackbox(program: Command): void {
  const blackbox = program
    .command('blackbox')
    .description('Recordings of the seconds before and after each stop; kept on this robot, apart from telemetry.');
  withConfig(blackbox.command('list'))
    .description('Show the boxes, oldest first.')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('outrider-edge blackbox list', 'outrider-edge blackbox list --json'))
    .action(({ config, json }: ListArguments) => {
      const boxes = new BoxShelf(loadConfig(config).stateDir).list();
      console.log(json ? JSON.stringify(boxes, null, 2) : formatBoxes(boxes));
    });
  withConfig(blackbox.command('export').argument('<id>', 'of `blackbox list`, or `last`'))
    .description('Copy a box out; a box that was exported is the first to go when room is needed.')
    .addOption(new Option('--format <format>', 'of the file').choices(EXPORT_FORMATS).default('mcap'))
    .requiredOption('--out <file>', 'where to; for CSV without exactly one --stream a folder')
    .option('--stream <name>', 'for CSV: only this stream; may be given several times', collected)
    .option('--json', 'say what was written as JSON')
    .addHelpText(
      'after',
      examples(
        'outrider-edge blackbox export last --out stop.mcap',
        'outrider-edge blackbox export last --format csv --stream mcu/joint_state --out joints.csv',
      ),
    )
    .action((id: string, given: BoxExportArguments) => exportBox(id, given));
}

async function exportBox(id: string, given: BoxExportArguments): Promise<void> {
  const { stateDir } = loadConfig(given.config);
  const shelf = new BoxShelf(stateDir);
  const box = shelf.get(id === 'last' ? (shelf.list().at(-1)?.id ?? 'last') : id);
  const out = resolve(given.out);
  let written: Record<string, unknown> = { files: [out], samples: box.samples };
  if (given.format === 'mcap') await copyFile(box.file, out);
  else {
    const { openPlayback } = await import('../sources/playback.ts');
    const playback = await openPlayback({ file: box.file, scratchDir: stateDir });
    try {
      const request = { format: given.format, out, streams: given.stream ?? [], fromNs: undefined, toNs: undefined };
      written = jsonOf(await exportSamples(playback.samples(), { ...request, facts: {} }));
    } finally {
      await playback.close();
    }
  }
  shelf.markExported(box.id, toIso(systemClock.epochMs()));
  console.log(given.json ? JSON.stringify({ id: box.id, ...written }) : `${box.id}\n${String(written['files'])}`);
}

/** The boxes for a person. */
export function formatBoxes(boxes: readonly BoxView[]): string {
  if (boxes.length === 0) return 'no black box: the robot has not been stopped since recording began';
  return boxes
    .flatMap((box) => [
      `${box.id}  ${box.mode || 'unknown'}, ${box.samples} samples, ${bytes(box.bytes)}${box.exported_at ? ', exported' : ''}`,
      ...(box.from ? [`    ${box.from} to ${box.to}${box.trace_id ? `, trace ${box.trace_id}` : ''}`] : []),
      ...box.causes.map((cause) => `    - ${cause}`),
      ...box.also.map((also) => `    also ${also}`),
      ...(box.cut_short ? [`    cut short: ${box.cut_short}`] : []),
    ])
    .join('\n');
}
