import type { DeviceIdentity } from '@outrider/shared/ids';
import type { outrider } from '@outrider/shared/messages';
import type { UpChannel } from '@outrider/shared/protocol/topics';
import type { Service } from '@outrider/shared/service';

/** Stops what the call that returned it started. Calling it twice is harmless. */
export type Unsubscribe = () => void;

/** What a robot's connection is known to be. */
export interface PresenceChange {
  readonly device: DeviceIdentity;
  readonly report: outrider.v1.PresenceReport;
}

export interface PublishOptions {
  readonly retain?: boolean;
  /** 0: it may be lost with the robot's connection, and costs half. Default 1. */
  readonly qos?: 0 | 1;
}

/** The cloud's end of the line to the robots: the broker in this process, or a client of an external one. */
export interface DeviceBus {
  /**
   * Sends to a topic. Resolves once the broker has it, which says nothing of the robot: what matters is
   * answered by a CommandReply.
   *
   * @throws DomainError `unavailable` when there is no broker to give it to.
   */
  publish(topic: string, payload: Uint8Array, options?: PublishOptions): Promise<void>;
  /** Answers of robots to what was sent them. Every replica hears every answer. */
  onReply(listener: (device: DeviceIdentity, reply: outrider.v1.CommandReply) => void): Unsubscribe;
  /** Births and last wills, after they were stored. */
  onPresence(listener: (change: PresenceChange) => void): Unsubscribe;
  /** Whether the robot has a live session, as far as this process can know. */
  connected(device: DeviceIdentity): boolean;
  /** Ends the robot's live session. An external broker must be told itself not to let it in again. */
  disconnect(device: DeviceIdentity, reason: string): Promise<void>;
}

/** A message of a robot, its identity taken from its topic, whose rights the broker has checked. */
export interface UplinkMessage {
  readonly device: DeviceIdentity;
  readonly channel: Exclude<UpChannel, 'reply'> | 'presence';
  readonly payload: Uint8Array;
}

/** A bus as the program's composition sees it. */
export interface UplinkBus extends DeviceBus, Service {
  /** Who takes what the robots send. Must not block or throw. Set once, before `run`. */
  setUplinkHandler(handler: (message: UplinkMessage) => void): void;
  /** Tells the presence listeners, once the change is stored. */
  notifyPresence(change: PresenceChange): void;
}
