import { createHash } from 'node:crypto';
import type { CommandKind, CommandStatus, JointTarget } from '@outrider/shared/command';

/** When a command came to a status, and what was said of it. */
export interface CommandStep {
  readonly status: CommandStatus;
  readonly atMs: number;
  readonly detail: string;
}

/** What a command of its kind needs to know. */
export interface CommandParameters {
  /** Of `set_joint_positions`; empty for the others. */
  readonly joints: readonly JointTarget[];
  readonly toleranceRad: number;
}

/** Something that a robot was told to do with its actuators, and how far that has come. */
export interface Command {
  readonly commandId: string;
  readonly robotPk: number;
  readonly kind: CommandKind;
  readonly parameters: CommandParameters;
  /** How long the robot may take once it has begun. */
  readonly timeoutMs: number;
  readonly reason: string;
  /** The motion epoch that it was meant for. */
  readonly motionEpoch: number;
  readonly idempotencyKey: string | undefined;
  readonly requestHash: string;
  readonly requestedBy: string;
  readonly traceId: string;
  readonly status: CommandStatus;
  /** The last word on it. */
  readonly detail: string;
  /** How much of the way the robot says is done, 0 to 1. */
  readonly progress: number;
  readonly createdAtMs: number;
  /** It must have begun by then. [ms since 1970] */
  readonly expiresAtMs: number;
  readonly updatedAtMs: number;
  /** When it was last handed to the broker for a robot that was connected; `undefined`: the robot cannot have it. */
  readonly sentAtMs: number | undefined;
  readonly cancelRequestedAtMs: number | undefined;
  readonly cancelRequestedBy: string | undefined;
  /** Oldest first. */
  readonly history: readonly CommandStep[];
}

/** A place in the list of a robot's commands, newest first. */
export interface CommandCursor {
  readonly createdAtMs: number;
  readonly commandId: string;
}

export interface CommandPage {
  /** Newest first. */
  readonly commands: readonly Command[];
  /** Where the next page begins; `undefined` at the end. */
  readonly next: CommandCursor | undefined;
}

/** What of a request makes it the same request again. */
export function hashRequest(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
