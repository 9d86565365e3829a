import { readFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { parse } from 'yaml';
import { loadConfig } from '../config.ts';
import { type ExplainedCause, explainFailsafe } from '../guard/explain.ts';
import { failsafeLayers, withPolicyFile } from '../guard/failsafe-layers.ts';
import { failsafeSchema } from '../guard/failsafe-schema.ts';
import { examples, withConfig } from './options.ts';

/** `outrider-edge failsafe explain`: what stops this robot, why, and which file says so. */
export function addExplain(failsafe: Command): void {
  withConfig(failsafe.command('explain'))
    .description('Explain every cause: what trips it, what happens, how it clears, and where each setting comes from.')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      examples('outrider-edge failsafe explain', 'outrider-edge failsafe explain --json | jq ".causes[].action"'),
    )
    .action(({ config, json }: { readonly config: string; readonly json?: boolean }) => {
      const path = resolve(config);
      // A configuration that the agent would refuse is not worth explaining.
      loadConfig(path);
      const document: unknown = parse(readFileSync(path, 'utf8'));
      const merged = withPolicyFile(document, path) as { readonly failsafe: unknown };
      const settings = failsafeSchema.parse(merged.failsafe);
      const causes = explainFailsafe(settings, failsafeLayers(document, path));
      const looser = settings.accept_looser ? settings.looser_reason : null;
      console.log(
        json
          ? JSON.stringify({ config: path, accepts_looser: looser, causes }, null, 2)
          : [
              `Causes in the order in which they give the mode; ${path}`,
              ...(looser === null ? [] : [`Limits beyond the defaults are accepted: ${looser}`]),
              ...causes.map(formatCause),
            ].join('\n\n'),
      );
    });
}

function formatCause(cause: ExplainedCause): string {
  const raised =
    cause.action_from === 'default' ? '' : ` (${basename(cause.action_from)}; default ${cause.action_default})`;
  const given = cause.settings.filter(({ from }) => from !== 'default');
  const dwell = cause.clear_dwell_from === 'default' ? '' : ` (${basename(cause.clear_dwell_from)})`;
  return [
    `${cause.cause}: ${cause.action}${raised}, shown as ${cause.mode}`,
    `  ${cause.meaning}`,
    `  trips   ${cause.trips}`,
    `  clears  ${cause.clears}${dwell}`,
    ...given.map(({ option, value, from }) => `  set     ${option}: ${JSON.stringify(value)} (${basename(from)})`),
  ].join('\n');
}
