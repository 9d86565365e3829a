import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { systemClock } from '@outrider/shared/time';
import type { Command } from 'commander';
import { agentStatus } from './doctor.ts';
import { examples, withConfig } from './options.ts';

interface BundleArguments {
  readonly config: string;
  readonly out: string;
  readonly log?: string;
  readonly json?: boolean;
}

/** `outrider-edge support-bundle`: everything that helps to help, and no secret. */
export function addSupportBundle(program: Command): void {
  withConfig(program.command('support-bundle'))
    .description('Collect configuration, status, doctor, latches and log for whoever helps; without any secret.')
    .requiredOption('--out <file>', 'a .tar.gz, or else a folder')
    .option('--log <file>', 'the log file; by default the journal of both units')
    .option('--json', 'say what is in it as JSON')
    .addHelpText(
      'after',
      examples(
        'outrider-edge support-bundle --out bundle.tar.gz',
        'outrider-edge support-bundle --out folder/ --log edge.log',
      ),
    )
    .action(async ({ config, out, log, json }: BundleArguments) => {
      process.umask(0o077);
      const { supportBundle } = await import('../support/bundle.ts');
      const { tarOf } = await import('../support/tar.ts');
      const secrets = [process.env['OUTRIDER_API_KEY'] ?? ''];
      const ports = { clock: systemClock, status: agentStatus, logFile: log && resolve(log), secrets };
      const entries = await supportBundle(resolve(config), ports);
      const path = resolve(out);
      if (/\.(tar\.gz|tgz)$/.test(path)) writeFileSync(path, gzipSync(tarOf(entries, systemClock.epochMs() / 1000)));
      else
        for (const { name, bytes } of entries) {
          mkdirSync(dirname(join(path, name)), { recursive: true });
          writeFileSync(join(path, name), bytes);
        }
      const names = entries.map(({ name }) => name);
      console.log(
        json ? JSON.stringify({ out: path, files: names }) : [path, ...names.map((name) => `  ${name}`)].join('\n'),
      );
    });
}
