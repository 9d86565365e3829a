import type { EpochMs } from '@outrider/shared/time';
import type { LatestSample, ShadowEntry } from '../telemetry/ports.ts';
import {
  batteryPercentage,
  failsafeOf,
  fieldValues,
  finiteOrNull,
  type JointView,
  jointsOf,
  newestOfKind,
  orientationOf,
} from './readings.ts';
import type { Robot } from './robot.ts';

/** WIA §5.1, plus what the robot measures. Unknown is null, never a default. */
export interface RobotState {
  readonly robot_id: string;
  readonly timestamp: string | null;
  readonly operational_state: string;
  readonly kinematic_state: {
    readonly base_pose: { readonly position: null; readonly orientation: ReturnType<typeof orientationOf> };
    readonly joints: readonly JointView[];
  };
  readonly battery: {
    readonly percentage: number | null;
    readonly time_remaining_minutes: null;
    readonly draw_w: number | null;
  };
  readonly temperatures: readonly { readonly name: string; readonly temperature_c: number | null }[];
  readonly failsafe: {
    readonly phase: string;
    readonly mode: string | null;
    readonly action: string;
    readonly latch_id: number | null;
    readonly causes: readonly string[];
  } | null;
  readonly streams: readonly {
    readonly stream: string;
    readonly kind: string;
    readonly recorded_at: string;
    readonly ingested_at: string;
  }[];
  readonly current_task_id: null;
}

const iso = (at: EpochMs): string => new Date(at).toISOString();

/** The robot's state from the newest sample of each stream. */
export function describeState(
  robot: Robot,
  latest: readonly LatestSample[],
  shadow: readonly ShadowEntry[],
): RobotState {
  const power = newestOfKind(latest, 'power');
  const imu = newestOfKind(latest, 'imu');
  const failsafe = failsafeOf(shadow);
  const newest = [...latest].sort((a, b) => b.recordedAt - a.recordedAt)[0];
  return {
    robot_id: robot.robotId,
    timestamp: newest ? iso(newest.recordedAt) : null,
    operational_state: robot.status,
    kinematic_state: {
      // No source measures the base's position yet.
      base_pose: { position: null, orientation: imu ? orientationOf(imu.sample) : null },
      joints: mergeJoints(latest),
    },
    battery: {
      percentage: power ? batteryPercentage(power.sample) : null,
      time_remaining_minutes: null,
      draw_w: power ? finiteOrNull(fieldValues(power.sample, 'draw')[0]) : null,
    },
    temperatures: latest
      .filter((entry) => entry.kind === 'temperature')
      .flatMap(({ sample, stream }) =>
        fieldValues(sample, 'temperature').map((value, index) => ({
          name: sample.layout.names[index] ?? stream,
          temperature_c: finiteOrNull(value),
        })),
      ),
    failsafe: failsafe
      ? {
          phase: failsafe.phase,
          mode: failsafe.mode,
          action: failsafe.action,
          latch_id: failsafe.latch_id,
          causes: failsafe.causes,
        }
      : null,
    streams: latest.map(({ stream, kind, recordedAt, ingestedAt }) => ({
      stream,
      kind,
      recorded_at: iso(recordedAt),
      ingested_at: iso(ingestedAt),
    })),
    current_task_id: null,
  };
}

/** Joints of all streams; the newest reading of a name counts. */
function mergeJoints(latest: readonly LatestSample[]): JointView[] {
  const joints = new Map<string, JointView>();
  for (const entry of latest.filter(({ kind }) => kind === 'joint_state').sort((a, b) => a.recordedAt - b.recordedAt)) {
    for (const joint of jointsOf(entry.sample)) joints.set(joint.name, joint);
  }
  return [...joints.values()];
}
