import { outrider } from '@outrider/shared/protocol/api-messages';
import { pause } from '@outrider/shared/service';
import type { Core } from '../api/core.ts';
import { assessHealth } from '../fleet/health.ts';
import type { Principal } from '../identity/principal.ts';
import type { Calls, Methods } from './calls.ts';

const { GetHealthRequest, HealthReport, WatchHealthRequest } = outrider.api.v1;
type Report = outrider.api.v1.HealthReport.$Properties;

const ACCESS = ['telemetry:read'] as const;
/** A watched robot is looked at this often. */
const LOOK_MS = 1_000;

/** outrider.api.v1.RobotHealthService */
export const robotHealthService = (core: Core, calls: Calls): Methods => ({
  GetHealth: calls.unary(
    { request: GetHealthRequest, reply: HealthReport, access: ACCESS, throttle: 'tier' },
    async ({ robot_id }, context) => read(core, await context.principal(), robot_id),
  ),
  WatchHealth: calls.serverStream(
    { request: WatchHealthRequest, reply: HealthReport, access: ACCESS, throttle: 'tier' },
    async ({ robot_id }, context, send) => {
      let last = '';
      // The next look waits until the caller has taken the last report: a slow one gets fewer, never a queue.
      while (!context.signal.aborted) {
        const report = await read(core, await context.principal(), robot_id);
        const text = sameness(report);
        if (text !== last) await send(report);
        last = text;
        await pause(LOOK_MS, context.signal);
      }
      context.signal.throwIfAborted();
    },
  ),
});

/** The same text for reports that say the same of the robot. */
const sameness = (report: Report): string => JSON.stringify({ ...report, updated_at: '' });

async function read(core: Core, principal: Principal, robotId: string): Promise<Report> {
  const robot = await core.robots.read(principal, robotId);
  const [latest, shadow] = await Promise.all([core.reader.latest(robot.robotPk), core.reader.shadow(robot.robotPk)]);
  const health = assessHealth(robot, latest, shadow, core.clock.epochMs());
  return {
    robot_id: robot.robotId,
    health_score: health.score,
    anomaly_score: health.anomalyScore,
    risk_level: health.risk,
    updated_at: health.updatedAtMs === undefined ? '' : new Date(health.updatedAtMs).toISOString(),
    reasons: [...health.reasons],
    signals: health.signals.map(({ signal, score, cost, sinceMs }) => ({
      signal,
      score,
      cost,
      since: new Date(sinceMs).toISOString(),
    })),
  };
}
