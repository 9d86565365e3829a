import { resolve } from 'node:path';
import { systemClock } from '@outrider/shared/time';
import type { Command } from 'commander';
import type { AgentStatus } from '../local-api/status.ts';
import { EXIT } from './exit-codes.ts';
import { callAgent } from './local-client.ts';
import { examples, withConfig } from './options.ts';

/** `outrider-edge doctor`: what is wrong with this robot's set-up, and how to mend it. */
export function addDoctor(program: Command): void {
  withConfig(program.command('doctor'))
    .description('Examine the whole set-up; each line says how to mend it. Works offline and without an agent.')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `${examples('outrider-edge doctor', 'outrider-edge doctor --json | jq ".findings[] | select(.state != \\"ok\\")"')}

Exit codes:
  0 nothing failed (there may be warnings)   1 something failed`,
    )
    .action(async ({ config, json }: { readonly config: string; readonly json?: boolean }) => {
      const { examine } = await import('../doctor/doctor.ts');
      const { formatFindings } = await import('../doctor/finding.ts');
      const findings = await examine(resolve(config), { clock: systemClock, status: agentStatus });
      const isWell = findings.every(({ state }) => state !== 'fail');
      console.log(json ? JSON.stringify({ well: isWell, findings }, null, 2) : formatFindings(findings));
      if (!isWell) process.exitCode = EXIT.failure;
    });
}

/** Asks the running agent for its status. */
export const agentStatus = async (socketPath: string): Promise<AgentStatus> =>
  (await callAgent(socketPath, 'GET', '/status')) as AgentStatus;
