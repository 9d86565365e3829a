import { type CommandJointLimits, type CommandKind, type JointTarget, targetProblems } from '@outrider/shared/command';
import { DomainError, type FieldProblem } from '@outrider/shared/errors';
import type { OperationalState } from '@outrider/shared/robot';

/** What the control plane knows of a robot that bears on a command. */
export interface CommandFacts {
  readonly status: OperationalState;
  readonly capabilities: Readonly<Record<string, unknown>>;
  /** As it last reported; `undefined` when it never did. */
  readonly failsafe:
    | {
        readonly phase: string;
        readonly causes: readonly string[];
        readonly motionEpoch: number;
        readonly isOutdated: boolean;
      }
    | undefined;
  /** Names in its newest joint state; `undefined` when there is none. */
  readonly jointNames: readonly string[] | undefined;
}

/**
 * Whether a robot may be told this now, as far as is known here. The robot asks all of it again.
 *
 * @returns The motion epoch that the command is for.
 * @throws DomainError `bad_state` or `rejected` for the robot's state, `invalid` for targets that cannot be.
 */
export function admit(kind: CommandKind, joints: readonly JointTarget[], facts: CommandFacts): number {
  if (facts.status === 'maintenance')
    throw refuse('bad_state', 'the robot is in maintenance and takes no commands', [
      { field: 'operating_mode', reason: 'maintenance' },
    ]);
  const { failsafe } = facts;
  if (!failsafe) throw refuse('bad_state', 'the robot has not reported its failsafe yet', []);
  // A robot that has said more lately than what is stored of it is the one to judge.
  if (!failsafe.isOutdated && failsafe.phase !== 'ARMED')
    throw refuse('rejected', `the robot takes no commands: its failsafe is ${failsafe.phase}`, [
      { field: 'failsafe', reason: failsafe.phase },
      ...failsafe.causes.map((cause): FieldProblem => ({ field: 'cause', reason: cause })),
    ]);
  const known = namesOf(facts.capabilities['commands']);
  if (known && !known.includes(kind))
    throw refuse('rejected', `the robot was registered without the command '${kind}'`, [
      { field: 'command', reason: `must be one of ${known.join(', ')}` },
    ]);
  const limits = registeredJoints(facts.capabilities['joints']);
  const names = facts.jointNames ?? (limits && [...limits.keys()]);
  const problems = targetProblems(joints, names, (name) => limits?.get(name)).map(
    ({ at, field, reason }): FieldProblem => ({ field: `parameters.joints[${at}].${field}`, reason }),
  );
  const [first] = problems;
  if (first) throw new DomainError('invalid', `${first.field} ${first.reason}`, { problems });
  return failsafe.motionEpoch;
}

const refuse = (code: 'bad_state' | 'rejected', message: string, problems: readonly FieldProblem[]): DomainError =>
  new DomainError(code, message, { subject: 'robot', problems });

/** A list of names, or the keys of an object. */
function namesOf(value: unknown): string[] | undefined {
  if (Array.isArray(value)) return value.filter((name) => typeof name === 'string');
  return isRecord(value) ? Object.keys(value) : undefined;
}

/**
 * Joints as they were registered: names, objects with a `name`, or an object by name. Limits are
 * `position_min_rad`, `position_max_rad` and `velocity_max_radps`; anything else is the integrator's own.
 */
function registeredJoints(value: unknown): Map<string, CommandJointLimits> | undefined {
  if (isRecord(value)) return new Map(Object.entries(value).map(([name, joint]) => [name, limitsOf(joint)]));
  if (!Array.isArray(value)) return undefined;
  const joints = value.flatMap((joint): [string, CommandJointLimits][] => {
    if (typeof joint === 'string') return [[joint, {}]];
    const name = isRecord(joint) ? joint['name'] : undefined;
    return typeof name === 'string' ? [[name, limitsOf(joint)]] : [];
  });
  return joints.length > 0 ? new Map(joints) : undefined;
}

function limitsOf(value: unknown): CommandJointLimits {
  if (!isRecord(value)) return {};
  const number = (key: string): number | undefined => {
    const found = value[key];
    return typeof found === 'number' && Number.isFinite(found) ? found : undefined;
  };
  return {
    positionMinRad: number('position_min_rad'),
    positionMaxRad: number('position_max_rad'),
    velocityMaxRadps: number('velocity_max_radps'),
  };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
