import type { CommandOutcome } from './protocol/instruction.ts';

/** What a robot can be told to do with its actuators. */
export const COMMAND_KINDS = ['set_joint_positions', 'hold', 'release'] as const;
export type CommandKind = (typeof COMMAND_KINDS)[number];

/**
 * How far a command has come. Each word is a fact that somebody witnessed:
 *
 * - `accepted`: the control plane has it in its database.
 * - `delivered`: the robot has it on its disk.
 * - `executing`: the guard has let it through its gate, and joints may move.
 * - `completed`: the robot measured that what was asked for is so.
 * - `failed`: begun, and not completed; the detail says why. The robot may have done a part of it.
 * - `rejected`: the robot did not begin it.
 * - `expired`: its time was over before it began; it will not begin.
 * - `cancelled`: called off before it ended; it does not go on.
 */
export const COMMAND_STATUSES = [
  'accepted',
  'delivered',
  'executing',
  'completed',
  'failed',
  'rejected',
  'expired',
  'cancelled',
] as const;
export type CommandStatus = (typeof COMMAND_STATUSES)[number];

/**
 * Where a command may go from where it is. A report can be lost or overtaken by a later one, so a command may pass
 * over what lies between; it never goes back, and what has ended stays as it ended.
 */
export const COMMAND_TRANSITIONS: Readonly<Record<CommandStatus, readonly CommandStatus[]>> = {
  accepted: ['delivered', 'executing', 'completed', 'failed', 'rejected', 'expired', 'cancelled'],
  delivered: ['executing', 'completed', 'failed', 'rejected', 'expired', 'cancelled'],
  executing: ['completed', 'failed', 'cancelled'],
  completed: [],
  failed: [],
  rejected: [],
  expired: [],
  cancelled: [],
};

/** Whether a command may go from one status to the other. */
export const canBecome = (from: CommandStatus, to: CommandStatus): boolean => COMMAND_TRANSITIONS[from].includes(to);

/** From where a status can be reached. */
export const statusesBefore = (to: CommandStatus): CommandStatus[] =>
  COMMAND_STATUSES.filter((from) => canBecome(from, to));

/** Whether nothing more happens to the command. */
export const hasEnded = (status: CommandStatus): boolean => COMMAND_TRANSITIONS[status].length === 0;

/** What the robot's last word on a command makes of it. */
const STATUS_OF_OUTCOME: Readonly<Record<CommandOutcome, CommandStatus>> = {
  done: 'completed',
  failed: 'failed',
  // The agent was stopped over it: nobody knows how much of it was done.
  unknown: 'failed',
  cancelled: 'cancelled',
  expired: 'expired',
  refused: 'rejected',
  unmet: 'rejected',
  conflict: 'rejected',
  stale: 'rejected',
  unauthentic: 'rejected',
};

export const statusOfOutcome = (outcome: CommandOutcome): CommandStatus => STATUS_OF_OUTCOME[outcome];

/** Joints in one command at most. */
export const COMMAND_JOINTS_MAX = 64;
/** How close a joint must come to its target when the command does not say. [rad] */
export const TOLERANCE_DEFAULT_RAD = 0.02;
/** Speed of a joint for which nothing is said, where its limit is not lower. [rad/s] */
export const JOINT_SPEED_DEFAULT_RADPS = 0.5;
/** How long a motion may take. [ms] */
export const COMMAND_TIMEOUT_MS = { min: 100, max: 60_000, default: 10_000 } as const;
/** How long a command may wait before it begins. [ms] */
export const COMMAND_EXPIRY_MS = { min: 100, max: 3_600_000, default: 30_000 } as const;

/** Where one joint is to go. */
export interface JointTarget {
  readonly name: string;
  readonly positionRad: number;
  /** At most this fast, either direction. Absent: the default, or half the joint's limit where that is lower. */
  readonly velocityMaxRadps?: number | undefined;
}

/** What is known of a joint's limits, on either side of the line. */
export interface CommandJointLimits {
  readonly positionMinRad?: number | undefined;
  readonly positionMaxRad?: number | undefined;
  readonly velocityMaxRadps?: number | undefined;
}

/** A target that cannot be. `at`: its place in the list. */
export interface TargetProblem {
  readonly at: number;
  readonly field: 'name' | 'position_rad' | 'velocity_max_radps';
  readonly reason: string;
}

/**
 * What is wrong with targets: joints that are not there or named twice, positions and speeds past a limit. The control
 * plane asks this with what was registered, the robot's guard again with what edge.yaml says.
 *
 * @param names The robot's joints; `undefined` when they are not known.
 */
export function targetProblems(
  targets: readonly JointTarget[],
  names: readonly string[] | undefined,
  limitsOf: (name: string) => CommandJointLimits | undefined,
): TargetProblem[] {
  const seen = new Set<string>();
  return targets.flatMap(({ name, positionRad, velocityMaxRadps }, at): TargetProblem[] => {
    if (seen.has(name)) return [{ at, field: 'name', reason: `'${name}' is named twice` }];
    seen.add(name);
    if (names && !names.includes(name)) return [{ at, field: 'name', reason: `the robot has no joint '${name}'` }];
    const limits = limitsOf(name) ?? {};
    const problems: TargetProblem[] = [];
    const position = (reason: string): void => void problems.push({ at, field: 'position_rad', reason });
    if (!Number.isFinite(positionRad)) position('must be a number');
    else if (positionRad < (limits.positionMinRad ?? -Infinity))
      position(`must be at least ${limits.positionMinRad} rad, the limit of '${name}'`);
    else if (positionRad > (limits.positionMaxRad ?? Infinity))
      position(`must be at most ${limits.positionMaxRad} rad, the limit of '${name}'`);
    if (
      velocityMaxRadps !== undefined &&
      !(velocityMaxRadps > 0 && velocityMaxRadps <= (limits.velocityMaxRadps ?? Infinity))
    )
      problems.push({
        at,
        field: 'velocity_max_radps',
        reason: `must be above 0${limits.velocityMaxRadps === undefined ? '' : ` and at most ${limits.velocityMaxRadps} rad/s, the limit of '${name}'`}`,
      });
    return problems;
  });
}
