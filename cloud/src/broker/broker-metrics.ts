import { Counter, Gauge, type Registry } from 'prom-client';

/** What an operator would look at about the broker. */
export class BrokerMetrics {
  readonly connections: Gauge;
  /** Connections and clients that were turned away. */
  readonly refused: Counter<'reason'>;
  /** What clients with a good certificate tried and may not. */
  readonly violations: Counter<'what'>;
  readonly takeovers: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    this.connections = new Gauge({
      name: 'outrider_broker_connections',
      help: 'Robots with a live session.',
      registers,
    });
    this.refused = new Counter({
      name: 'outrider_broker_refused_total',
      help: 'Connections and clients that were turned away, by reason.',
      labelNames: ['reason'],
      registers,
    });
    this.violations = new Counter({
      name: 'outrider_broker_violations_total',
      help: 'Acts beyond the rights of a certificate, by what was tried.',
      labelNames: ['what'],
      registers,
    });
    this.takeovers = new Counter({
      name: 'outrider_broker_takeovers_total',
      help: 'Live sessions that a second connection of the same certificate ended.',
      registers,
    });
  }
}
