import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { GPIO_DRIVERS, type GpioOptions } from '@outrider/firmware-bridge/gpio';
import { BAUD_MAX, BAUD_MIN } from '@outrider/firmware-bridge/serial-port';
import { DomainError, errorMessage, type FieldProblem } from '@outrider/shared/errors';
import type { LivenessLimits } from '@outrider/shared/failsafe/classify-liveness';
import type { JointLimits, SignalLimits } from '@outrider/shared/failsafe/classify-signals';
import { FAILSAFE_ACTIONS } from '@outrider/shared/failsafe/modes';
import { CAUSE_IDS, type FailsafePolicy, type PolicyChange, policyWith } from '@outrider/shared/failsafe/rules';
import { ROBOT_ID_PATTERN } from '@outrider/shared/ids';
import { parse } from 'yaml';
import { z } from 'zod';

const durationMs = (minMs: number, maxMs: number): z.ZodNumber => z.number().min(minMs).max(maxMs);
const celsius = z.number().min(-40).max(200);
const causeId = z.enum(CAUSE_IDS);

const jointSchema = z.strictObject({
  /** [rad] */
  position_min_rad: z.number().optional(),
  position_max_rad: z.number().optional(),
  /** Either direction. [rad/s] */
  velocity_max_radps: z.number().positive().optional(),
  /** Replaces motor_max_c for this joint; trip and clear move with it. [C] */
  temperature_max_c: celsius.optional(),
});

/** The `failsafe:` section: what stops the robot. */
export const failsafeSchema = z
  .strictObject({
    /** Limits by joint name. Joints that are not named have none of their own. */
    joints: z.record(z.string().min(1), jointSchema).default({}),
    /** Above this a motor counts as too hot; two readings in a row, or 3 of 5, stop. Windings stand 105 C. [C] */
    motor_max_c: celsius.default(85),
    /** Above this one reading stops. [C] */
    motor_trip_c: celsius.default(95),
    /** Below this a motor has cooled down. [C] */
    motor_clear_c: celsius.default(70),
    /** Temperature streams whose sensors are motors. The temperatures of joint states always are. */
    thermal_streams: z.array(z.string().min(1)).max(32).default([]),
    /** Streams without which the robot must not move. Default: the joint state of the serial source. */
    required_streams: z.array(z.string().min(1)).max(32).optional(),
    /** A stream is stale after this many of its own periods: one lost frame is normal, five are not. */
    stale_factor: z.number().min(2).max(100).default(5),
    /** No stream is stale before this: the line's and the scheduler's own jitter. [ms] */
    stale_min_ms: durationMs(20, 10_000).default(100),
    /** The microcontroller is silent after this; it answers every 20 ms. [ms] */
    mcu_silent_ms: durationMs(40, 10_000).default(100),
    /** The agent's progress counters may stand still this long. [ms] */
    agent_stuck_ms: durationMs(50, 60_000).default(200),
    /** What has never been heard is only missing after this time from the start. [ms] */
    boot_grace_ms: durationMs(0, 600_000).default(15_000),
    /** How long the microcontroller may take to arm or to stop. [ms] */
    mcu_reaction_ms: durationMs(50, 10_000).default(500),
    /** Slower than this is standing still; above the noise of the encoders. [rad/s] */
    standstill_radps: z.number().positive().max(1).default(0.02),
    /** How long each cause must stay clear before a recovery, by cause. [ms] */
    clear_dwell_ms: z.partialRecord(causeId, durationMs(0, 3_600_000)).default({}),
    /** A worse action for a cause. An action can be raised, never lowered. */
    actions: z.partialRecord(causeId, z.enum(FAILSAFE_ACTIONS)).default({}),
  })
  .superRefine((value, context) => {
    const issue = (path: (string | number)[], message: string): void => {
      context.addIssue({ code: 'custom', path, message });
    };
    if (!(value.motor_max_c < value.motor_trip_c)) issue(['motor_trip_c'], 'must be above motor_max_c');
    if (!(value.motor_clear_c < value.motor_max_c)) issue(['motor_clear_c'], 'must be below motor_max_c');
    for (const [name, joint] of Object.entries(value.joints))
      if ((joint.position_min_rad ?? -Infinity) >= (joint.position_max_rad ?? Infinity))
        issue(['joints', name, 'position_max_rad'], 'must be above position_min_rad');
    for (const { cause, reason } of policyWith(policyChanges(value)).problems) issue(['actions', cause], reason);
  });
export type FailsafeSettings = z.output<typeof failsafeSchema>;

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
  readonly signals: SignalLimits;
  readonly liveness: LivenessLimits;
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
  const file = check(path, guardFileSchema, document, []);
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
    policy: policyWith(policyChanges(failsafe)).policy,
    signals: {
      joints: Object.fromEntries(Object.entries(failsafe.joints).map(([name, joint]) => [name, jointLimits(joint)])),
      thermal: { maxC: failsafe.motor_max_c, tripC: failsafe.motor_trip_c, clearC: failsafe.motor_clear_c },
      thermalStreams: failsafe.thermal_streams,
      standstillRadps: failsafe.standstill_radps,
    },
    liveness: {
      staleFactor: failsafe.stale_factor,
      staleMsMin: failsafe.stale_min_ms,
      mcuSilentMs: failsafe.mcu_silent_ms,
      agentStuckMs: failsafe.agent_stuck_ms,
      bootGraceMs: failsafe.boot_grace_ms,
      mcuReactionMs: failsafe.mcu_reaction_ms,
    },
    requiredStreams: failsafe.required_streams ?? (serial ? ['mcu/joint_state'] : []),
  };
}

const jointLimits = (joint: z.output<typeof jointSchema>): JointLimits => ({
  positionMinRad: joint.position_min_rad,
  positionMaxRad: joint.position_max_rad,
  velocityMaxRadps: joint.velocity_max_radps,
  temperatureMaxC: joint.temperature_max_c,
});

function policyChanges(
  settings: Pick<FailsafeSettings, 'actions' | 'clear_dwell_ms'>,
): Partial<Record<(typeof CAUSE_IDS)[number], PolicyChange>> {
  return Object.fromEntries(
    CAUSE_IDS.map((cause) => {
      const action = settings.actions[cause];
      const clearDwellMs = settings.clear_dwell_ms[cause];
      return [cause, { ...(action && { action }), ...(clearDwellMs !== undefined && { clearDwellMs }) }];
    }),
  );
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
