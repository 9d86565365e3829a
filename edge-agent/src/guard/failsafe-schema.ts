import { COMM_POLICIES } from '@outrider/shared/failsafe/classify-agent';
import { FAILSAFE_ACTIONS } from '@outrider/shared/failsafe/modes';
import { CAUSE_IDS, type CauseId, type PolicyChange, policyWith } from '@outrider/shared/failsafe/rules';
import { z } from 'zod';

const durationMs = (minMs: number, maxMs: number): z.ZodNumber => z.number().min(minMs).max(maxMs);
const celsius = z.number().min(-40).max(200);
const share = z.number().min(0).max(1);
const angleDeg = z.number().positive().max(180);
const causeId = z.enum(CAUSE_IDS);
const streams = z.array(z.string().min(1)).max(32);

const jointSchema = z.strictObject({
  /** [rad] */
  position_min_rad: z.number().optional(),
  position_max_rad: z.number().optional(),
  /** Either direction. [rad/s] */
  velocity_max_radps: z.number().positive().optional(),
  /** Torque, either direction. [N·m] */
  effort_max_nm: z.number().positive().optional(),
  /** Replaces tracking_max_rad for this joint. [rad] */
  tracking_max_rad: z.number().positive().optional(),
  /** Replaces motor_max_c for this joint; trip and clear move with it. [C] */
  temperature_max_c: celsius.optional(),
});

const encoderSchema = z.strictObject({
  /** Fastest that a joint without a velocity limit can move; one with a limit: twice that. [rad/s] */
  jump_max_radps: z.number().positive().default(50),
  /** What an encoder may be off by from one sample to the next, beside motion. [rad] */
  jump_margin_rad: z.number().positive().default(0.2),
  /** A joint that says it moves must change its position within this time. [ms] */
  frozen_ms: durationMs(100, 60_000).default(1000),
});

const bodySchema = z.strictObject({
  /** Streams whose IMU is fixed to the body, z up when the robot stands. */
  imu_streams: streams.default(['mcu/imu']),
  /** Leaning further is tilt. Robots get up from less; a robot that leans this far falls. [deg] */
  roll_max_deg: angleDeg.default(45),
  pitch_max_deg: angleDeg.default(45),
  /** Within both it stands upright again. [deg] */
  upright_max_deg: angleDeg.default(30),
  /** Less acceleration than this is free fall. [m/s²] */
  free_fall_mps2: z.number().positive().max(9).default(3),
  /** Free fall of this length is a fall when tilt or impact follows within a second: 5 cm. [ms] */
  free_fall_ms: durationMs(20, 2000).default(100),
  /** Free fall of this length is a fall by itself: 44 cm. [ms] */
  free_fall_max_ms: durationMs(50, 5000).default(300),
  /** More acceleration than this is an impact. [m/s²] */
  impact_mps2: z.number().min(15).max(2000).default(30),
});

const batterySchema = z.strictObject({
  /** Streams of the batteries that the robot runs on. */
  streams: streams.default(['mcu/power']),
  /** Below, and not charging: critical. [0–1] */
  critical_soc: share.default(0.05),
  /** Above, or charging: no longer critical. [0–1] */
  clear_soc: share.default(0.15),
  /** Below, and not charging: low. [0–1] */
  low_soc: share.default(0.2),
  /** Below: critical. Depends on the pack, so there is no default. [V] */
  voltage_min_v: z.number().positive().max(2000).optional(),
  /** A drop by this part of the voltage of the last half minute is a sag. [0–1] */
  sag_ratio: share.default(0.15),
  /** Lithium cells: above bad, above trip at once, below clear again. [C] */
  max_c: celsius.default(55),
  trip_c: celsius.default(65),
  clear_c: celsius.default(45),
});

const geofenceSchema = z.strictObject({
  /** `map`: corners are x y in metres. `wgs84`: latitude longitude in degrees. */
  frame: z.enum(['map', 'wgs84']),
  corners: z
    .array(z.tuple([z.number(), z.number()]))
    .min(3)
    .max(256),
  /** How far inside it must be to be let go. [m] */
  margin_m: z.number().min(0).max(1000).default(0.2),
});

const commSchema = z.strictObject({
  /** What a lost link means while no mission asks for more. A robot on its own works offline. */
  policy: z.enum(COMM_POLICIES).default('ignore'),
  /** A link that was silent for longer is lost. [ms] */
  lost_ms: durationMs(500, 3_600_000).default(3000),
  /** How long `ignore` and `derate` go on before they hold; 0: without end. [ms] */
  max_ms: durationMs(0, 2_592_000_000).default(0),
});

/** The `failsafe:` section and a policy file: what stops the robot. */
export const failsafeSchema = z
  .strictObject({
    /** A YAML file with the same options, under those given here. Relative to the file that names it. */
    policy_file: z.string().min(1).optional(),
    /** Allows limits beyond the defaults in this file; `looser_reason` must say why. */
    accept_looser: z.boolean().default(false),
    looser_reason: z.string().max(500).default(''),
    /** Limits by joint name. Joints that are not named have none of their own. */
    joints: z.record(z.string().min(1), jointSchema).default({}),
    /** How far a joint may be from its commanded position, where a stream says it. [rad] */
    tracking_max_rad: z.number().positive().default(0.5),
    encoder: encoderSchema.prefault({}),
    /** Above this a motor counts as too hot; two readings in a row, or 3 of 5, stop. Windings stand 105 C. [C] */
    motor_max_c: celsius.default(85),
    /** Above this one reading stops. [C] */
    motor_trip_c: celsius.default(95),
    /** Below this a motor has cooled down. [C] */
    motor_clear_c: celsius.default(70),
    /** A motor may not heat up faster than this: a stalled winding does. [C/s] */
    motor_rise_max_cps: z.number().positive().max(100).default(5),
    /** Over which time the rise is measured. [ms] */
    rise_window_ms: durationMs(1000, 60_000).default(5000),
    /** Temperature streams whose sensors are motors. The temperatures of joint states always are. */
    thermal_streams: streams.default([]),
    body: bodySchema.prefault({}),
    battery: batterySchema.prefault({}),
    /** The area that the robot must not leave. Default: none. */
    geofence: geofenceSchema.optional(),
    /** How fast a robot outside its geofence may move back. [m/s] */
    inward_speed_max_mps: z.number().positive().max(1).default(0.1),
    comm: commSchema.prefault({}),
    /** Less free space than this where the state is: a warning. [MB] */
    disk_min_mb: z.number().min(1).max(1_000_000).default(256),
    /** A stream below this part of its declared rate is slow. */
    slow_factor: share.default(0.5),
    /** Part of its speed that a derated robot may use. */
    derate_speed_factor: share.default(0.5),
    /** Streams without which the robot must not move. Default: the joint state of the serial source. */
    required_streams: streams.optional(),
    /** A stream is stale after this many of its own periods: one lost frame is normal, five are not. */
    stale_factor: z.number().min(2).max(100).default(5),
    /** No stream is stale before this. A loaded host delays the guard itself by 100 ms and more. [ms] */
    stale_min_ms: durationMs(20, 10_000).default(200),
    /** The microcontroller is silent after this; it answers every 20 ms. Its own lease on us is 300 ms. [ms] */
    mcu_silent_ms: durationMs(40, 10_000).default(200),
    /** The agent's progress counters may stand still this long. [ms] */
    agent_stuck_ms: durationMs(50, 60_000).default(200),
    /** What has never been heard is only missing after this time from the start. [ms] */
    boot_grace_ms: durationMs(0, 600_000).default(15_000),
    /** How long the microcontroller may take to arm or to stop. [ms] */
    mcu_reaction_ms: durationMs(50, 10_000).default(500),
    /** How long it may take to acknowledge a stop before every other path is taken. [ms] */
    stop_confirm_ms: durationMs(20, 5000).default(200),
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
    const { battery, body } = value;
    if (value.accept_looser && value.looser_reason.trim() === '')
      issue(['looser_reason'], 'must say why accept_looser is set');
    if (!(value.motor_max_c < value.motor_trip_c)) issue(['motor_trip_c'], 'must be above motor_max_c');
    if (!(value.motor_clear_c < value.motor_max_c)) issue(['motor_clear_c'], 'must be below motor_max_c');
    if (!(battery.max_c < battery.trip_c)) issue(['battery', 'trip_c'], 'must be above max_c');
    if (!(battery.clear_c < battery.max_c)) issue(['battery', 'clear_c'], 'must be below max_c');
    if (!(battery.critical_soc < battery.clear_soc)) issue(['battery', 'clear_soc'], 'must be above critical_soc');
    if (!(battery.critical_soc < battery.low_soc)) issue(['battery', 'low_soc'], 'must be above critical_soc');
    if (!(body.upright_max_deg < Math.min(body.roll_max_deg, body.pitch_max_deg)))
      issue(['body', 'upright_max_deg'], 'must be below roll_max_deg and pitch_max_deg');
    if (!(body.free_fall_ms < body.free_fall_max_ms)) issue(['body', 'free_fall_max_ms'], 'must be above free_fall_ms');
    for (const [name, joint] of Object.entries(value.joints))
      if ((joint.position_min_rad ?? -Infinity) >= (joint.position_max_rad ?? Infinity))
        issue(['joints', name, 'position_max_rad'], 'must be above position_min_rad');
    value.geofence?.corners.forEach(([latitude, longitude], i) => {
      if (value.geofence?.frame === 'wgs84' && (Math.abs(latitude) > 90 || Math.abs(longitude) > 180))
        issue(['geofence', 'corners', i], 'must be latitude (-90 to 90) and longitude (-180 to 180)');
    });
    for (const { cause, reason } of policyWith(policyChanges(value)).problems) issue(['actions', cause], reason);
  });
export type FailsafeSettings = z.output<typeof failsafeSchema>;

/** What the settings change in the causes table. */
export function policyChanges(
  settings: Pick<FailsafeSettings, 'actions' | 'clear_dwell_ms'>,
): Partial<Record<CauseId, PolicyChange>> {
  return Object.fromEntries(
    CAUSE_IDS.map((cause) => {
      const action = settings.actions[cause];
      const clearDwellMs = settings.clear_dwell_ms[cause];
      return [cause, { ...(action && { action }), ...(clearDwellMs !== undefined && { clearDwellMs }) }];
    }),
  );
}
