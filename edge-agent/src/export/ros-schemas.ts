/** A message type that a channel of a recording can have. */
export interface MessageSchema {
  readonly name: string;
  readonly encoding: 'ros2msg' | 'jsonschema';
  readonly messageEncoding: 'cdr' | 'json';
  readonly text: string;
}

const HEADER = `================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
`;
const VECTOR3 = `================================================================================
MSG: geometry_msgs/Vector3
float64 x
float64 y
float64 z
`;
const QUATERNION = `================================================================================
MSG: geometry_msgs/Quaternion
float64 x 0
float64 y 0
float64 z 0
float64 w 1
`;

const ros = (name: string, ...parts: string[]): MessageSchema => ({
  name,
  encoding: 'ros2msg',
  messageEncoding: 'cdr',
  text: parts.join(''),
});

export const JOINT_STATE = ros(
  'sensor_msgs/msg/JointState',
  `std_msgs/Header header
string[] name
float64[] position
float64[] velocity
float64[] effort
`,
  HEADER,
);

export const IMU = ros(
  'sensor_msgs/msg/Imu',
  `std_msgs/Header header
geometry_msgs/Quaternion orientation
float64[9] orientation_covariance
geometry_msgs/Vector3 angular_velocity
float64[9] angular_velocity_covariance
geometry_msgs/Vector3 linear_acceleration
float64[9] linear_acceleration_covariance
`,
  HEADER,
  QUATERNION,
  VECTOR3,
);

export const BATTERY_STATE = ros(
  'sensor_msgs/msg/BatteryState',
  `std_msgs/Header header
float32 voltage
float32 temperature
float32 current
float32 charge
float32 capacity
float32 design_capacity
float32 percentage
uint8 power_supply_status
uint8 power_supply_health
uint8 power_supply_technology
bool present
float32[] cell_voltage
float32[] cell_temperature
string location
string serial_number
`,
  HEADER,
);

export const TEMPERATURE = ros(
  'sensor_msgs/msg/Temperature',
  `std_msgs/Header header
float64 temperature
float64 variance
`,
  HEADER,
);

/** Several sensors, or the motors of joints: ROS has a type for one sensor only. */
export const TEMPERATURES = ros(
  'outrider_msgs/msg/Temperatures',
  `std_msgs/Header header
string[] name
float64[] temperature
`,
  HEADER,
);

/** What the stream's ROS type has no place for, or only in single precision. */
export const VALUES = ros(
  'outrider_msgs/msg/Values',
  `std_msgs/Header header
string[] name
float64[] value
`,
  HEADER,
);

/** Samples without a ROS type. Numbers that JSON cannot say are the texts NaN, Infinity and -Infinity. */
export const JSON_SAMPLE: MessageSchema = {
  name: 'outrider.Sample',
  encoding: 'jsonschema',
  messageEncoding: 'json',
  text: JSON.stringify({
    type: 'object',
    properties: {
      stamp_ns: { type: 'string' },
      flags: { type: 'array', items: { type: 'string' } },
      names: { type: 'array', items: { type: 'string' } },
      values: { type: 'object' },
      text: { type: 'string' },
    },
  }),
};
