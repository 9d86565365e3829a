import type { DecodedBlock } from '@outrider/shared/protocol/block';
import type { Sample, StreamKind } from '@outrider/shared/telemetry';
import type { EpochMs } from '@outrider/shared/time';
import type { AlertNews } from '../alert/alert.ts';

/** A robot as the large tables know it. */
export interface RobotRef {
  readonly robotPk: number;
  readonly tenantId: string;
  readonly robotId: string;
}

/** The newest sample of one stream, by the robot's own time. */
export interface LatestSample {
  readonly stream: string;
  readonly kind: StreamKind;
  readonly recordedAt: EpochMs;
  readonly ingestedAt: EpochMs;
  readonly sample: Sample;
}

/** One key of the robot's shadow, such as `failsafe` or `sources`. */
export interface ShadowEntry {
  readonly key: string;
  readonly at: EpochMs;
  readonly ingestedAt: EpochMs;
  readonly value: unknown;
}

/** A stored block, cut to the rows that were asked for. */
export interface HistoryBlock extends DecodedBlock {
  readonly recordedAt: EpochMs;
  readonly ingestedAt: EpochMs;
  readonly epoch: string;
  readonly seq: number;
  readonly bootId: string;
}

export interface HistoryQuery {
  readonly robotPk: number;
  /** Absent: all kinds. */
  readonly kinds?: readonly StreamKind[];
  readonly streams?: readonly string[];
  /** Both ends inclusive. Absent: unbounded. */
  readonly fromMs?: EpochMs;
  readonly toMs?: EpochMs;
  /** Most samples to give. The last block is cut to keep it. */
  readonly limit?: number;
  /** Newest blocks first. Rows inside a block keep the order of reception. */
  readonly newestFirst?: boolean;
}

/** How much of one stream is stored. */
export interface StreamCount {
  readonly stream: string;
  readonly kind: StreamKind;
  readonly samples: number;
  /** Samples that the robot left out of these blocks for want of room. */
  readonly thinned: number;
  readonly blocks: number;
  readonly firstAt: EpochMs;
  readonly lastAt: EpochMs;
}

/** Records that the robot had to drop, as it explained them. */
export interface StoredGap {
  readonly epoch: string;
  readonly lane: number;
  readonly seqFrom: number;
  readonly seqTo: number;
  readonly reason: string;
  readonly samples: number;
  readonly fromAt: EpochMs;
  readonly toAt: EpochMs;
}

/** A record of the event lane. */
export interface StoredEvent {
  readonly eventId: string;
  readonly type: string;
  readonly occurredAt: EpochMs;
  readonly ingestedAt: EpochMs;
  readonly traceId: string;
  readonly payload: unknown;
}

/** What is stored of a robot. Callers have checked that its tenant may see it. */
export interface TelemetryReader {
  latest(robotPk: number): Promise<LatestSample[]>;
  shadow(robotPk: number): Promise<ShadowEntry[]>;
  history(query: HistoryQuery): AsyncIterable<HistoryBlock>;
  counts(robotPk: number, range?: { readonly fromMs?: EpochMs; readonly toMs?: EpochMs }): Promise<StreamCount[]>;
  gaps(robotPk: number, limit?: number): Promise<StoredGap[]>;
  /** Newest first. */
  events(
    robotPk: number,
    query?: { readonly types?: readonly string[]; readonly limit?: number },
  ): Promise<StoredEvent[]>;
}

/** One joint of a report. What was not measured is absent. */
export interface JointReading {
  readonly name: string;
  readonly positionRad?: number;
  readonly velocityRadps?: number;
  readonly effortNm?: number;
  readonly temperatureC?: number;
}

/** A telemetry object that came over HTTP, in SI units. What was not measured is absent. */
export interface TelemetryReport {
  /** The robot's time. */
  readonly at: EpochMs;
  readonly joints?: readonly JointReading[];
  readonly power?: {
    readonly stateOfCharge?: number;
    readonly drawW?: number;
    readonly voltageV?: number;
    readonly currentA?: number;
  };
  /** By sensor: `{motor_max: 64.2}`. [°C] */
  readonly temperaturesC?: Readonly<Record<string, number>>;
  readonly imu?: {
    readonly rollRad?: number;
    readonly pitchRad?: number;
    readonly yawRad?: number;
    readonly angularVelocityRadps?: readonly [number, number, number];
    readonly linearAccelerationMps2?: readonly [number, number, number];
  };
  readonly flags?: readonly string[];
}

/** What became of a report. The same content again gives the same id and the first time. */
export interface IngestReceipt {
  readonly eventId: string;
  readonly ingestedAt: EpochMs;
  readonly duplicate: boolean;
}

/** Takes telemetry that came over HTTP. */
export interface TelemetryIngest {
  /**
   * Stores the reports as samples of `api/joint_state`, `api/imu`, `api/power`, `api/temperature` and `api/flags`.
   * Resolves after the commit, with a receipt for each report in order.
   *
   * @throws DomainError `invalid` when a report measures nothing or its time is absurd; `unavailable` when the
   * database does not answer.
   */
  ingestReports(robot: RobotRef, reports: readonly TelemetryReport[], traceId: string): Promise<IngestReceipt[]>;
}

/** Something that a console wants to know now. Published after its commit. */
export type LiveUpdate = LiveTelemetry | LiveEvent | LiveState | LivePresence | LiveAlert;

interface LiveBase {
  readonly tenantId: string;
  readonly robotId: string;
  readonly ingestedAt: EpochMs;
}

/** The newest sample of a stream since the last update of that stream. */
export interface LiveTelemetry extends LiveBase {
  readonly type: 'telemetry';
  readonly stream: string;
  readonly kind: StreamKind;
  readonly recordedAt: EpochMs;
  /** Samples stored since the last update, this one included. */
  readonly sampleCount: number;
  readonly sample: Sample;
}

export interface LiveEvent extends LiveBase {
  readonly type: 'event';
  readonly event: StoredEvent;
}

export interface LiveState extends LiveBase {
  readonly type: 'state';
  readonly key: string;
  readonly at: EpochMs;
  readonly value: unknown;
}

export interface LivePresence extends LiveBase {
  readonly type: 'presence';
  readonly presence: string;
}

export interface LiveAlert extends LiveBase {
  readonly type: 'alert';
  readonly news: AlertNews;
}

export interface LiveFilter {
  readonly tenantId: string;
  /** Absent: all robots of the tenant. */
  readonly robotIds?: readonly string[];
  /** Kinds of telemetry; absent: all. Events, states, presence and alerts always come. */
  readonly kinds?: readonly StreamKind[];
}

/** An update with its place among all that this process has told. Places rise, and mean nothing elsewhere. */
export interface PlacedUpdate<U extends LiveUpdate = LiveUpdate> {
  readonly position: number;
  readonly update: U;
}

/** Live updates of all robots, whichever replica stored them. */
export interface LiveFeed {
  /** Names this process and its run: a position is good only where it came from. */
  readonly runId: string;
  /** The place of the newest update. */
  readonly position: number;
  /**
   * Telemetry is merged per stream to at most ten updates a second, so a subscriber costs what its robots' streams
   * cost and not what their rates cost. The callback must not block.
   *
   * @param isRaw Telemetry is not merged: the subscriber does that itself.
   * @returns Ends the subscription.
   */
  subscribe(filter: LiveFilter, callback: (update: LiveUpdate, position: number) => void, isRaw?: boolean): () => void;
  /**
   * What came after a position: every event, state, presence and alert, and the newest sample of each stream.
   * `isComplete` is false when some of it is no longer known.
   *
   * @param telemetryAfter The same for telemetry, which may have been held back.
   */
  replay(
    filter: LiveFilter,
    after: number,
    telemetryAfter: number,
  ): { readonly updates: readonly PlacedUpdate[]; readonly isComplete: boolean };
}
