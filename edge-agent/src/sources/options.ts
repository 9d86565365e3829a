import { z } from 'zod';
import { rosTypeName } from './ros-messages.ts';
import { ROS_SIGNAL_TYPE_USES, ROS_SIGNAL_TYPES, ROS_SIGNAL_USES } from './ros-signals.ts';

const rateHz = z.number().min(0).max(10_000);
const streamName = z.string().min(1).max(256);

/** A type name in either spelling, made today's. */
const rosType = z.string().transform((name, context) => {
  const type = rosTypeName(name);
  if (type) return type;
  context.addIssue({ code: 'custom', message: `'${name}' is not a message type that becomes telemetry` });
  return z.NEVER;
});

/**
 * How a subscription asks for messages. `sensor_data` takes from every publisher, because it asks for the least;
 * `default` (reliable) gets nothing from a best-effort publisher.
 */
export const qosSchema = z.union([
  z.enum(['sensor_data', 'default']),
  z.strictObject({
    reliability: z.enum(['reliable', 'best_effort']).default('best_effort'),
    durability: z.enum(['volatile', 'transient_local']).default('volatile'),
    depth: z.number().int().min(1).max(1000).default(10),
  }),
]);
export type QosSetting = z.infer<typeof qosSchema>;

/** One ROS topic to listen to. */
export const ros2TopicSchema = z
  .strictObject({
    topic: z.string().regex(/^\/[A-Za-z0-9_/]+$/, 'must be a full ROS topic name such as /joint_states'),
    type: rosType,
    /** What the publisher promises. 0: nothing, and staleness is judged by a default. [Hz] */
    rate_hz: rateHz.default(0),
    qos: qosSchema.default('sensor_data'),
    /** Name of the stream; the topic's own unless given. */
    stream: streamName.optional(),
  })
  .transform(({ topic, type, rate_hz, qos, stream }) => ({
    topic,
    type,
    rateHz: rate_hz,
    qos,
    stream: stream ?? topic,
  }));
export type Ros2Topic = z.infer<typeof ros2TopicSchema>;

/** One ROS topic that only the failsafe looks at: where the robot is, how it moves, what its joints are told. */
export const ros2SignalSchema = z
  .strictObject({
    topic: z.string().regex(/^\/[A-Za-z0-9_/]+$/, 'must be a full ROS topic name such as /odom'),
    type: z.enum(ROS_SIGNAL_TYPES),
    /** What to take from it; the type's own use unless given. */
    use: z.enum(ROS_SIGNAL_USES).optional(),
    rate_hz: rateHz.default(0),
    qos: qosSchema.default('sensor_data'),
    /** A position in any other frame counts as unknown. Without meaning for NavSatFix, motion and commands. */
    frame_id: z.string().min(1).max(256).default('map'),
  })
  .transform(({ topic, type, use, rate_hz, qos, frame_id }, context) => {
    const uses = ROS_SIGNAL_TYPE_USES[type];
    const found = use ?? uses[0];
    if (found !== undefined && uses.includes(found))
      return { topic, type, use: found, rateHz: rate_hz, qos, frameId: frame_id };
    context.addIssue({ code: 'custom', path: ['use'], message: `a ${type} can be used for ${uses.join(' or ')}` });
    return z.NEVER;
  });
export type Ros2Signal = z.infer<typeof ros2SignalSchema>;

/** One topic of a recording to replay. Without any, every topic of a known type is. */
export const replayTopicSchema = z
  .strictObject({
    topic: z.string().min(1),
    type: rosType.optional(),
    rate_hz: rateHz.default(0),
    stream: streamName.optional(),
  })
  .transform(({ topic, type, rate_hz, stream }) => ({
    topic,
    rateHz: rate_hz,
    stream: stream ?? topic,
    ...(type === undefined ? {} : { type }),
  }));
export type ReplayTopic = z.infer<typeof replayTopicSchema>;

/** Units a CSV column may be in. Each is converted to the field's SI unit where the value enters. */
export const CSV_UNITS = {
  deg: (value: number) => (value * Math.PI) / 180,
  'deg/s': (value: number) => (value * Math.PI) / 180,
  rpm: (value: number) => (value * 2 * Math.PI) / 60,
  percent: (value: number) => value / 100,
  K: (value: number) => value - 273.15,
  degF: (value: number) => ((value - 32) * 5) / 9,
  mV: (value: number) => value / 1000,
  mA: (value: number) => value / 1000,
  mAh: (value: number) => value / 1000,
  mm: (value: number) => value / 1000,
  g: (value: number) => value * 9.80665,
} as const;
export type CsvUnit = keyof typeof CSV_UNITS;

const csvColumn = z.union([z.string().min(1), z.number().int().min(1)]);
const csvField = z.union([
  csvColumn.transform((column) => ({ column, unit: undefined, negate: false })),
  z.strictObject({
    column: csvColumn,
    /** Absent: the column is in the field's SI unit already. */
    unit: z.enum(Object.keys(CSV_UNITS) as [CsvUnit, ...CsvUnit[]]).optional(),
    /** Turns the sign, for instance of a current that is logged negative while discharging. */
    negate: z.boolean().default(false),
  }),
]);

/** Fields that a CSV may fill, by kind, in the order that their values have in a sample; with the width if fixed. */
export const CSV_FIELDS = {
  joint_state: { position: 0, velocity: 0, effort: 0, temperature: 0 },
  imu: {
    orientation: 4,
    orientation_covariance: 9,
    angular_velocity: 3,
    angular_velocity_covariance: 9,
    linear_acceleration: 3,
    linear_acceleration_covariance: 9,
  },
  power: {
    voltage: 1,
    current: 1,
    state_of_charge: 1,
    draw: 1,
    temperature: 1,
    charge: 1,
    capacity: 1,
    design_capacity: 1,
    cell_voltage: 0,
    cell_temperature: 0,
  },
  temperature: { temperature: 1, variance: 1 },
} as const;
export type CsvKind = keyof typeof CSV_FIELDS;

const csvStream = z
  .strictObject({
    stream: streamName,
    kind: z.enum(Object.keys(CSV_FIELDS) as [CsvKind, ...CsvKind[]]),
    rate_hz: rateHz.default(0),
    names: z.array(z.string().min(1).max(256)).max(1024).default([]),
    fields: z.record(z.string(), z.array(csvField).min(1).max(1024)),
  })
  .superRefine(({ kind, fields }, context) => {
    const known: Readonly<Record<string, number>> = CSV_FIELDS[kind];
    for (const [name, columns] of Object.entries(fields)) {
      const width = known[name];
      const message =
        width === undefined
          ? `a ${kind} has no field '${name}'; it has ${Object.keys(known).join(', ')}`
          : `${name} has ${width} values, not ${columns.length}`;
      if (width === undefined || (width !== 0 && width !== columns.length))
        context.addIssue({ code: 'custom', message, path: ['fields', name] });
    }
    if (Object.keys(fields).length === 0)
      context.addIssue({ code: 'custom', message: 'names no field', path: ['fields'] });
  });

/** Which columns of a CSV file become which fields. Columns are named by the header, or by number from 1. */
export const csvMappingSchema = z.strictObject({
  delimiter: z.string().length(1).default(','),
  /** Some European exports write 0,5 for a half. */
  decimal: z.enum(['.', ',']).default('.'),
  header: z.boolean().default(true),
  /** Without it rows are `rate_hz` apart, counted from `start`, and have no stamp. */
  time: z.strictObject({ column: csvColumn, unit: z.enum(['iso', 's', 'ms', 'us', 'ns']).default('iso') }).optional(),
  /** Rows per second where there is no time column. [Hz] */
  rate_hz: z.number().positive().max(10_000).default(10),
  /** What a time of 0 means. */
  start: z.iso.datetime({ offset: true }).default('1970-01-01T00:00:00Z'),
  streams: z.array(csvStream).min(1).max(64),
});
export type CsvMapping = z.infer<typeof csvMappingSchema>;

/** A source as edge.yaml names it: live ROS 2 topics. Relative paths are relative to edge.yaml. */
export const ros2SourceSchema = z
  .strictObject({
    type: z.literal('ros2'),
    /** Name in status and logs. */
    name: z.string().min(1).max(64).default('ros2'),
    /** The setup.bash to source. Without it the agent must have been started from a sourced shell. */
    setup: z.string().min(1).optional(),
    /** Refuse any other distribution, so that an upgrade of the machine is noticed. Any by default. */
    distro: z
      .string()
      .regex(/^[a-z]+$/)
      .optional(),
    /** ROS_DOMAIN_ID. Default: the sourced environment's. */
    domain_id: z.number().int().min(0).max(232).optional(),
    node_name: z
      .string()
      .regex(/^[A-Za-z][A-Za-z0-9_]*$/, 'must be a ROS node name: letters, digits and _')
      .default('outrider_edge'),
    /** Folder whose node_modules holds rclnodejs, when it was installed apart from the agent. */
    rclnodejs_dir: z.string().min(1).optional(),
    topics: z.array(ros2TopicSchema).min(1).max(64),
  })
  .superRefine(({ topics }, context) => refuseTwins(topics, context));
export type Ros2SourceSettings = z.infer<typeof ros2SourceSchema>;

/** A source as edge.yaml names it: a recording. Relative paths are relative to edge.yaml. */
export const replaySourceSchema = z
  .strictObject({
    type: z.literal('replay'),
    /** Name in status and logs. */
    name: z.string().min(1).max(64).default('replay'),
    /** A rosbag2 `.mcap` or `.db3` file, or a `.csv` with `columns`. */
    file: z.string().min(1),
    /** Recorded seconds per second; 0: as fast as the outbox takes them. */
    speed: z.number().min(0).max(10_000).default(1),
    /** Start again at the end. The stamps stay the recorded ones. */
    loop: z.boolean().default(false),
    topics: z.array(replayTopicSchema).min(1).max(256).optional(),
    columns: csvMappingSchema.optional(),
  })
  .superRefine(({ topics = [] }, context) => refuseTwins(topics, context));
export type ReplaySourceSettings = z.infer<typeof replaySourceSchema>;

/** Two topics in one stream would mix their samples. */
function refuseTwins(topics: readonly { readonly stream: string }[], context: z.RefinementCtx): void {
  topics.forEach(({ stream }, i) => {
    if (topics.findIndex((other) => other.stream === stream) < i)
      context.addIssue({ code: 'custom', message: `stream '${stream}' is used twice`, path: ['topics', i, 'stream'] });
  });
}
