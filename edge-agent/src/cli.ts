import { errorMessage } from '@outrider/shared/errors';
import { Command, CommanderError } from './cli/commander.ts';
import { addDaemons, DAEMONS } from './cli/daemons.ts';
import { EXIT, exitCodeOf } from './cli/exit-codes.ts';
import { AGENT_VERSION } from './version.ts';

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

addDaemons(program);
// What runs for months holds none of the tools.
if (!DAEMONS.includes(process.argv[2] ?? '')) (await import('./cli/tools.ts')).addTools(program);

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = failed(error);
}

function failed(error: unknown): number {
  // Commander has printed its own message, also for --help and --version, which are no failures.
  if (error instanceof CommanderError && error.code !== 'outrider.speed')
    return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  console.error(`outrider-edge: ${errorMessage(error)}`);
  return error instanceof CommanderError ? EXIT.usage : exitCodeOf(error);
}
