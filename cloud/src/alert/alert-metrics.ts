import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** What the alert rules cost and how fast they are. */
export class AlertMetrics {
  readonly decisionSeconds: Histogram<'since'>;
  readonly changes: Counter<'change' | 'severity' | 'kind'>;
  readonly blocks: Counter;
  readonly dropped: Counter<'what'>;
  readonly evaluateSeconds: Counter;
  readonly queuedBlocks: Gauge;
  readonly attempts: Counter<'outcome'>;

  constructor(registry: Registry) {
    const registers = [registry];
    this.decisionSeconds = new Histogram({
      name: 'outrider_decision_window_seconds',
      help: 'From the sample or event that decided an alert, by when it was recorded or stored, to its publication.',
      labelNames: ['since'],
      buckets: [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2, 5, 10, 60],
      registers,
    });
    this.changes = new Counter({
      name: 'outrider_alert_changes_total',
      help: 'Changes of alerts.',
      labelNames: ['change', 'severity', 'kind'],
      registers,
    });
    this.blocks = new Counter({
      name: 'outrider_alert_blocks_total',
      help: 'Blocks of telemetry that the rules looked at.',
      registers,
    });
    this.dropped = new Counter({
      name: 'outrider_alert_dropped_total',
      help: 'Blocks and findings that found no room: telemetry rules are best effort, events are not.',
      labelNames: ['what'],
      registers,
    });
    this.evaluateSeconds = new Counter({
      name: 'outrider_alert_evaluate_seconds_total',
      help: 'Time spent on looking at telemetry.',
      registers,
    });
    this.queuedBlocks = new Gauge({
      name: 'outrider_alert_queued_blocks',
      help: 'Blocks that wait for the rules.',
      registers,
    });
    this.attempts = new Counter({
      name: 'outrider_webhook_attempts_total',
      help: 'Attempts to deliver notifications.',
      labelNames: ['outcome'],
      registers,
    });
  }
}
