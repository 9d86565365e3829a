import {
  COMMAND_EXPIRY_MS,
  COMMAND_TIMEOUT_MS,
  type CommandKind,
  type CommandStatus,
  hasEnded,
  type JointTarget,
  TOLERANCE_DEFAULT_RAD,
} from '@outrider/shared/command';
import { DomainError } from '@outrider/shared/errors';
import { newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { Clock } from '@outrider/shared/time';
import type { DeviceBus } from '../broker/bus.ts';
import type { AuditTrail } from '../fleet/ports.ts';
import type { RobotRef } from '../fleet/robot.ts';
import { type Command, type CommandCursor, type CommandPage, hashRequest } from './command.ts';
import type { CommandCourier } from './courier.ts';
import { admit, type CommandFacts } from './gate.ts';
import type { CommandStore } from './ports.ts';
import type { CommandWatchers } from './watchers.ts';

/** How long a cancellation waits for the robot's word. */
const CANCEL_ANSWER_MS = 2_000;

export interface DispatchRequest {
  readonly robot: RobotRef;
  readonly kind: CommandKind;
  /** Of `set_joint_positions`, at least one. */
  readonly joints?: readonly JointTarget[] | undefined;
  readonly toleranceRad?: number | undefined;
  readonly timeoutMs?: number | undefined;
  /** How long it may wait before it begins; or until when. Never both. */
  readonly expiresInMs?: number | undefined;
  readonly expiresAtMs?: number | undefined;
  /** Refuse it when the robot is not connected now, rather than keep it until it expires. */
  readonly requireOnline?: boolean | undefined;
  readonly idempotencyKey?: string | undefined;
  readonly reason?: string | undefined;
  readonly requestedBy: string;
  readonly traceId: string;
}

export interface CommandDispatcherOptions {
  readonly store: CommandStore;
  readonly courier: CommandCourier;
  readonly watchers: CommandWatchers;
  /** What is known of a robot. @throws DomainError `not_found` */
  readonly facts: (robot: RobotRef, needsJoints: boolean) => Promise<CommandFacts>;
  readonly bus: DeviceBus;
  readonly audit: AuditTrail;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Commands for the actuators of robots: taken, followed, called off. Tenant and robot are checked by who calls. */
export class CommandDispatcher {
  readonly #options: CommandDispatcherOptions;

  constructor(options: CommandDispatcherOptions) {
    this.#options = options;
  }

  /**
   * Takes a command. Resolves when it is in the database as `accepted`; it goes to the robot at once when that is
   * connected, and else when it appears, until it expires. Used by: POST /api/v1/robots/{robot_id}/commands.
   *
   * @returns `isNew` false: the idempotency key was used by the same request before, and this is its command.
   * @throws DomainError `invalid`; `already_exists` for a key that another request used; `bad_state` or `rejected`
   *   for the robot's state, with the reasons as problems; `offline` only with `requireOnline`.
   */
  async dispatch(request: DispatchRequest): Promise<{ readonly command: Command; readonly isNew: boolean }> {
    const { store, courier, audit, clock, log } = this.#options;
    const { robot, idempotencyKey, requestedBy, traceId } = request;
    const nowMs = clock.epochMs();
    const plan = planOf(request, nowMs);
    const known = idempotencyKey === undefined ? undefined : await store.findByKey(robot.robotPk, idempotencyKey);
    if (known) return { command: same(known, plan.requestHash), isNew: false };
    let motionEpoch: number;
    try {
      motionEpoch = await this.#admit(request);
    } catch (error) {
      const outcome = error instanceof DomainError ? error.code : 'internal';
      const details = { robot_id: robot.robotId, command: request.kind, reason: String(error) };
      await audit
        .append({
          tenantId: robot.tenantId,
          subject: requestedBy,
          action: 'command.dispatch',
          outcome,
          requestId: traceId,
          details,
          atMs: nowMs,
        })
        .catch((err: unknown) => log.error({ err, action: 'command.dispatch' }, 'audit.write_failed'));
      throw error;
    }
    const command = await store.add(robot, {
      commandId: newId('cmd'),
      robotPk: robot.robotPk,
      kind: request.kind,
      ...plan,
      motionEpoch,
      reason: request.reason ?? '',
      idempotencyKey,
      requestedBy,
      traceId,
      createdAtMs: nowMs,
    });
    if (!command) {
      // The same key at the same moment: the other request was first.
      const first = idempotencyKey === undefined ? undefined : await store.findByKey(robot.robotPk, idempotencyKey);
      if (!first)
        throw new DomainError('unavailable', 'the command could not be stored; try again', { retryAfterS: 1 });
      return { command: same(first, plan.requestHash), isNew: false };
    }
    courier.hurry(robot);
    return { command, isNew: true };
  }

  /** A command of this robot. Used by: GET …/commands/{command_id}. @throws DomainError `not_found` */
  async get(robot: RobotRef, commandId: string): Promise<Command> {
    const command = await this.#options.store.find(robot.robotPk, commandId);
    if (!command) throw noSuchCommand(commandId);
    return command;
  }

  /** A robot's commands, newest first. Used by: GET …/commands. */
  async list(
    robot: RobotRef,
    filter: {
      readonly status?: CommandStatus | undefined;
      readonly before?: CommandCursor | undefined;
      readonly limit: number;
    },
  ): Promise<CommandPage> {
    const found = await this.#options.store.list(robot.robotPk, filter, filter.limit + 1);
    const commands = found.slice(0, filter.limit);
    const last = found.length > filter.limit ? commands.at(-1) : undefined;
    return { commands, next: last && { createdAtMs: last.createdAtMs, commandId: last.commandId } };
  }

  /**
   * Calls a command off. Resolves when the robot has said what became of it, or 2 s later: then the cancellation is
   * kept and sent until it does. Used by: DELETE …/commands/{command_id}.
   *
   * @returns The command as it stands: `cancelled`, or still open with `cancelRequestedAtMs`.
   * @throws DomainError `not_found`; `bad_state` when it has ended otherwise.
   */
  async cancel(robot: RobotRef, commandId: string, requestedBy: string): Promise<Command> {
    const { store, courier, clock } = this.#options;
    const before = await this.get(robot, commandId);
    if (before.status === 'cancelled') return before;
    if (hasEnded(before.status)) throw ended(before);
    let latest = before;
    let settle: () => void = () => undefined;
    const settled = new Promise<void>((resolve) => {
      settle = resolve;
    });
    const stop = this.#options.watchers.add(commandId, (command) => {
      latest = command;
      if (hasEnded(command.status)) settle();
    });
    const timer = setTimeout(settle, CANCEL_ANSWER_MS);
    try {
      latest = (await store.requestCancel(robot, commandId, requestedBy, clock.epochMs())) ?? latest;
      courier.hurry(robot);
      // Nobody answers for a robot that is away; a command that it cannot have is settled by the courier at once.
      if (latest.sentAtMs === undefined || this.#options.bus.connected(robot)) await settled;
    } finally {
      clearTimeout(timer);
      stop();
    }
    const after = await this.get(robot, commandId);
    if (hasEnded(after.status) && after.status !== 'cancelled') throw ended(after);
    return after;
  }

  /**
   * Follows a command: the listener gets it as it is now, then at each change of status or progress, the last time when
   * it has ended. It must not throw and must not block.
   *
   * @returns What ends the watch. Calling it twice is harmless.
   * @throws DomainError `not_found`; `too_many` when this process has no room for more watches.
   */
  async watch(robot: RobotRef, commandId: string, listener: (command: Command) => void): Promise<() => void> {
    const { watchers } = this.#options;
    if (watchers.isFull) throw new DomainError('too_many', 'too many commands are watched here', { retryAfterS: 1 });
    const early: Command[] = [];
    let isOpen = false;
    const stop = watchers.add(commandId, (command) => {
      if (isOpen) listener(command);
      else early.push(command);
    });
    try {
      const now = await this.get(robot, commandId);
      listener(now);
      isOpen = true;
      for (const later of early) if (later.history.length > now.history.length) listener(later);
    } catch (error) {
      stop();
      throw error;
    }
    return stop;
  }

  async #admit(request: DispatchRequest): Promise<number> {
    const { bus, facts } = this.#options;
    const { robot, kind } = request;
    if (request.requireOnline === true && !bus.connected(robot))
      throw new DomainError('offline', 'the robot is not connected, and require_online was asked for', {
        subject: 'robot',
        retryAfterS: 1,
      });
    return admit(kind, request.joints ?? [], await facts(robot, kind === 'set_joint_positions'));
  }
}

interface Plan {
  readonly parameters: Command['parameters'];
  readonly timeoutMs: number;
  readonly expiresAtMs: number;
  readonly requestHash: string;
}

/** What a request comes to, with its defaults. @throws DomainError `invalid` */
function planOf(request: DispatchRequest, nowMs: number): Plan {
  const { kind, toleranceRad = TOLERANCE_DEFAULT_RAD, timeoutMs = COMMAND_TIMEOUT_MS.default } = request;
  const joints = request.joints ?? [];
  if (kind === 'set_joint_positions' && joints.length === 0) throw invalid('parameters.joints', 'missing');
  if (kind !== 'set_joint_positions' && joints.length > 0)
    throw invalid('parameters.joints', `must be left out: '${kind}' is for the whole robot`);
  if (request.expiresAtMs !== undefined && request.expiresInMs !== undefined)
    throw invalid('expires_at', 'must be left out when expires_in_ms is there');
  const expiresAtMs = request.expiresAtMs ?? nowMs + (request.expiresInMs ?? COMMAND_EXPIRY_MS.default);
  if (expiresAtMs <= nowMs) throw invalid('expires_at', 'must be in the future');
  if (expiresAtMs - nowMs > COMMAND_EXPIRY_MS.max)
    throw invalid('expires_at', `must be within ${COMMAND_EXPIRY_MS.max / 60_000} minutes`);
  // As it was asked for: the same request a second later has another expiry and is the same all the same.
  const asked = [kind, joints, toleranceRad, timeoutMs, request.expiresInMs, request.expiresAtMs, request.reason ?? ''];
  return { parameters: { joints, toleranceRad }, timeoutMs, expiresAtMs, requestHash: hashRequest(asked) };
}

function same(known: Command, requestHash: string): Command {
  if (known.requestHash === requestHash) return known;
  throw new DomainError('already_exists', 'this idempotency key was used for another command of this robot', {
    subject: 'command',
    problems: [{ field: 'idempotency_key', reason: 'was used for another command' }],
    details: { command_id: known.commandId },
  });
}

const invalid = (field: string, reason: string): DomainError =>
  new DomainError('invalid', reason === 'missing' ? `${field} is required` : `${field} ${reason}`, {
    problems: [{ field, reason }],
  });

const ended = (command: Command): DomainError =>
  new DomainError('bad_state', `the command has ended already: ${command.status}`, {
    subject: 'command',
    details: { command_id: command.commandId, status: command.status },
  });

const noSuchCommand = (commandId: string): DomainError =>
  new DomainError('not_found', `there is no command '${commandId.slice(0, 64)}' of this robot`, {
    subject: 'command',
    details: { command_id: commandId.slice(0, 64) },
  });
