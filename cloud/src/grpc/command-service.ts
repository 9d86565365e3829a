import { hasEnded } from '@outrider/shared/command';
import { outrider } from '@outrider/shared/protocol/api-messages';
import type { Core } from '../api/core.ts';
import { CommandRequest, describeCommand } from '../api/sigma/commands.ts';
import { validate } from '../api/validation.ts';
import type { Command } from '../command/command.ts';
import type { RobotRef } from '../fleet/robot.ts';
import type { CallContext, Calls, Methods, Send } from './calls.ts';
import { said } from './said.ts';

const { CommandRef, DispatchRequest } = outrider.api.v1;
const Reply = outrider.api.v1.Command;
type ReplyProperties = outrider.api.v1.Command.$Properties;

const WRITE = ['command:write'] as const;
const READ = ['command:write', 'telemetry:read'] as const;

/** outrider.api.v1.CommandService */
export const commandService = (core: Core, calls: Calls): Methods => ({
  Dispatch: calls.serverStream(
    { request: DispatchRequest, reply: Reply, access: WRITE, throttle: 'tier' },
    async ({ robot_id, ...order }, context, send) => {
      const principal = await context.principal();
      const body = validate(CommandRequest, said(order), 'request');
      const robot = await core.robots.find(principal, robot_id);
      const { command } = await core.commands.dispatch({
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
        idempotencyKey: body.idempotency_key,
        reason: body.reason,
        requestedBy: principal.sub,
        traceId: context.requestId,
      });
      await follow(core, robot, command.commandId, context, send);
    },
  ),
  GetCommand: calls.unary(
    { request: CommandRef, reply: Reply, access: READ, throttle: 'tier' },
    async ({ robot_id, command_id }, context) => {
      const robot = await core.robots.find(await context.principal(), robot_id);
      return describeCommand(await core.commands.get(robot, command_id), robot.robotId);
    },
  ),
  WatchCommand: calls.serverStream(
    { request: CommandRef, reply: Reply, access: READ, throttle: 'tier' },
    async ({ robot_id, command_id }, context, send) => {
      const robot = await core.robots.find(await context.principal(), robot_id);
      await follow(core, robot, command_id, context, send);
    },
  ),
  CancelCommand: calls.unary(
    { request: CommandRef, reply: Reply, access: WRITE, throttle: 'tier' },
    async ({ robot_id, command_id }, context) => {
      const principal = await context.principal();
      const robot = await core.robots.find(principal, robot_id);
      return describeCommand(await core.commands.cancel(robot, command_id, principal.sub), robot.robotId);
    },
  ),
});

/** Sends a command at each change until it has ended. Only the newest waits for a slow reader: it holds the history. */
async function follow(
  core: Core,
  robot: RobotRef,
  commandId: string,
  { signal, principal }: CallContext,
  send: Send<ReplyProperties>,
): Promise<void> {
  let newest: Command | undefined;
  let wake: () => void = () => undefined;
  const onEnd = (): void => wake();
  signal.addEventListener('abort', onEnd, { once: true });
  const stop = await core.commands.watch(robot, commandId, (command) => {
    newest = command;
    wake();
  });
  try {
    for (;;) {
      signal.throwIfAborted();
      if (!newest) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      const command: Command = newest;
      newest = undefined;
      await principal();
      await send(describeCommand(command, robot.robotId));
      if (hasEnded(command.status)) return;
    }
  } finally {
    stop();
    signal.removeEventListener('abort', onEnd);
  }
}
