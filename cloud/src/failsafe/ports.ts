import type { FailsafeMode } from '@outrider/shared/failsafe/modes';
import type { DeviceIdentity } from '@outrider/shared/ids';

/** A stop that was asked for and that the robot has not answered yet. */
export interface PendingStop {
  readonly commandId: string;
  readonly tenantId: string;
  readonly robotId: string;
  readonly mode: FailsafeMode;
  readonly reason: string;
  readonly requestedBy: string;
  readonly traceId: string;
  readonly issuedAtMs: number;
}

/** Stops that outlive a restart of the control plane. They are read from the audit trail, where each is written. */
export interface PendingStopStore {
  /** Oldest first. Stops of robots that are not registered any more are left out. */
  unansweredStops(limit: number): Promise<PendingStop[]>;
  /** Since when a robot of this name is registered; `undefined` when none is. [ms since 1970] */
  registeredSince(robot: DeviceIdentity): Promise<number | undefined>;
}

/** A key that signs instructions, as it is kept. */
export interface StoredInstructionKey {
  /** Rises with each key. The highest signs. */
  readonly serial: number;
  readonly keyId: string;
  /** Ed25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly sealedPrivateKeyPem: string;
  readonly createdAtMs: number;
}

/** Keys and counts that all replicas share. */
export interface InstructionStore {
  /** The newest first. */
  instructionKeys(limit: number): Promise<StoredInstructionKey[]>;
  /** Adds a key unless there is one newer than `newerThan`, so that replicas that start together make one. */
  addInstructionKey(key: Omit<StoredInstructionKey, 'serial'>, newerThan: number): Promise<void>;
  /**
   * The next number for a robot, given to nobody else.
   *
   * @param above What the robot has seen already: the number is higher, also after a restore of an older database.
   */
  nextCounter(robot: DeviceIdentity, above: number): Promise<number>;
}

/** Encrypts private keys at rest. */
export interface KeyBox {
  seal(name: string, text: string): string;
  open(name: string, sealed: string): string;
}

/** The authority that robots have pinned. */
export interface KeyListAuthority {
  /** ECDSA P-256 with SHA-256: r and s, 32 bytes each. */
  signStatement(bytes: Uint8Array): Promise<Uint8Array>;
}

/** The failsafe as a robot last reported it. */
export interface ReportedFailsafe {
  readonly motionEpoch: number;
  /** By the robot's clock. [ms since 1970] */
  readonly atMs: number;
}

/** What the control plane knows of a robot's failsafe. */
export interface FailsafeReports {
  /** `undefined` when the robot never said anything. */
  reportedFailsafe(robotPk: number): Promise<ReportedFailsafe | undefined>;
}
