import { DomainError, errorMessage } from '@outrider/shared/errors';
import { deviceName } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import { type AgentConfig, loadConfig } from '../config.ts';
import type { AgentStatus } from '../local-api/status.ts';
import { cloudChecks } from './cloud.ts';
import { type Finding, fail, ok, runChecks, warn } from './finding.ts';
import { actuatorChecks, machineChecks } from './machine.ts';
import { rosChecks } from './ros.ts';
import { stateChecks } from './state.ts';

/** What the doctor needs from around it. */
export interface DoctorPorts {
  readonly clock: Clock;
  /** The running agent's status; rejects when none runs. */
  readonly status: (socketPath: string) => Promise<AgentStatus>;
}

/** Examines this robot's whole set-up. Needs no agent, no guard and no network, and changes nothing. */
export async function examine(configPath: string, { clock, status }: DoctorPorts): Promise<Finding[]> {
  let config: AgentConfig;
  try {
    config = loadConfig(configPath);
  } catch (error) {
    const problems = error instanceof DomainError ? error.problems : [];
    const mend = 'correct the file; outrider-edge config check looks at it alone. Nothing else can be examined before';
    if (problems.length === 0) return [{ area: 'config', ...fail(errorMessage(error), mend) }];
    return problems.map(({ field, reason }) => ({
      area: 'config',
      ...fail(`${configPath}: ${field}: ${reason}`, mend),
    }));
  }
  const running = await status(config.localApi.socketPath).catch(() => undefined);
  const sources = config.sources.map(({ type }) => type).join(', ');
  const words = `${config.path}: robot ${deviceName(config.device)}, sources: ${sources || 'none'}`;
  const ofConfig = sources === '' ? warn(words, 'name a source in sources: serial, ros2 or replay') : ok(words);
  const found = await runChecks([
    ...machineChecks(config, clock),
    ...actuatorChecks(config),
    ...rosChecks(config),
    ...stateChecks(config, running, clock),
    ...cloudChecks(config, running, clock),
  ]);
  return [{ area: 'config', ...ofConfig }, ...found];
}
