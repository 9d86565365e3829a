import { resolve } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { deviceName } from '@outrider/shared/ids';
import type { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { exitCodeOf } from './exit-codes.ts';
import { examples, withConfig } from './options.ts';

/** `outrider-edge config check`: the configuration alone, without looking at the machine. */
export function addConfigCheck(program: Command): void {
  withConfig(program.command('config').description('Look at the configuration.').command('check'))
    .description('Check the configuration and say what is wrong, with the path of each option.')
    .option('--json', 'as JSON, the problems too')
    .addHelpText(
      'after',
      examples('outrider-edge config check --config edge.yaml', 'outrider-edge config check --json | jq .problems'),
    )
    .action(({ config, json }: { readonly config: string; readonly json?: boolean }) => {
      const path = resolve(config);
      try {
        const { device, sources, stateDir } = loadConfig(path);
        const types = sources.map(({ type }) => type);
        const robot = deviceName(device);
        if (json) console.log(JSON.stringify({ config: path, ok: true, robot, sources: types, state_dir: stateDir }));
        else console.log(`${path}: ok\nrobot ${robot}, sources: ${types.join(', ') || 'none'}, state in ${stateDir}`);
      } catch (error) {
        if (!json || !(error instanceof DomainError)) throw error;
        const problems = error.problems.length > 0 ? error.problems : [{ field: 'the file', reason: error.message }];
        console.log(JSON.stringify({ config: path, ok: false, problems }));
        process.exitCode = exitCodeOf(error);
      }
    });
}
