import { createRequire } from 'node:module';
import type { EpochMs } from '@outrider/shared/time';
import type { Counter, Histogram, Registry } from 'prom-client';
import type { AgentStatus } from './local-api/status.ts';
import { LANES, type LaneName } from './outbox/records.ts';
import type { OutboxStats } from './outbox/types.ts';

const prometheus = createRequire(import.meta.url)('prom-client') as typeof import('prom-client');

const DECISION_BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 150, 250, 500, 1000];
const ACK_BUCKETS_MS = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 60_000];

/** What an operator of one robot would be woken for, as Prometheus reads it. */
export class AgentMetrics {
  readonly #registry = new prometheus.Registry();
  readonly #status: () => AgentStatus;
  readonly #stats: () => OutboxStats;
  readonly #now: () => EpochMs;
  readonly #ackLatencyMs: Histogram<'lane'>;
  readonly #decisionLatencyMs: Histogram;
  readonly #transitions: Counter<'to_phase' | 'mode'>;

  constructor(status: () => AgentStatus, stats: () => OutboxStats, now: () => EpochMs) {
    this.#status = status;
    this.#stats = stats;
    this.#now = now;
    const registers = [this.#registry];
    this.#ackLatencyMs = new prometheus.Histogram({
      name: 'outrider_edge_ack_latency_ms',
      help: 'From sending a batch to its acknowledgement by the cloud.',
      labelNames: ['lane'],
      buckets: ACK_BUCKETS_MS,
      registers,
    });
    this.#decisionLatencyMs = new prometheus.Histogram({
      name: 'outrider_edge_failsafe_decision_latency_ms',
      help: 'From the sample or request that caused a stop to the stop being written.',
      buckets: DECISION_BUCKETS_MS,
      registers,
    });
    this.#transitions = new prometheus.Counter({
      name: 'outrider_edge_failsafe_transitions_total',
      help: 'Changes of the failsafe state.',
      labelNames: ['to_phase', 'mode'],
      registers,
    });
    this.#collectOutbox(registers);
    this.#collectStatus(registers);
  }

  observeAck(lane: LaneName, latencyMs: number): void {
    this.#ackLatencyMs.observe({ lane }, latencyMs);
  }

  observeTransition(toPhase: string, mode: string, decisionLatencyMs: number): void {
    this.#transitions.inc({ to_phase: toPhase, mode });
    if (decisionLatencyMs > 0) this.#decisionLatencyMs.observe(decisionLatencyMs);
  }

  render(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  #gauge(registers: Registry[], name: string, help: string, read: () => number): void {
    new prometheus.Gauge({
      name: `outrider_edge_${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  }

  #laneGauge(registers: Registry[], name: string, help: string, read: (lane: LaneName) => number): void {
    new prometheus.Gauge({
      name: `outrider_edge_${name}`,
      help,
      labelNames: ['lane'],
      registers,
      collect() {
        for (const lane of LANES) this.set({ lane }, read(lane));
      },
    });
  }

  #collectOutbox(registers: Registry[]): void {
    const stats = this.#stats;
    this.#gauge(registers, 'outbox_fill_ratio', 'Used share of the outbox size bound.', () => stats().fill);
    this.#gauge(registers, 'outbox_full', '1 while nothing can be written.', () => Number(stats().isFull));
    this.#gauge(registers, 'outbox_gap_records', 'Records replaced by a gap since start.', () => stats().gapRecords);
    this.#gauge(registers, 'outbox_dropped_samples', 'Samples lost in gaps since start.', () => stats().samplesDropped);
    this.#gauge(
      registers,
      'outbox_thinned_samples',
      'Samples left out of old blocks for want of room since start.',
      () => stats().samplesThinned,
    );
    this.#gauge(
      registers,
      'outbox_refused_samples',
      'Samples of a wrong shape since start.',
      () => stats().samplesRefused,
    );
    this.#gauge(registers, 'outbox_committed_samples', 'Samples on disk since start.', () => stats().samplesCommitted);
    this.#gauge(
      registers,
      'outbox_acknowledged_samples',
      'Samples stored by the cloud since start.',
      () => stats().samplesAcknowledged,
    );
    this.#laneGauge(
      registers,
      'outbox_records',
      'Records that wait for the cloud.',
      (lane) => stats().lanes[lane].records,
    );
    this.#laneGauge(registers, 'outbox_bytes', 'Bytes that wait for the cloud.', (lane) => stats().lanes[lane].bytes);
    this.#laneGauge(
      registers,
      'outbox_oldest_age_seconds',
      'Age of the oldest record that waits for the cloud.',
      (lane) => {
        const { oldestMs } = stats().lanes[lane];
        return oldestMs === 0 ? 0 : Math.max(0, (this.#now() - oldestMs) / 1000);
      },
    );
  }

  #collectStatus(registers: Registry[]): void {
    const status = this.#status;
    this.#gauge(registers, 'link_up', '1 while the cloud takes data.', () => Number(status().link.state === 'online'));
    this.#gauge(registers, 'gate_open', '1 while the robot may move.', () =>
      Number(status().failsafe?.gate_open ?? false),
    );
    this.#gauge(registers, 'guard_connected', '1 while the guard answers.', () => Number(status().failsafe !== null));
    this.#gauge(registers, 'certificate_expiry_seconds', 'Time until the certificate ends.', () => {
      const expiresAt = status().certificate?.expires_at;
      return expiresAt ? (Date.parse(expiresAt) - this.#now()) / 1000 : 0;
    });
    new prometheus.Gauge({
      name: 'outrider_edge_source_rate_hz',
      help: 'Measured rate of a stream.',
      labelNames: ['source', 'stream'],
      registers,
      collect() {
        this.reset();
        for (const { source, stream, rate_hz } of status().sources)
          if (stream !== null && rate_hz !== null) this.set({ source, stream }, rate_hz);
      },
    });
  }
}
