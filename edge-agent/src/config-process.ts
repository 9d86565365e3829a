import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { DomainError, type DomainErrorCode, errorMessage, type FieldProblem } from '@outrider/shared/errors';
import type { AgentConfig, ConfigOverrides } from './config.ts';
import type { GuardConfig } from './guard/guard-config.ts';

const CHILD = fileURLToPath(new URL('./config-child.js', import.meta.url));
const TIMEOUT_MS = 60_000;
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

/** What the child is asked. */
export interface ConfigRequest {
  readonly part: 'agent' | 'guard';
  readonly file: string;
  readonly overrides: ConfigOverrides;
}

interface ConfigAnswer {
  readonly config?: unknown;
  readonly error?: {
    readonly code: DomainErrorCode;
    readonly message: string;
    readonly problems?: readonly FieldProblem[];
  };
}

/**
 * Reads edge.yaml as `loadConfig` does, in a process that ends then: reading takes a YAML and a schema library, which
 * would stay in the memory of a process that runs for months and reads once.
 *
 * @param env The environment for ROS 2: that of the other process is not ours.
 * @throws DomainError `invalid`, whose message and problems name every wrong option by its path.
 */
export async function readAgentConfig(
  file: string,
  overrides: ConfigOverrides,
  env: NodeJS.ProcessEnv = {},
): Promise<AgentConfig> {
  const config = (await ask({ part: 'agent', file, overrides })) as AgentConfig;
  const sources = config.sources.map((source) =>
    source.type === 'ros2' ? { ...source, options: { ...source.options, env } } : source,
  );
  return { ...config, sources };
}

/** Reads the guard's part of edge.yaml in the same way. */
export async function readGuardConfig(file: string): Promise<GuardConfig> {
  return (await ask({ part: 'guard', file, overrides: {} })) as GuardConfig;
}

async function ask(request: ConfigRequest): Promise<unknown> {
  const text = await new Promise<string>((resolve, reject) => {
    const options = { timeout: TIMEOUT_MS, maxBuffer: ANSWER_BYTES_MAX };
    execFile(process.execPath, [CHILD, JSON.stringify(request)], options, (error, stdout, stderr) => {
      if (!error) resolve(stdout);
      else reject(new DomainError('internal', `${request.file} could not be read: ${stderr.trim() || error.message}`));
    });
  });
  let answer: ConfigAnswer;
  try {
    answer = JSON.parse(text) as ConfigAnswer;
  } catch (cause) {
    throw new DomainError('internal', `${request.file} could not be read: ${errorMessage(cause)}`, { cause });
  }
  const { config, error } = answer;
  if (!error) return config;
  throw new DomainError(error.code, error.message, { ...(error.problems && { problems: error.problems }) });
}
