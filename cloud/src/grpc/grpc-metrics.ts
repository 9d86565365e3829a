import { status } from '@grpc/grpc-js';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1, 2.5, 5, 10];

/** What the gRPC side counts. */
export class GrpcMetrics {
  readonly #seconds: Histogram<'method' | 'code'>;
  readonly #open: Gauge<'method'>;
  readonly #ended: Counter<'method' | 'code'>;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#seconds = new Histogram({
      name: 'outrider_grpc_request_seconds',
      help: 'Duration of unary gRPC calls.',
      labelNames: ['method', 'code'],
      buckets: SECONDS,
      registers,
    });
    this.#open = new Gauge({
      name: 'outrider_grpc_streams',
      help: 'gRPC streams that are open.',
      labelNames: ['method'],
      registers,
    });
    this.#ended = new Counter({
      name: 'outrider_grpc_streams_ended_total',
      help: 'gRPC streams that have ended, by status.',
      labelNames: ['method', 'code'],
      registers,
    });
  }

  observe(method: string, code: status, seconds: number): void {
    this.#seconds.observe({ method, code: status[code] }, seconds);
  }

  /** @returns Call it when the stream has ended. */
  openStream(method: string): () => void {
    this.#open.inc({ method });
    return () => this.#open.dec({ method });
  }

  count(method: string, code: status): void {
    this.#ended.inc({ method, code: status[code] });
  }
}
