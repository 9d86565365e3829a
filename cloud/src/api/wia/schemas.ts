import { z } from '@hono/zod-openapi';
import { ROBOT_ID_PATTERN } from '@outrider/shared/ids';
import { OPERATIONAL_STATES } from '@outrider/shared/robot';
import { HISTORY_FIELDS, HISTORY_STATES_MAX } from '../../fleet/history.ts';

export const RobotPath = z.object({ robot_id: z.string().openapi({ example: 'RB-1022' }) });

export const WiaError = z
  .object({
    status: z.literal('error'),
    timestamp: z.iso.datetime(),
    error: z.object({ code: z.string(), message: z.string(), details: z.record(z.string(), z.unknown()).optional() }),
    metadata: z.object({ request_id: z.string(), version: z.string() }),
  })
  .openapi('WiaError');

export const LoginRequest = z
  .strictObject({
    username: z.string().min(1).max(128),
    password: z.string().min(1).max(1024),
    scope: z.string().max(1024).optional(),
  })
  .openapi('LoginRequest');

const Name = z.string().min(1).max(128);

export const RegisterRequest = z
  .strictObject({
    robot_descriptor: z.strictObject({
      robot_id: z.string().regex(ROBOT_ID_PATTERN),
      robot_name: Name,
      robot_type: Name,
      manufacturer: Name.optional(),
      model: Name.optional(),
      firmware_version: Name.optional(),
      capabilities: z.record(z.string().min(1).max(64), z.unknown()).default({}),
    }),
  })
  .openapi('RegisterRobotRequest');

const wholeNumber = (least: number, most: number, otherwise: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().min(least).max(most))
    .default(otherwise);

export const ListQuery = z.strictObject({
  type: Name.optional(),
  status: z.enum(OPERATIONAL_STATES).optional(),
  capability: Name.optional(),
  limit: wholeNumber(1, 200, 50),
  offset: wholeNumber(0, 999_999_999, 0),
});

/** ISO 8601 with a zone. */
const Instant = z.iso.datetime({ offset: true });

export const HistoryQuery = z.strictObject({
  start_time: Instant.optional(),
  end_time: Instant.optional(),
  fields: z
    .string()
    .max(256)
    .optional()
    .openapi({ description: `Separated by commas: ${HISTORY_FIELDS.join(', ')}` }),
  interval: z
    .string()
    .regex(/^\d{1,7}(\.\d{1,3})?$/, 'must be seconds')
    .transform(Number)
    .pipe(z.number().min(0.001))
    .optional()
    .openapi({ description: 'Sampling interval in seconds: the last reading of each' }),
  limit: wholeNumber(1, HISTORY_STATES_MAX, 1_000),
});

export const ExportQuery = z.strictObject({
  stream: z.string().min(1).max(256),
  start_time: Instant.optional(),
  end_time: Instant.optional(),
  cursor: z.string().max(256).optional(),
  limit: wholeNumber(1, 100_000_000, 100_000_000),
});

export const CountsQuery = z.strictObject({ start_time: Instant.optional(), end_time: Instant.optional() });

export const CertificateRequest = z.strictObject({ csr: z.string().min(1).max(16_384) }).openapi('CertificateRequest');

export const RegisteredRobot = z.object({
  robot_id: z.string(),
  registered_at: z.iso.datetime(),
  api_key: z.string(),
  websocket_url: z.string(),
});

export const RobotSummary = z.object({
  robot_id: z.string(),
  robot_name: z.string(),
  robot_type: z.string(),
  status: z.string(),
  last_seen: z.iso.datetime().nullable(),
  capabilities_summary: z.array(z.string()),
  api_endpoint: z.string(),
});

export const RobotList = z.object({
  robots: z.array(RobotSummary),
  pagination: z.object({ total: z.int(), limit: z.int(), offset: z.int(), has_more: z.boolean() }),
});

export const RobotDetails = z.object({
  robot_id: z.string(),
  robot_name: z.string(),
  robot_type: z.string(),
  manufacturer: z.string().nullable(),
  model: z.string().nullable(),
  firmware_version: z.string().nullable(),
  status: z.string(),
  last_seen: z.iso.datetime().nullable(),
  registered_at: z.iso.datetime(),
  capabilities: z.record(z.string(), z.unknown()),
  network: z.object({ ip_address: z.string().nullable(), websocket_url: z.string() }),
});
