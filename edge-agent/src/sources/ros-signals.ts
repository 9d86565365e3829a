import { DomainError } from '@outrider/shared/errors';
import { CdrReader } from './cdr.ts';
import { MESSAGE_BYTES_MAX } from './ros-messages.ts';

/** Message types that the failsafe looks at and that are no telemetry. */
export const ROS_SIGNAL_TYPES = [
  'nav_msgs/msg/Odometry',
  'geometry_msgs/msg/PoseStamped',
  'sensor_msgs/msg/NavSatFix',
  'control_msgs/msg/JointTrajectoryControllerState',
  'sensor_msgs/msg/JointState',
] as const;
export type RosSignalType = (typeof ROS_SIGNAL_TYPES)[number];

/** What such a message is taken for. */
export const ROS_SIGNAL_USES = ['position', 'motion', 'command'] as const;
export type RosSignalUse = (typeof ROS_SIGNAL_USES)[number];

/** What a type can be used for; the first one unless the configuration says. */
export const ROS_SIGNAL_TYPE_USES: Readonly<Record<RosSignalType, readonly RosSignalUse[]>> = {
  'nav_msgs/msg/Odometry': ['position', 'motion'],
  'geometry_msgs/msg/PoseStamped': ['position'],
  'sensor_msgs/msg/NavSatFix': ['position'],
  'control_msgs/msg/JointTrajectoryControllerState': ['command'],
  'sensor_msgs/msg/JointState': ['command'],
};

/** One message, as the failsafe takes it. NaN: the message was there and does not say. */
export type RosSignal =
  | { readonly use: 'position'; readonly frame: 'map' | 'wgs84'; readonly at: readonly [number, number] }
  | { readonly use: 'motion'; readonly speedMps: number; readonly turnRadps: number }
  | { readonly use: 'command'; readonly names: readonly string[]; readonly positionRad: readonly number[] };

const NOWHERE = [Number.NaN, Number.NaN] as const;
const NAMES_MAX = 1024;
const QUATERNION = 4;
const QUATERNION_AND_COVARIANCE = QUATERNION + 36;
const ALTITUDE_AND_COVARIANCE = 1 + 9;

/** Reads one message. What cannot be read says NaN, which the guard takes for a sensor that is broken. */
export function readRosSignal(type: RosSignalType, use: RosSignalUse, frameId: string, payload: Uint8Array): RosSignal {
  const frame = type === 'sensor_msgs/msg/NavSatFix' ? 'wgs84' : 'map';
  try {
    if (payload.length > MESSAGE_BYTES_MAX) throw new DomainError('invalid', 'too long');
    const cdr = new CdrReader(payload);
    cdr.int32();
    cdr.uint32();
    const givenFrame = cdr.string();
    if (use === 'command') return commandOf(cdr);
    if (frame === 'wgs84') return { use: 'position', frame, at: fixOf(cdr) };
    if (type === 'nav_msgs/msg/Odometry') cdr.string();
    const [x = Number.NaN, y = Number.NaN] = float64s(cdr, 3);
    float64s(cdr, type === 'nav_msgs/msg/Odometry' ? QUATERNION_AND_COVARIANCE : QUATERNION);
    // A position in another frame is not one in this fence.
    if (use === 'position') return { use, frame, at: givenFrame.replace(/^\//, '') === frameId ? [x, y] : NOWHERE };
    const [vx = 0, vy = 0, vz = 0, wx = 0, wy = 0, wz = 0] = float64s(cdr, 6);
    return { use, speedMps: Math.hypot(vx, vy, vz), turnRadps: Math.hypot(wx, wy, wz) };
  } catch {
    if (use === 'position') return { use, frame, at: NOWHERE };
    return use === 'motion'
      ? { use, speedMps: Number.NaN, turnRadps: Number.NaN }
      : { use, names: [], positionRad: [] };
  }
}

/** Names, and the first trajectory point: `reference`, which older distributions call `desired`; or the positions. */
function commandOf(cdr: CdrReader): RosSignal {
  const count = cdr.sequenceLength(4);
  if (count > NAMES_MAX) throw new DomainError('invalid', 'too many names');
  const names = Array.from({ length: count }, () => cdr.string());
  const width = cdr.sequenceLength(8);
  if (width > NAMES_MAX) throw new DomainError('invalid', 'too many positions');
  return { use: 'command', names, positionRad: [...float64s(cdr, width)] };
}

/** Latitude and longitude; a receiver without a fix says so in its status. */
function fixOf(cdr: CdrReader): readonly [number, number] {
  const hasFix = cdr.uint8() < 0x80;
  // The service, 16 bit, on the next even byte; latitude stands on the next multiple of eight.
  cdr.uint8();
  cdr.uint8();
  const [latitude = Number.NaN, longitude = Number.NaN] = float64s(cdr, 2);
  float64s(cdr, ALTITUDE_AND_COVARIANCE);
  return hasFix ? [latitude, longitude] : NOWHERE;
}

function float64s(cdr: CdrReader, count: number): Float64Array {
  const values = new Float64Array(count);
  cdr.float64sAt(cdr.skipFloat64s(count), count, values, 0);
  return values;
}
