import { z } from '@hono/zod-openapi';
import type { EpochMs } from '@outrider/shared/time';
import { toIso } from '@outrider/shared/time';
import { WINDOWS, type Window } from '../../dashboard/overview.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { sigmaErrors } from './responses.ts';

const WINDOW_NAMES = Object.keys(WINDOWS) as [Window, ...Window[]];

const OverviewQuery = z.strictObject({
  window: z.enum(WINDOW_NAMES).default('24h').openapi({ description: 'How far back anomalies and energy are counted' }),
});

const Target = z.object({
  name: z.enum(['read_latency_p95', 'command_dispatch_p95', 'failsafe_availability', 'decision_window_p95']),
  unit: z.enum(['ms', 'ratio']),
  target: z.number(),
  measured: z.number().nullable(),
  count: z.int(),
  met: z.boolean().nullable().openapi({ description: 'Null: nothing was measured' }),
});

const FleetOverviewReply = z
  .object({
    active_robots: z.int().openapi({ description: 'Connected, or heard within the last minute' }),
    total_robots: z.int(),
    robots_in_failsafe: z.int(),
    anomaly_count: z.int(),
    robots_with_anomalies: z.int(),
    energy_usage_kwh: z.number().openapi({ description: 'Integrated from the power readings that were stored' }),
    energy: z.object({
      covered_hours: z.number().openapi({ description: 'Robot hours for which there are readings' }),
      robots_measured: z.int(),
    }),
    sla_status: z.enum(['met', 'breached', 'unknown']),
    sla: z.array(Target).openapi({ description: 'The last hour of the server that answers' }),
    window: z.object({ from: z.iso.datetime(), to: z.iso.datetime() }),
  })
  .openapi('FleetOverview');

/** GET /api/v1/dashboard/fleet/overview. */
export function registerOverview(router: Router, core: Core): void {
  router.add(
    {
      method: 'get',
      path: '/api/v1/dashboard/fleet/overview',
      operationId: 'fleetOverview',
      summary: 'The fleet at a glance: active robots, anomalies, energy, and how the service keeps its targets',
      tag: 'SigmaPrompt',
      access: ['telemetry:read', 'fleet:read'],
      throttle: 'tier',
      query: OverviewQuery,
      responses: {
        200: { description: 'The numbers', schema: FleetOverviewReply },
        ...sigmaErrors([400, 401, 403, 429, 503]),
      },
    },
    async ({ principal, query }, c) => {
      const found = await core.overview.read(principal, query.window);
      return c.json({
        active_robots: found.robots.active,
        total_robots: found.robots.total,
        robots_in_failsafe: found.robots.inFailsafe,
        anomaly_count: found.anomalies.count,
        robots_with_anomalies: found.anomalies.robots,
        energy_usage_kwh: found.energy.energyKwh,
        energy: { covered_hours: found.energy.coveredHours, robots_measured: found.energy.robots },
        sla_status: found.slaStatus,
        sla: found.targets.map(({ name, unit, target, measured, count, isMet }) => ({
          name,
          unit,
          target,
          measured,
          count,
          met: isMet,
        })),
        window: { from: toIso(found.fromMs as EpochMs), to: toIso(found.atMs as EpochMs) },
      });
    },
  );
}
