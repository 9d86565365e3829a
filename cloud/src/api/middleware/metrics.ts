import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1, 2.5, 5, 10];

/** What the HTTP side counts. Routes are labelled by their pattern, so ids never become labels. */
export class ApiMetrics {
  readonly registry: Registry;
  readonly requestSeconds: Histogram<'method' | 'route' | 'status'>;
  readonly streamsDropped: Counter<'reason'>;

  constructor(registry: Registry) {
    this.registry = registry;
    this.requestSeconds = new Histogram({
      name: 'outrider_http_request_seconds',
      help: 'Duration of HTTP requests, until the answer begins.',
      labelNames: ['method', 'route', 'status'],
      buckets: SECONDS,
      registers: [registry],
    });
    this.streamsDropped = new Counter({
      name: 'outrider_live_streams_dropped_total',
      help: 'Live streams that the server ended, by reason.',
      labelNames: ['reason'],
      registers: [registry],
    });
  }

  /** A gauge that is read when it is scraped. */
  gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        this.set(read());
      },
    });
  }
}
