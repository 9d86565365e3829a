import { DomainError } from '@outrider/shared/errors';
import { failsafeOf, newestOfKind } from '../fleet/readings.ts';
import type { Robot, RobotRef } from '../fleet/robot.ts';
import type { TelemetryReader } from '../telemetry/ports.ts';
import type { CommandFacts } from './gate.ts';

/** The stream whose joints a command can move. */
const OWN_JOINTS = 'mcu/joint_state';

export interface FactSources {
  readonly readRobot: (tenantId: string, robotId: string) => Promise<Robot | undefined>;
  readonly reader: Pick<TelemetryReader, 'shadow' | 'latest'>;
  /** The newest motion epoch that the robot has spoken of, in an answer or in its state. */
  readonly motionEpoch: (robot: RobotRef) => Promise<number | undefined>;
}

/** What is known of a robot that bears on a command. @throws DomainError `not_found` */
export async function readCommandFacts(
  { readRobot, reader, motionEpoch }: FactSources,
  robot: RobotRef,
  needsJoints: boolean,
): Promise<CommandFacts> {
  const [known, shadow, latest, epoch] = await Promise.all([
    readRobot(robot.tenantId, robot.robotId),
    reader.shadow(robot.robotPk),
    needsJoints ? reader.latest(robot.robotPk) : [],
    motionEpoch(robot),
  ]);
  if (!known)
    throw new DomainError('not_found', `Robot with ID '${robot.robotId}' not found`, {
      subject: 'robot',
      details: { robot_id: robot.robotId },
    });
  const said = failsafeOf(shadow);
  const joints = latest.find(({ stream }) => stream === OWN_JOINTS) ?? newestOfKind(latest, 'joint_state');
  return {
    status: known.status,
    capabilities: known.capabilities,
    failsafe:
      said === undefined || epoch === undefined
        ? undefined
        : {
            phase: said.phase,
            causes: said.causes,
            motionEpoch: epoch,
            isOutdated: epoch > (said.motion_epoch ?? 0),
          },
    jointNames: joints && joints.sample.layout.names.length > 0 ? joints.sample.layout.names : undefined,
  };
}
