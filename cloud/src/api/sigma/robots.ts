import { sampleFlagNames } from '@outrider/shared/telemetry';
import { assessHealth } from '../../fleet/health.ts';
import { finiteOrNull } from '../../fleet/readings.ts';
import type { LatestSample } from '../../telemetry/ports.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { sigmaErrors } from './responses.ts';
import {
  FailsafeRecoverReply,
  FailsafeRecoverRequest,
  FailsafeTriggerReply,
  FailsafeTriggerRequest,
  RobotHealth,
  RobotPath,
} from './schemas.ts';

const iso = (atMs: number | undefined): string | null => (atMs === undefined ? null : new Date(atMs).toISOString());

/** /api/v1/robots/{robot_id}/health, /failsafe/trigger and /failsafe/recover. */
export function registerRobots(router: Router, core: Core): void {
  router.add(
    {
      method: 'get',
      path: '/api/v1/robots/{robot_id}/health',
      operationId: 'getRobotHealth',
      summary: 'Health and risk of a robot, by documented rules and by what its analyser learnt',
      tag: 'SigmaPrompt',
      access: ['telemetry:read'],
      throttle: 'tier',
      params: RobotPath,
      responses: { 200: { description: 'Health', schema: RobotHealth }, ...sigmaErrors([401, 403, 404, 429, 503]) },
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.read(principal, params.robot_id);
      const [latest, shadow] = await Promise.all([
        core.reader.latest(robot.robotPk),
        core.reader.shadow(robot.robotPk),
      ]);
      const health = assessHealth(robot, latest, shadow, core.clock.epochMs());
      return c.json({
        robot_id: robot.robotId,
        health_score: health.score,
        anomaly_score: health.anomalyScore,
        risk_level: health.risk,
        updated_at: iso(health.updatedAtMs),
        reasons: health.reasons,
        signals: health.signals.map(({ signal, score, cost, sinceMs }) => ({
          signal,
          score,
          cost,
          since: new Date(sinceMs).toISOString(),
        })),
        analysed_by: health.analysedBy,
        liveness: { presence: robot.presence ?? null, last_seen: iso(robot.lastSeenMs), status: robot.status },
        failsafe: health.failsafe
          ? {
              phase: health.failsafe.phase,
              mode: health.failsafe.mode,
              action: health.failsafe.action,
              latch_id: health.failsafe.latch_id,
              causes: health.failsafe.causes,
            }
          : null,
        latest: Object.fromEntries(latest.map((entry) => [entry.stream, encodeLatest(entry)])),
      });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/api/v1/robots/{robot_id}/failsafe/trigger',
      operationId: 'triggerFailsafe',
      summary: 'Ask the robot to stop; answers once the robot says that it has',
      tag: 'SigmaPrompt',
      access: ['command:write'],
      throttle: 'never',
      params: RobotPath,
      body: FailsafeTriggerRequest,
      responses: {
        200: { description: 'The robot is stopped and latched', schema: FailsafeTriggerReply },
        ...sigmaErrors([400, 401, 403, 404, 409, 413, 503, 504]),
      },
    },
    async ({ principal, params, body }, c) => {
      const robot = await core.robots.locate(principal, params.robot_id);
      const answer = await core.failsafe.trigger({
        robot,
        mode: body.mode,
        reason: body.reason ?? '',
        requestedBy: principal.sub,
        traceId: c.get('requestId'),
      });
      return c.json({
        robot_id: robot.robotId,
        mode: body.mode,
        triggered: true,
        latch_id: answer.latchId,
        command_id: answer.commandId,
        detail: answer.detail,
        triggered_at: new Date(answer.answeredAtMs).toISOString(),
      });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/api/v1/robots/{robot_id}/failsafe/recover',
      operationId: 'recoverFailsafe',
      summary: 'Ask the robot to leave its safe state; answers once the robot says that it has, or why it does not',
      tag: 'SigmaPrompt',
      access: ['command:write'],
      throttle: 'tier',
      params: RobotPath,
      body: FailsafeRecoverRequest,
      responses: {
        200: { description: 'The robot is armed', schema: FailsafeRecoverReply },
        ...sigmaErrors([400, 401, 403, 404, 409, 413, 429, 503, 504]),
      },
    },
    async ({ principal, params, body }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const answer = await core.recoverer.recover({
        robot,
        latchId: body.latch_id,
        nonce: body.nonce ?? '',
        reason: body.reason ?? '',
        confirmed: body.confirmed ?? [],
        requestedBy: principal.sub,
        traceId: c.get('requestId'),
      });
      return c.json({
        robot_id: robot.robotId,
        recovered: true,
        latch_id: answer.latchId,
        motion_epoch: answer.motionEpoch,
        command_id: answer.commandId,
        detail: answer.detail,
        recovered_at: new Date(answer.answeredAtMs).toISOString(),
      });
    },
  );
}

/** A sample as an object by field; what JSON cannot say is null. */
export function encodeLatest({ kind, sample, recordedAt, ingestedAt }: LatestSample): Record<string, unknown> {
  let start = 0;
  const values: Record<string, (number | null)[]> = {};
  for (const { name, width } of sample.layout.fields) {
    values[name] = Array.from(sample.values.subarray(start, start + width), finiteOrNull);
    start += width;
  }
  return {
    kind,
    recorded_at: iso(recordedAt),
    ingested_at: iso(ingestedAt),
    names: sample.layout.names,
    values,
    flags: sampleFlagNames(sample.flags),
    ...(sample.text === undefined ? {} : { text: sample.text }),
  };
}
