import { z } from '@hono/zod-openapi';
import {
  COMMAND_EXPIRY_MS,
  COMMAND_JOINTS_MAX,
  COMMAND_KINDS,
  COMMAND_STATUSES,
  COMMAND_TIMEOUT_MS,
  hasEnded,
  JOINT_SPEED_DEFAULT_RADPS,
  TOLERANCE_DEFAULT_RAD,
} from '@outrider/shared/command';
import { DomainError } from '@outrider/shared/errors';
import type { Command, CommandCursor } from '../../command/command.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { sigmaErrors } from './responses.ts';
import { RobotPath } from './schemas.ts';

const KEY_CHARACTERS_MAX = 128;
const IdempotencyKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,128}$/, `must be 1 to ${KEY_CHARACTERS_MAX} printable characters`);
const CommandPath = RobotPath.extend({ command_id: z.string() });

const JointTargetBody = z.strictObject({
  name: z.string().min(1).max(128),
  position_rad: z.number().openapi({ description: 'Within the joint’s limits, here and on the robot' }),
  velocity_max_radps: z
    .number()
    .positive()
    .optional()
    .openapi({
      description: `Default ${JOINT_SPEED_DEFAULT_RADPS}, or half of the joint's limit where that is lower`,
    }),
});

export const CommandRequest = z
  .strictObject({
    command: z.enum(COMMAND_KINDS).openapi({
      description:
        'set_joint_positions moves the named joints and keeps the others; hold stops all where they are, under power; ' +
        'release leaves the hold',
    }),
    parameters: z
      .strictObject({
        joints: z.array(JointTargetBody).min(1).max(COMMAND_JOINTS_MAX).optional(),
        tolerance_rad: z
          .number()
          .min(0.001)
          .max(0.5)
          .optional()
          .openapi({ description: `How close the joints must come. Default ${TOLERANCE_DEFAULT_RAD}` }),
      })
      .optional(),
    timeout_ms: z
      .int()
      .min(COMMAND_TIMEOUT_MS.min)
      .max(COMMAND_TIMEOUT_MS.max)
      .optional()
      .openapi({ description: `How long it may take once begun. Default ${COMMAND_TIMEOUT_MS.default}` }),
    expires_in_ms: z
      .int()
      .min(COMMAND_EXPIRY_MS.min)
      .max(COMMAND_EXPIRY_MS.max)
      .optional()
      .openapi({
        description: `It begins within this time or never. Default ${COMMAND_EXPIRY_MS.default}. Or give expires_at`,
      }),
    expires_at: z.iso.datetime({ offset: true }).optional(),
    require_online: z
      .boolean()
      .optional()
      .openapi({ description: 'Answer 503 when the robot is not connected now, rather than keep it until it expires' }),
    idempotency_key: IdempotencyKey.optional().openapi({
      description: 'The same request under the same key is the same command. The header Idempotency-Key says the same',
    }),
    reason: z.string().max(512).optional(),
  })
  .openapi('CommandRequest');

const CommandReply = z
  .object({
    command_id: z.string(),
    robot_id: z.string(),
    command: z.enum(COMMAND_KINDS),
    parameters: z.object({
      joints: z.array(
        z.object({ name: z.string(), position_rad: z.number(), velocity_max_radps: z.number().nullable() }),
      ),
      tolerance_rad: z.number(),
    }),
    status: z.enum(COMMAND_STATUSES).openapi({
      description:
        'accepted: stored here; delivered: on the robot’s disk; executing: through its guard’s gate; then one of ' +
        'completed (measured), failed, rejected (not begun), expired, cancelled',
    }),
    detail: z.string(),
    progress: z.number().min(0).max(1),
    timeout_ms: z.int(),
    reason: z.string(),
    idempotency_key: z.string().nullable(),
    motion_epoch: z.int(),
    requested_by: z.string(),
    trace_id: z.string(),
    created_at: z.iso.datetime(),
    updated_at: z.iso.datetime(),
    expires_at: z.iso.datetime(),
    cancel_requested_at: z.iso.datetime().nullable(),
    history: z.array(z.object({ status: z.enum(COMMAND_STATUSES), at: z.iso.datetime(), detail: z.string() })),
  })
  .openapi('Command');

const CommandQuery = z.object({
  status: z.enum(COMMAND_STATUSES).optional(),
  limit: z.coerce.number().int().min(1).max(200).default(50),
  cursor: z.string().max(256).optional(),
});

/** /api/v1/robots/{robot_id}/commands: dispatching, following and calling off. */
export function registerCommands(router: Router, core: Core): void {
  router.add(
    {
      method: 'post',
      path: '/api/v1/robots/{robot_id}/commands',
      operationId: 'dispatchCommand',
      summary: 'Dispatch a validated actuator-level command',
      tag: 'SigmaPrompt',
      access: ['command:write'],
      throttle: 'tier',
      params: RobotPath,
      body: CommandRequest,
      responses: {
        202: { description: 'Stored, and on its way when the robot is connected', schema: CommandReply },
        ...sigmaErrors([400, 401, 403, 404, 409, 413, 429, 503]),
      },
    },
    async ({ principal, params, body }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const { command, isNew } = await core.commands.dispatch({
        robot,
        kind: body.command,
        joints: body.parameters?.joints?.map(({ name, position_rad, velocity_max_radps }) => ({
          name,
          positionRad: position_rad,
          velocityMaxRadps: velocity_max_radps,
        })),
        toleranceRad: body.parameters?.tolerance_rad,
        timeoutMs: body.timeout_ms,
        expiresInMs: body.expires_in_ms,
        expiresAtMs: body.expires_at === undefined ? undefined : Date.parse(body.expires_at),
        requireOnline: body.require_online,
        idempotencyKey: idempotencyKey(c.req.header('idempotency-key'), body.idempotency_key),
        reason: body.reason,
        requestedBy: principal.sub,
        traceId: c.get('requestId'),
      });
      if (!isNew) c.header('Idempotency-Replayed', 'true');
      return c.json(describeCommand(command, robot.robotId), 202);
    },
  );
  router.add(
    {
      method: 'get',
      path: '/api/v1/robots/{robot_id}/commands',
      operationId: 'listCommands',
      summary: 'A robot’s commands, newest first',
      tag: 'SigmaPrompt',
      access: ['command:write', 'telemetry:read'],
      throttle: 'tier',
      params: RobotPath,
      query: CommandQuery,
      responses: {
        200: {
          description: 'A page',
          schema: z.object({ commands: z.array(CommandReply), next_cursor: z.string().nullable() }),
        },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params, query }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const before = query.cursor === undefined ? undefined : readCursor(query.cursor);
      const page = await core.commands.list(robot, { status: query.status, limit: query.limit, before });
      return c.json({
        commands: page.commands.map((command) => describeCommand(command, robot.robotId)),
        next_cursor: page.next ? writeCursor(page.next) : null,
      });
    },
  );
  router.add(
    {
      method: 'get',
      path: '/api/v1/robots/{robot_id}/commands/{command_id}',
      operationId: 'getCommand',
      summary: 'A command and its history',
      tag: 'SigmaPrompt',
      access: ['command:write', 'telemetry:read'],
      throttle: 'tier',
      params: CommandPath,
      responses: {
        200: { description: 'The command', schema: CommandReply },
        ...sigmaErrors([401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      return c.json(describeCommand(await core.commands.get(robot, params.command_id), robot.robotId));
    },
  );
  router.add(
    {
      method: 'delete',
      path: '/api/v1/robots/{robot_id}/commands/{command_id}',
      operationId: 'cancelCommand',
      summary: 'Call a command off; a robot that moves holds where it is',
      tag: 'SigmaPrompt',
      access: ['command:write'],
      throttle: 'tier',
      params: CommandPath,
      responses: {
        200: { description: 'It is cancelled', schema: CommandReply },
        202: { description: 'The cancellation is kept and sent until the robot answers', schema: CommandReply },
        ...sigmaErrors([401, 403, 404, 409, 429, 503]),
      },
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const command = await core.commands.cancel(robot, params.command_id, principal.sub);
      return c.json(describeCommand(command, robot.robotId), hasEnded(command.status) ? 200 : 202);
    },
  );
}

/** From the header or the body; never two different ones. */
function idempotencyKey(header: string | undefined, inBody: string | undefined): string | undefined {
  if (header === undefined) return inBody;
  if (!IdempotencyKey.safeParse(header).success)
    throw invalid('Idempotency-Key', `must be 1 to ${KEY_CHARACTERS_MAX} printable characters`);
  if (inBody !== undefined && inBody !== header)
    throw invalid('idempotency_key', 'must be the same as Idempotency-Key');
  return header;
}

const invalid = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });

const writeCursor = ({ createdAtMs, commandId }: CommandCursor): string =>
  Buffer.from(`${createdAtMs} ${commandId}`).toString('base64url');

function readCursor(text: string): CommandCursor {
  const [, createdAtMs, commandId] = /^(\d{1,15}) (\w{1,64})$/.exec(Buffer.from(text, 'base64url').toString()) ?? [];
  if (createdAtMs === undefined || commandId === undefined)
    throw invalid('cursor', 'must be the next_cursor of a page before');
  return { createdAtMs: Number(createdAtMs), commandId };
}

const iso = (atMs: number): string => new Date(atMs).toISOString();

/** A command as callers read it. */
export function describeCommand(command: Command, robotId: string): z.output<typeof CommandReply> {
  const { parameters } = command;
  return {
    command_id: command.commandId,
    robot_id: robotId,
    command: command.kind,
    parameters: {
      joints: parameters.joints.map(({ name, positionRad, velocityMaxRadps }) => ({
        name,
        position_rad: positionRad,
        velocity_max_radps: velocityMaxRadps ?? null,
      })),
      tolerance_rad: parameters.toleranceRad,
    },
    status: command.status,
    detail: command.detail,
    progress: command.progress,
    timeout_ms: command.timeoutMs,
    reason: command.reason,
    idempotency_key: command.idempotencyKey ?? null,
    motion_epoch: command.motionEpoch,
    requested_by: command.requestedBy,
    trace_id: command.traceId,
    created_at: iso(command.createdAtMs),
    updated_at: iso(command.updatedAtMs),
    expires_at: iso(command.expiresAtMs),
    cancel_requested_at: command.cancelRequestedAtMs === undefined ? null : iso(command.cancelRequestedAtMs),
    history: command.history.map(({ status, atMs, detail }) => ({ status, at: iso(atMs), detail })),
  };
}
