import type { DeviceIdentity } from '@outrider/shared/ids';
import type { outrider } from '@outrider/shared/messages';

/** Stops what the call that returned it started. Calling it twice is harmless. */
export type Unsubscribe = () => void;

/** What a robot's connection is known to be. */
export interface PresenceChange {
  readonly device: DeviceIdentity;
  readonly report: outrider.v1.IPresenceReport;
}

export interface PublishOptions {
  readonly retain?: boolean;
}

/** The cloud's end of the line to the robots: the broker in this process, or a client of an external one. */
export interface DeviceBus {
  /**
   * Sends to a topic, QoS 1. Resolves once the broker has it, which says nothing of the robot: what matters is
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
  /** Ends the robot's live session. On an external broker it does what can be done from a client: nothing now. */
  disconnect(device: DeviceIdentity, reason: string): Promise<void>;
}
