import type { DeviceIdentity } from '@outrider/shared/ids';
import type { outrider } from '@outrider/shared/messages';
import type { RobotRef } from './ports.ts';
import type { LaneRecord } from './record.ts';

/** Records of one lane of one outbox, to be stored together. */
export interface LaneWork {
  readonly robot: RobotRef;
  readonly epoch: string;
  readonly lane: outrider.v1.Lane;
  readonly records: readonly LaneRecord[];
  /** Names of the batches that these records came in, as far as they have one. */
  readonly batchIds?: readonly number[];
}

/** What a commit did to a lane. */
export interface LaneOutcome {
  readonly robot: RobotRef;
  readonly epoch: string;
  readonly lane: outrider.v1.Lane;
  /** What to acknowledge. Below the first collision, so that nothing is deleted that we do not hold. */
  readonly upto: number;
  readonly collision: boolean;
  readonly stored: readonly LaneRecord[];
  readonly duplicates: number;
  readonly collisions: number;
  readonly deferred: number;
}

/** Something that arrived and cannot be placed in a lane. */
export interface StrayBody {
  readonly robotPk: number;
  readonly topic: string;
  readonly reason: string;
  readonly body: Uint8Array;
}

/** The storage that the inbox needs. */
export interface IngestStore {
  /**
   * Stores all of it in one transaction, each position once.
   *
   * @throws what the database throws; nothing is stored then.
   */
  commit(work: readonly LaneWork[], nowMs: number): Promise<LaneOutcome[]>;
  /** Keeps a stray body for a person, up to a limit per robot. */
  quarantine(stray: StrayBody, nowMs: number): Promise<void>;
  /** Watermarks of an epoch, lane by lane; lanes never seen are absent. */
  watermarks(robotPk: number, epoch: string): Promise<{ lane: number; upto: number }[]>;
  /**
   * Accepts that positions below `oldestSeq` were acknowledged before and are unknown here: this database is older
   * than what it once acknowledged. The hole becomes a gap with a reason.
   */
  acceptForgotten(robotPk: number, epoch: string, lane: number, oldestSeq: number, nowMs: number): Promise<void>;
}

/** Which robots exist. */
export interface RobotDirectory {
  /** The robot, when it is registered and has a certificate that is good; `undefined` else. */
  find(device: DeviceIdentity): Promise<RobotRef | undefined>;
  /** The robot, when it is registered, whatever became of its certificates: to hear that it has gone. */
  findRegistered(device: DeviceIdentity): Promise<RobotRef | undefined>;
  /** Forgets what is remembered of a robot, so that the next call looks again. */
  forget(device: DeviceIdentity): void;
}

/** Keeps when robots were last heard and what their connection is. */
export interface PresenceStore {
  /** Records a birth or a last will. */
  report(robotPk: number, report: outrider.v1.PresenceReport, nowMs: number): Promise<void>;
  /** Records that these robots were heard. */
  touch(robotPks: readonly number[], nowMs: number, presenceIfNew: 'ONLINE' | 'OFFLINE'): Promise<void>;
  /** Marks every robot that is thought to be online as broken: this process was its broker and has just started. */
  breakAll(nowMs: number): Promise<void>;
}

/** Hears of what was stored, right after its commit. Must not throw, and must not take long. */
export type StoredListener = (outcomes: readonly LaneOutcome[], ingestedAtMs: number) => void;
