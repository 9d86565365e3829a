import type { CommandStatus } from '@outrider/shared/command';
import type { DeviceIdentity } from '@outrider/shared/ids';
import type { CommandOutcome } from '@outrider/shared/protocol/instruction';
import type { RobotRef } from '../fleet/robot.ts';
import type { Command, CommandCursor, CommandStep } from './command.ts';

/** A command as it is accepted. */
export type NewCommand = Omit<
  Command,
  | 'status'
  | 'detail'
  | 'progress'
  | 'updatedAtMs'
  | 'sentAtMs'
  | 'cancelRequestedAtMs'
  | 'cancelRequestedBy'
  | 'history'
>;

/** A command with the robot that it is for. */
export interface AddressedCommand {
  readonly command: Command;
  readonly robot: RobotRef;
  /** The robot was taken out of the fleet since: another one of its name is not meant. */
  readonly isRobotGone: boolean;
}

/** A last word that a robot's event lane brought. */
export interface ReportedOutcome {
  readonly command: AddressedCommand;
  readonly outcome: CommandOutcome;
  readonly detail: string;
}

/** What commands need kept. Every change and its line in the audit trail are one transaction. */
export interface CommandStore {
  /** @returns `undefined` when the robot has a command under that idempotency key already. */
  add(robot: RobotRef, command: NewCommand): Promise<Command | undefined>;
  find(robotPk: number, commandId: string): Promise<Command | undefined>;
  /** Those of the commands that are there. */
  findAll(commandIds: readonly string[]): Promise<Command[]>;
  /** A command by the name of its robot. */
  findOf(device: DeviceIdentity, commandId: string): Promise<AddressedCommand | undefined>;
  findByKey(robotPk: number, idempotencyKey: string): Promise<Command | undefined>;
  /** Newest first. */
  list(
    robotPk: number,
    filter: { readonly status?: CommandStatus | undefined; readonly before?: CommandCursor | undefined },
    limit: number,
  ): Promise<Command[]>;
  /** Brings a command to a status. @returns `undefined` when it cannot go there from where it is. */
  advance(robot: RobotRef, commandId: string, step: CommandStep): Promise<Command | undefined>;
  /** Keeps how far an execution is. */
  noteProgress(commandId: string, progress: number, atMs: number): Promise<void>;
  /** Notes that a command goes out now. @returns Whether it still may: not begun, not cancelled, not expired. */
  markSent(commandId: string, atMs: number): Promise<boolean>;
  /** Notes that somebody wants it called off. @returns The command; `undefined` when it has ended. */
  requestCancel(robot: RobotRef, commandId: string, requestedBy: string, atMs: number): Promise<Command | undefined>;
  /** Commands that have not ended, oldest first. @param robotPk Of this robot only. */
  open(limit: number, robotPk?: number): Promise<AddressedCommand[]>;
  /** What the event lane brought of commands that have not ended here. */
  reportedOutcomes(limit: number): Promise<ReportedOutcome[]>;
}
