import { DomainError } from '@outrider/shared/errors';
import { grpc } from '@outrider/shared/protocol/api-messages';
import { pause } from '@outrider/shared/service';
import type { Readiness } from '../api/system/readiness.ts';
import type { Calls, Methods } from './calls.ts';

const { HealthCheckRequest, HealthCheckResponse } = grpc.health.v1;
const { NOT_SERVING, SERVICE_UNKNOWN, SERVING } = HealthCheckResponse.ServingStatus;
type ServingStatus = grpc.health.v1.HealthCheckResponse.ServingStatus;

const LOOK_MS = 500;

export interface ProbedServices {
  /** Full names of what is served. */
  readonly names: ReadonlySet<string>;
  /** Those of them that work while the database is away. */
  readonly withoutDatabase: ReadonlySet<string>;
}

/** grpc.health.v1.Health: readiness, as load balancers ask for it. */
export function probeService(readiness: Readiness, services: ProbedServices, calls: Calls): Methods {
  const statusOf = async (service: string): Promise<ServingStatus> => {
    if (service !== '' && !services.names.has(service)) return SERVICE_UNKNOWN;
    const { isReady, checks } = await readiness.report();
    const failed = Object.keys(checks).filter((name) => checks[name]?.status === 'failed');
    if (isReady) return SERVING;
    return services.withoutDatabase.has(service) && failed.every((name) => name === 'database') ? SERVING : NOT_SERVING;
  };
  const spec = {
    request: HealthCheckRequest,
    reply: HealthCheckResponse,
    access: 'certificate',
    throttle: 'never',
  } as const;
  return {
    Check: calls.unary(spec, async ({ service }) => {
      const status = await statusOf(service);
      if (status === SERVICE_UNKNOWN)
        throw new DomainError('not_found', `there is no service '${service.slice(0, 64)}'`);
      return { status };
    }),
    Watch: calls.serverStream(spec, async ({ service }, { signal }, send) => {
      let last: ServingStatus | undefined;
      while (!signal.aborted) {
        const status = await statusOf(service);
        if (status !== last) await send({ status });
        last = status;
        await pause(LOOK_MS, signal);
      }
      signal.throwIfAborted();
    }),
  };
}
