import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { type OperationClass, ServiceLevels } from '../../dashboard/service-levels.ts';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1, 2.5, 5, 10];

/** What the HTTP side counts. Routes are labelled by their pattern, so ids never become labels. */
export class ApiMetrics {
  readonly registry: Registry;
  readonly requestSeconds: Histogram<'method' | 'route' | 'status'>;
  /** By what the request is for, as the targets of the API speak of it. */
  readonly operationSeconds: Histogram<'class'>;
  readonly operationFailures: Counter<'class'>;
  readonly levels = new ServiceLevels();
  readonly streamsDropped: Counter<'reason'>;
  /** Live messages that were left out for a client that did not keep up. */
  readonly streamsSkipped: Counter;
  readonly streamLagSeconds: Histogram;

  constructor(registry: Registry) {
    this.registry = registry;
    this.requestSeconds = new Histogram({
      name: 'outrider_http_request_seconds',
      help: 'Duration of HTTP requests, until the answer begins.',
      labelNames: ['method', 'route', 'status'],
      buckets: SECONDS,
      registers: [registry],
    });
    this.operationSeconds = new Histogram({
      name: 'outrider_operation_seconds',
      help: 'Duration of requests by what they are for: reads, dispatches of commands, failsafe.',
      labelNames: ['class'],
      buckets: SECONDS,
      registers: [registry],
    });
    this.operationFailures = new Counter({
      name: 'outrider_operation_failures_total',
      help: 'Requests that the service failed. A refusal, or a robot that is away, is an answer.',
      labelNames: ['class'],
      registers: [registry],
    });
    this.streamsSkipped = new Counter({
      name: 'outrider_live_messages_skipped_total',
      help: 'Live messages left out for clients that did not keep up; each is told of it by a gap.',
      registers: [registry],
    });
    this.streamLagSeconds = new Histogram({
      name: 'outrider_live_stream_lag_seconds',
      help: 'From the commit of an update to its being sent on live streams.',
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

  /** Notes one request. @param failure The domain error's code, if there was one. */
  observeOperation(
    request: { readonly method: string; readonly route: string; readonly status: number },
    failure: string | undefined,
    seconds: number,
    nowMs: number,
  ): void {
    const operation = operationOf(request.method, request.route);
    if (!operation) return;
    const isFailed = request.status >= 500 && !ANSWERS.includes(failure ?? '');
    this.operationSeconds.observe({ class: operation }, seconds);
    if (isFailed) this.operationFailures.inc({ class: operation });
    this.levels.observe(operation, seconds, isFailed, nowMs);
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

/** Server errors that are about the robot: it is away, or does not answer. */
const ANSWERS: readonly string[] = ['offline', 'timeout'];
/** Documentation, probes and downloads that take as long as they are large. */
const NO_READS = /\/(stream|export|health|ready)$/;

function operationOf(method: string, route: string): OperationClass | undefined {
  const isApi = /^(\/api)?\/v1\//.test(route);
  if (!isApi) return undefined;
  if (method === 'POST' && /\/failsafe\/(trigger|recover)$|\/emergency[-_]stop$/.test(route)) return 'failsafe';
  if (method === 'POST' && route.endsWith('/commands')) return 'dispatch';
  const isRead = method === 'GET' && (route.endsWith('/{robot_id}/health') || !NO_READS.test(route));
  return isRead ? 'read' : undefined;
}
