import { Counter, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Robots that get a lag series of their own. A larger fleet is watched by its histograms. */
const LAG_ROBOTS_MAX = 2000;

/** What an operator would look at, or be woken by, about the ingest. */
export class IngestMetrics {
  readonly #lagging = new Set<string>();
  readonly batches: Counter<'channel'>;
  readonly records: Counter<'lane'>;
  readonly samples: Counter;
  readonly duplicates: Counter;
  readonly gaps: Counter;
  readonly gapSamples: Counter;
  readonly collisions: Counter;
  readonly quarantined: Counter<'reason'>;
  /** Work that was not taken and will come again. */
  readonly dropped: Counter<'reason'>;
  readonly commitSeconds: Histogram;
  readonly commitFailures: Counter;
  readonly ackSeconds: Histogram;
  readonly queuedBytes: Gauge;
  readonly dataLagSeconds: Gauge<'tenant' | 'robot'>;

  constructor(registry: Registry = new Registry()) {
    const registers = [registry];
    const counter = <T extends string>(name: string, help: string, labelNames: readonly T[] = []): Counter<T> =>
      new Counter({ name: `outrider_ingest_${name}`, help, labelNames, registers });
    this.batches = counter('batches_total', 'Messages from robots, by channel.', ['channel']);
    this.records = counter('records_total', 'Records stored, by lane.', ['lane']);
    this.samples = counter('samples_total', 'Telemetry samples stored.');
    this.duplicates = counter('duplicates_total', 'Records that came again and were not stored again.');
    this.gaps = counter('gaps_total', 'Gap records: a robot had to drop data.');
    this.gapSamples = counter('gap_samples_total', 'Samples that robots had to drop, as they explained it.');
    this.collisions = counter('collisions_total', 'Records with other content under a stored position.');
    this.quarantined = counter('quarantined_total', 'Records and messages that could not be understood or stored.', [
      'reason',
    ]);
    this.dropped = counter('dropped_total', 'Messages not taken; their sender keeps them and sends again.', ['reason']);
    this.commitFailures = counter('commit_failures_total', 'Commits that failed and were tried again.');
    this.commitSeconds = new Histogram({
      name: 'outrider_ingest_commit_seconds',
      help: 'Duration of one commit of many records.',
      buckets: SECONDS,
      registers,
    });
    this.ackSeconds = new Histogram({
      name: 'outrider_ingest_ack_seconds',
      help: 'From the arrival of a message to its acknowledgement being sent.',
      buckets: SECONDS,
      registers,
    });
    this.queuedBytes = new Gauge({
      name: 'outrider_ingest_queued_bytes',
      help: 'Bytes that wait to be stored.',
      registers,
    });
    this.dataLagSeconds = new Gauge({
      name: 'outrider_robot_data_lag_seconds',
      help: 'Age of the newest telemetry of a robot when it was stored, by the receive time on the robot.',
      labelNames: ['tenant', 'robot'],
      registers,
    });
  }

  /** Notes how old a robot's newest telemetry was when it was stored. */
  setLag(robot: { readonly tenantId: string; readonly robotId: string }, lagMs: number): void {
    const key = `${robot.tenantId}.${robot.robotId}`;
    if (!this.#lagging.has(key) && this.#lagging.size >= LAG_ROBOTS_MAX) return;
    this.#lagging.add(key);
    this.dataLagSeconds.set({ tenant: robot.tenantId, robot: robot.robotId }, Math.max(0, lagMs) / 1000);
  }
}
