import { DomainError } from '@outrider/shared/errors';
import { FAILSAFE_MODES } from '@outrider/shared/failsafe/modes';
import type { Command } from 'commander';
import { loadConfig } from '../config.ts';
import type { AgentStatus } from '../local-api/status.ts';
import { addBlackbox } from './blackbox.ts';
import { addConfigCheck } from './config-check.ts';
import { addDoctor } from './doctor.ts';
import { type EnrolArguments, enrolCommand } from './enroll.ts';
import { addExplain } from './explain.ts';
import { addExport } from './export.ts';
import { formatFailsafe, formatQueue, formatStatus } from './format.ts';
import { addHealth } from './health.ts';
import { callAgent } from './local-client.ts';
import { examples, withConfig } from './options.ts';
import { addReplay } from './replay.ts';
import { addSupportBundle } from './support-bundle.ts';
import { addTail } from './tail.ts';

interface AtAgent {
  readonly config: string;
  readonly json?: boolean;
}

/** Adds every verb that does one thing and ends. */
export function addTools(program: Command): void {
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
  addHealth(program);
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
