import type { Logger } from '@outrider/shared/log';
import type { Clock } from '@outrider/shared/time';
import type { LaneName } from './records.ts';

export interface OutboxOptions {
  readonly stateDir: string;
  readonly sizeMaxBytes: number;
  /** Closed blocks are written at most this much later, all in one transaction. */
  readonly commitIntervalMs: number;
  /** An open block closes at this age while the link is up, so that live data leaves soon. */
  readonly flushIntervalMs: number;
  /** The same while the link is down: fuller blocks are smaller. */
  readonly flushIntervalOfflineMs: number;
  readonly bootId: string;
  readonly log: Logger;
  readonly clock: Clock;
}

/** What a lane holds. */
export interface LaneStats {
  /** Rows waiting for the cloud's acknowledgement, gaps included. */
  readonly records: number;
  readonly bytes: number;
  readonly samples: number;
  /** Highest position ever given out; 0 when none was. */
  readonly maxSeq: number;
  /** When the oldest record was written, by the wall clock; 0 when the lane is empty or nobody knows. */
  readonly oldestMs: number;
}

export interface OutboxStats {
  readonly epoch: string;
  readonly sizeBytes: number;
  readonly sizeBytesMax: number;
  /** Used share of the bound, 0 to 1. */
  readonly fill: number;
  readonly lanes: Readonly<Record<LaneName, LaneStats>>;
  /** Since this start. */
  readonly samplesCommitted: number;
  readonly samplesAcknowledged: number;
  readonly gapRecords: number;
  readonly samplesDropped: number;
  /** Left out of blocks that are still there. Those evicted later count as dropped too. */
  readonly samplesThinned: number;
  readonly samplesRefused: number;
  /** Nothing can be written at the moment. */
  readonly isFull: boolean;
  readonly eventsInMemory: number;
}

/** What the cloud has: everything of a lane up to and including `upto`. */
export interface OutboxAck {
  readonly epoch: string;
  readonly lane: LaneName;
  readonly upto: number;
  /** The cloud holds other content under a position of this epoch. */
  readonly collision?: boolean;
}
