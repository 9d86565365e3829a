import { resolve } from 'node:path';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { FAILSAFE_MODES } from '@outrider/shared/failsafe/modes';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { addBlackbox } from './cli/blackbox.ts';
import { addConfigCheck } from './cli/config-check.ts';
import { addDoctor } from './cli/doctor.ts';
import { type EnrolArguments, enrolCommand } from './cli/enroll.ts';
import { EXIT, exitCodeOf } from './cli/exit-codes.ts';
import { addExplain } from './cli/explain.ts';
import { addExport } from './cli/export.ts';
import { formatFailsafe, formatQueue, formatStatus } from './cli/format.ts';
import { callAgent } from './cli/local-client.ts';
import { examples, withConfig } from './cli/options.ts';
import { addReplay } from './cli/replay.ts';
import { addSupportBundle } from './cli/support-bundle.ts';
import { addTail } from './cli/tail.ts';
import { loadConfig } from './config.ts';
import type { AgentStatus } from './local-api/status.ts';
import { AGENT_VERSION } from './version.ts';

interface AtAgent {
  readonly config: string;
  readonly json?: boolean;
}
interface RunArguments {
  readonly config: string;
  readonly replay?: string;
  readonly speed?: number;
  readonly exitWhenDone?: boolean;
  readonly fromStart?: boolean;
  readonly readyFile?: string;
}

const program = new Command('outrider-edge')
  .description('The daemon on the robot: reads it, keeps every sample, stops it when it must, syncs with the cloud.')
  .version(AGENT_VERSION)
  .showHelpAfterError('(add --help for the options)')
  .exitOverride()
  .addHelpText(
    'after',
    `
Examples:
  outrider-edge enroll --config edge.yaml --api-key-file key.txt
  outrider-edge run --config edge.yaml
  outrider-edge run --config edge.yaml --replay drive.mcap --speed 20 --exit-when-done
  outrider-edge status
  outrider-edge failsafe trigger emergency_stop --reason "smoke"

Exit codes:
  0 done   1 failed   2 wrong usage   69 the agent or the cloud does not answer   78 the configuration is wrong`,
  );

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
    const config = loadConfig(given.config, {
      ...(replay !== undefined && { replayFile: replay }),
      ...(replaySpeed !== undefined && { replaySpeed }),
    });
    const { runAgent } = await import('./main.ts');
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
  .action(async ({ config }: AtAgent) => {
    const { loadGuardConfig } = await import('./guard/guard-config.ts');
    const { guardMain } = await import('./guard/main.ts');
    process.exitCode = await guardMain(await loadGuardConfig(config), process.env);
  });

withConfig(program.command('enroll'))
  .description("Make this robot's key and get its certificate from the cloud.")
  .option('--api-key <key>', 'the key from the registration of the robot (or OUTRIDER_API_KEY)')
  .option('--api-key-file <file>', 'a file that holds it, which does not show in the list of processes')
  .option('--ca-sha256 <fingerprint>', "SHA-256 of the cloud's CA certificate, when there is no cloud.ca_file")
  .option('--json', 'say what was granted as JSON')
  .addHelpText(
    'after',
    examples(
      'outrider-edge enroll --api-key-file key.txt',
      'OUTRIDER_API_KEY=... outrider-edge enroll --ca-sha256 3f:9a:...',
    ),
  )
  .action((given: EnrolArguments) => enrolCommand(given));

atAgent(
  program.command('status').addHelpText('after', examples('outrider-edge status')),
  'Show how the agent is doing.',
  ({ config, json }) => show(config, json, formatStatus),
);
atAgent(
  program.command('queue').addHelpText('after', examples('outrider-edge queue --json | jq .outbox.lanes')),
  'Show what waits in the outbox.',
  ({ config, json }) => show(config, json, formatQueue),
);

addDoctor(program);
addTail(program);
addExport(program);
addBlackbox(program);
addReplay(program);
addSupportBundle(program);

addConfigCheck(program);

const failsafe = program.command('failsafe').description('Look at, trip or recover the failsafe, here at the robot.');
addExplain(failsafe);
atAgent(
  failsafe.command('status').addHelpText('after', examples('outrider-edge failsafe status')),
  'Show the failsafe and its causes.',
  ({ config, json }) =>
    show(
      config,
      json,
      (status) => formatFailsafe(status.failsafe).join('\n'),
      (status) => status.failsafe,
    ),
);
atAgent(
  failsafe
    .command('trigger')
    .argument('<mode>', `one of ${FAILSAFE_MODES.join(', ')}`)
    .option('--reason <text>', 'why, for the record')
    .addHelpText('after', examples('outrider-edge failsafe trigger emergency_stop --reason smoke')),
  'Stop the robot and latch a mode.',
  async ({ config, json }, mode, given) => {
    const reason = given['reason'];
    const body = { mode, ...(typeof reason === 'string' ? { reason } : {}) };
    sayDone(json, await callAgent(socketOf(config), 'POST', '/failsafe/trigger', body), 'the robot is stopped');
  },
);
atAgent(
  failsafe
    .command('recover')
    .addHelpText('after', examples('outrider-edge failsafe recover', 'outrider-edge failsafe recover --json')),
  'Clear the latch; says what is missing when that is refused.',
  async ({ config, json }) => {
    const socket = socketOf(config);
    const { failsafe: now } = (await callAgent(socket, 'GET', '/status')) as AgentStatus;
    if (!now) throw new DomainError('unavailable', 'the guard does not answer');
    const body = { latch_id: now.latch_id, nonce: now.recover_nonce };
    sayDone(json, await callAgent(socket, 'POST', '/failsafe/recover', body), 'the robot may move again');
  },
);

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = failed(error);
}

function atAgent(
  command: Command,
  description: string,
  action: (given: AtAgent, argument: string, options: Readonly<Record<string, unknown>>) => Promise<void>,
): void {
  withConfig(command)
    .description(description)
    .option('--json', 'as JSON')
    .action((...given: unknown[]) => {
      const [first, second] = given;
      const options = (typeof first === 'string' ? second : first) as AtAgent & Readonly<Record<string, unknown>>;
      return action(options, typeof first === 'string' ? first : '', options);
    });
}

async function show(
  config: string,
  asJson: boolean | undefined,
  format: (status: AgentStatus) => string,
  pick: (status: AgentStatus) => unknown = (status) => status,
): Promise<void> {
  const status = (await callAgent(socketOf(config), 'GET', '/status')) as AgentStatus;
  console.log(asJson ? JSON.stringify(pick(status), null, 2) : format(status));
}

/** What the guard did, in its own words where it has any. */
function sayDone(asJson: boolean | undefined, answer: unknown, words: string): void {
  const { detail, latch_id } = answer as { readonly detail?: string; readonly latch_id?: number };
  console.log(asJson ? JSON.stringify(answer) : `${words}${detail ? `: ${detail}` : ''}, latch ${latch_id}`);
}

function socketOf(config: string): string {
  return loadConfig(config).localApi.socketPath;
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

function failed(error: unknown): number {
  // Commander has printed its own message, also for --help and --version, which are no failures.
  if (error instanceof CommanderError && error.code !== 'outrider.speed')
    return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  console.error(`outrider-edge: ${errorMessage(error)}`);
  return error instanceof CommanderError ? EXIT.usage : exitCodeOf(error);
}
