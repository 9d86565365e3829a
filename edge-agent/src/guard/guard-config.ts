import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { GPIO_DRIVERS, type GpioOptions } from '@outrider/firmware-bridge/gpio-port';
import { BAUD_MAX, BAUD_MIN } from '@outrider/firmware-bridge/serial-port';
import { DomainError, errorMessage, type FieldProblem } from '@outrider/shared/errors';
import type { CommLimits } from '@outrider/shared/failsafe/classify-agent';
import type { LivenessLimits } from '@outrider/shared/failsafe/classify-liveness';
import type { JudgeLimits } from '@outrider/shared/failsafe/judge';
import type { FailsafePolicy } from '@outrider/shared/failsafe/rules';
import { ROBOT_ID_PATTERN } from '@outrider/shared/ids';
import { parse } from 'yaml';
import { z } from 'zod';
import { withPolicyFile } from './failsafe-layers.ts';
import { failsafeLimits } from './failsafe-limits.ts';
import { type FailsafeSettings, failsafeSchema } from './failsafe-schema.ts';

export { failsafeSchema } from './failsafe-schema.ts';

const gpioLine = z.number().int().min(0).max(65_535);

/** The `guard:` section: the process that stops the robot. */
export const guardSchema = z.strictObject({
  /** False: no guard at all. Only for a robot without actuators, such as a recording that is replayed. */
  enabled: z.boolean().default(true),
  /** Unix socket on which the agent reaches its guard. Relative to state_dir. */
  socket: z.string().min(1).default('guard.sock'),
  /** Whether `outrider-edge run` starts the guard itself. False: systemd does. */
  spawn: z.boolean().default(true),
  /** `fifo` and `auto` ask for SCHED_FIFO 10, without which a loaded machine delays the loop by 100 ms and more. */
  scheduling: z.enum(['auto', 'fifo', 'other']).default('auto'),
  gpio: z
    .strictObject({
      driver: z.enum(GPIO_DRIVERS).default('none'),
      /** Normally closed contact: high means clear. */
      estop_input: gpioLine.optional(),
      /** High means the robot may run. */
      stop_output: gpioLine.optional(),
      chip: z.string().min(1).optional(),
      /** For `simulated`: a file with `clear` or `pressed` in it. */
      file: z.string().min(1).optional(),
    })
    .prefault({}),
});
export type GuardSettings = z.output<typeof guardSchema>;

/** The parts of edge.yaml that a guard started alone takes. Everything else is the agent's business. */
const guardFileSchema = z.object({
  robot: z.object({ id: z.string().regex(ROBOT_ID_PATTERN, 'must be 1 to 43 characters of A-Z a-z 0-9 _ -') }),
  state_dir: z.string().min(1),
  sources: z.array(z.looseObject({ type: z.string() })).default([]),
  failsafe: failsafeSchema.prefault({}),
  guard: guardSchema.prefault({}),
  log: z.object({ level: z.string().default('info') }).prefault({}),
});

const serialSchema = z.object({
  path: z.string().min(1),
  baud: z.number().int().min(BAUD_MIN).max(BAUD_MAX).default(921_600),
});

/** All that the guard process needs to know. */
export interface GuardConfig {
  readonly robotId: string;
  readonly socketPath: string;
  readonly latchDir: string;
  readonly serial: { readonly path: string; readonly baud: number } | undefined;
  readonly scheduling: GuardSettings['scheduling'];
  readonly gpio: GpioOptions;
  readonly policy: FailsafePolicy;
  readonly signals: JudgeLimits;
  readonly liveness: LivenessLimits;
  readonly comm: CommLimits;
  /** How long a stop may stay unacknowledged before every other path is taken. [ms] */
  readonly stopConfirmMs: number;
  readonly requiredStreams: readonly string[];
  readonly logLevel: string;
}

/**
 * Reads the guard's part of edge.yaml.
 *
 * @throws DomainError `invalid`, whose message and problems name the options by their path.
 */
export async function loadGuardConfig(path: string): Promise<GuardConfig> {
  let document: unknown;
  try {
    document = parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new DomainError('invalid', `${path}: ${errorMessage(cause)}`, { cause });
  }
  const file = check(path, guardFileSchema, withPolicyFile(document, path), []);
  const index = file.sources.findIndex((source) => source.type === 'serial');
  const serial = index < 0 ? undefined : check(path, serialSchema, file.sources[index], ['sources', index]);
  const base = dirname(resolve(path));
  const stateDir = resolve(base, file.state_dir);
  return {
    ...guardConfig(file.failsafe, file.guard, serial && { ...serial, path: resolve(base, serial.path) }, stateDir),
    robotId: file.robot.id,
    logLevel: file.log.level,
  };
}

/** The guard's config out of parsed sections. */
export function guardConfig(
  failsafe: FailsafeSettings,
  guard: GuardSettings,
  serial: GuardConfig['serial'],
  stateDir: string,
): Omit<GuardConfig, 'robotId' | 'logLevel'> {
  const { driver, estop_input, stop_output, chip, file } = guard.gpio;
  return {
    socketPath: resolve(stateDir, guard.socket),
    latchDir: resolve(stateDir, 'latches'),
    serial,
    scheduling: guard.scheduling,
    gpio: {
      driver,
      ...(estop_input !== undefined && { estopInput: estop_input }),
      ...(stop_output !== undefined && { stopOutput: stop_output }),
      ...(chip !== undefined && { chip }),
      ...(file !== undefined && { file: resolve(stateDir, file) }),
    },
    ...failsafeLimits(failsafe),
    requiredStreams: failsafe.required_streams ?? (serial ? ['mcu/joint_state'] : []),
  };
}

function check<T extends z.ZodType>(file: string, schema: T, value: unknown, at: readonly PropertyKey[]): z.output<T> {
  const result = schema.safeParse(value ?? {});
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue): FieldProblem => {
    const field = [...at, ...issue.path].map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`));
    return { field: field.join('').replace(/^\./, ''), reason: issue.message };
  });
  const words = problems.map(({ field, reason }) => `${field}: ${reason}`).join('; ');
  throw new DomainError('invalid', `${file}: ${words}`, { problems });
}
