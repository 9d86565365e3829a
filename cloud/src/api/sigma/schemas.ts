import { z } from '@hono/zod-openapi';
import { FAILSAFE_MODES } from '@outrider/shared/failsafe/modes';
import { RISK_LEVELS } from '@outrider/shared/health/verdict';
import { ROBOT_ID_PATTERN } from '@outrider/shared/ids';

const JOINTS_MAX = 256;
const EVENTS_MAX = 1_000;

export const RobotId = z.string().regex(ROBOT_ID_PATTERN).openapi({ example: 'RB-1022' });
/** In a path: whatever does not fit the pattern is simply not there. */
export const RobotPath = z.object({ robot_id: z.string().openapi({ example: 'RB-1022' }) });

export const SigmaError = z
  .object({
    error: z.object({
      code: z.string(),
      message: z.string(),
      details: z.array(z.object({ field: z.string(), reason: z.string() })).optional(),
      request_id: z.string(),
    }),
  })
  .openapi('SigmaError');

export const TokenRequest = z
  .strictObject({
    client_id: z.string().min(1).max(128).optional(),
    client_secret: z.string().min(1).max(1024).optional(),
    grant_type: z.literal('client_credentials'),
    scope: z.string().max(1024).optional(),
  })
  .openapi('TokenRequest');

export const TokenReply = z
  .object({
    access_token: z.string(),
    token_type: z.literal('Bearer'),
    expires_in: z.int(),
    scope: z.string().optional(),
  })
  .openapi('TokenReply');

const JointReading = z.strictObject({
  name: z.string().min(1).max(128),
  position: z.number().optional(),
  velocity: z.number().optional(),
  torque_nm: z.number().optional(),
  temperature_c: z.number().optional(),
});

const Vector3 = z.strictObject({ x: z.number(), y: z.number(), z: z.number() });

export const TelemetryEvent = z
  .strictObject({
    robot_id: RobotId,
    timestamp: z.iso.datetime({ offset: true }),
    joint_state: z.array(JointReading).max(JOINTS_MAX).optional(),
    power: z
      .strictObject({
        battery_soc: z.number().min(0).max(1).optional(),
        draw_w: z.number().optional(),
        voltage_v: z.number().optional(),
        current_a: z.number().optional(),
      })
      .optional(),
    thermal: z.record(z.string().regex(/^[a-z][a-z0-9_]{0,61}_c$/), z.number().min(-273.15)).optional(),
    imu: z
      .strictObject({
        pitch: z.number().optional(),
        roll: z.number().optional(),
        yaw: z.number().optional(),
        angular_velocity: Vector3.optional(),
        linear_acceleration: Vector3.optional(),
      })
      .optional(),
    flags: z.array(z.string().min(1).max(64)).max(64).optional(),
  })
  .openapi('TelemetryEvent');

const TelemetryEvents = z.array(TelemetryEvent).min(1).max(EVENTS_MAX);
export const TelemetryEnvelope = z.strictObject({ events: TelemetryEvents });
export const TelemetryBatch = z.union([TelemetryEvent, TelemetryEvents, TelemetryEnvelope]);

/** Which of the three shapes the input is meant to be. */
export function telemetryShapeOf(input: unknown): z.ZodType<z.output<typeof TelemetryBatch>> {
  if (Array.isArray(input)) return TelemetryEvents;
  return typeof input === 'object' && input !== null && 'events' in input ? TelemetryEnvelope : TelemetryEvent;
}

export const TelemetryReceipt = z
  .object({
    accepted: z.literal(true),
    event_id: z.string(),
    ingested_at: z.iso.datetime(),
    event_ids: z.array(z.string()).optional(),
  })
  .openapi('TelemetryReceipt');

export const RobotHealth = z
  .object({
    robot_id: z.string(),
    health_score: z.number().min(0).max(1).nullable(),
    anomaly_score: z.number().min(0).max(1).nullable(),
    risk_level: z.enum(RISK_LEVELS),
    updated_at: z.iso.datetime().nullable(),
    reasons: z.array(z.string()),
    /** The signals that stand out, what each takes from the health score, and since when. */
    signals: z.array(
      z.object({
        signal: z.string(),
        score: z.number().min(0).max(1),
        cost: z.number().min(0).max(1),
        since: z.iso.datetime(),
      }),
    ),
    analysed_by: z.enum(['edge', 'cloud']).nullable(),
    liveness: z.object({
      presence: z.string().nullable(),
      last_seen: z.iso.datetime().nullable(),
      status: z.string(),
    }),
    failsafe: z
      .object({
        phase: z.string(),
        mode: z.string().nullable(),
        action: z.string(),
        latch_id: z.int().nullable(),
        causes: z.array(z.string()),
      })
      .nullable(),
    latest: z.record(z.string(), z.unknown()),
  })
  .openapi('RobotHealth');

export const FailsafeTriggerRequest = z
  .strictObject({ mode: z.enum(FAILSAFE_MODES), reason: z.string().max(512).optional() })
  .openapi('FailsafeTriggerRequest');

export const FailsafeRecoverRequest = z
  .strictObject({
    latch_id: z
      .int()
      .min(0)
      .openapi({ description: 'The latch to clear, as the robot reports it; another is refused' }),
    nonce: z
      .string()
      .min(1)
      .max(128)
      .optional()
      .openapi({ description: 'The one-time value of the guard; left out, the present one' }),
    reason: z.string().max(512).optional(),
    confirmed: z
      .array(z.string().min(1).max(64))
      .max(16)
      .optional()
      .openapi({ description: 'What you have checked, for the record, such as area_clear. It overrides nothing.' }),
  })
  .openapi('FailsafeRecoverRequest');

export const FailsafeRecoverReply = z
  .object({
    robot_id: z.string(),
    recovered: z.literal(true),
    latch_id: z.int(),
    motion_epoch: z.int(),
    command_id: z.string(),
    detail: z.string(),
    recovered_at: z.iso.datetime(),
  })
  .openapi('FailsafeRecoverReply');

export const FailsafeTriggerReply = z
  .object({
    robot_id: z.string(),
    mode: z.enum(FAILSAFE_MODES),
    triggered: z.literal(true),
    latch_id: z.int(),
    command_id: z.string(),
    detail: z.string(),
    triggered_at: z.iso.datetime(),
  })
  .openapi('FailsafeTriggerReply');
