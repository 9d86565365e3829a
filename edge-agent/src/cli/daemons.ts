import { resolve } from 'node:path';
import { readAgentConfig, readGuardConfig } from '../config-process.ts';
import { type Command, CommanderError, InvalidArgumentError } from './commander.ts';
import { EXIT } from './exit-codes.ts';
import { examples, withConfig } from './options.ts';

interface RunArguments {
  readonly config: string;
  readonly replay?: string;
  readonly speed?: number;
  readonly exitWhenDone?: boolean;
  readonly fromStart?: boolean;
  readonly readyFile?: string;
}

/** The verbs that run until they are told to stop. */
export const DAEMONS: readonly string[] = ['run', 'guard'];

/** Adds `run` and `guard`. */
export function addDaemons(program: Command): void {
  withConfig(program.command('run'))
    .description('Run the agent until SIGTERM or SIGINT.')
    .option('--replay <file>', 'replay a recording (.mcap, .db3, .ulg, .csv) instead of the configured sources')
    .option('--speed <x>', 'recorded seconds per second, 0 for as fast as possible (default 1)', speed)
    .option('--from-start', 'replay from the beginning, also what was taken over by an earlier run')
    .option('--exit-when-done', 'end once the recordings are over and the cloud has everything')
    .option('--ready-file <file>', 'where to write a JSON once the local API answers')
    .addHelpText(
      'after',
      examples(
        'outrider-edge run --config edge.yaml',
        'outrider-edge run --config edge.yaml --replay drive.mcap --speed 20 --exit-when-done',
      ),
    )
    .action(async (given: RunArguments) => {
      const { replay, speed: replaySpeed } = given;
      if (replay === undefined && replaySpeed !== undefined)
        throw new CommanderError(EXIT.usage, 'outrider.speed', 'error: --speed needs --replay');
      const overrides = {
        ...(replay !== undefined && { replayFile: replay }),
        ...(replaySpeed !== undefined && { replaySpeed }),
      };
      const [config, { runAgent }] = await Promise.all([
        readAgentConfig(given.config, overrides, process.env),
        import('../main.ts'),
      ]);
      await runAgent(
        config,
        {
          exitWhenDone: given.exitWhenDone ?? false,
          fromStart: given.fromStart ?? false,
          readyFile: given.readyFile === undefined ? undefined : resolve(given.readyFile),
          notify: process.env,
        },
        stopSignal(),
      );
    });

  withConfig(program.command('guard'))
    .description('Run the guard process alone, as its systemd unit does.')
    .addHelpText('after', examples('outrider-edge guard --config /etc/outrider/edge.yaml'))
    .action(async ({ config }: { readonly config: string }) => {
      const [read, { guardMain }] = await Promise.all([readGuardConfig(config), import('../guard/main.ts')]);
      process.exitCode = await guardMain(read, process.env);
    });
}

function speed(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && value <= 1000) return value;
  throw new InvalidArgumentError('It must be a number from 0 to 1000.');
}

function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort());
  return stop.signal;
}
