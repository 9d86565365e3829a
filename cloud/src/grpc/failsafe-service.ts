import { outrider } from '@outrider/shared/protocol/api-messages';
import type { Core } from '../api/core.ts';
import { FailsafeRecoverRequest, FailsafeTriggerRequest } from '../api/sigma/schemas.ts';
import { validate } from '../api/validation.ts';
import type { Calls, Methods } from './calls.ts';

const { TriggerRequest, TriggerReply, RecoverRequest, RecoverReply } = outrider.api.v1;

/** outrider.api.v1.FailsafeService: works without a database, as over HTTP. */
export const failsafeService = (core: Core, calls: Calls): Methods => ({
  Trigger: calls.unary(
    { request: TriggerRequest, reply: TriggerReply, access: ['command:write'], throttle: 'never' },
    async ({ robot_id, mode, reason }, context) => {
      const principal = await context.principal();
      const order = validate(FailsafeTriggerRequest, { mode: mode || undefined, reason }, 'request');
      const robot = await core.robots.locate(principal, robot_id);
      const answer = await core.failsafe.trigger({
        robot,
        mode: order.mode,
        reason: order.reason ?? '',
        requestedBy: principal.sub,
        traceId: context.requestId,
      });
      return {
        robot_id: robot.robotId,
        mode: order.mode,
        latch_id: answer.latchId,
        command_id: answer.commandId,
        detail: answer.detail,
        triggered_at: new Date(answer.answeredAtMs).toISOString(),
      };
    },
  ),
  Recover: calls.unary(
    { request: RecoverRequest, reply: RecoverReply, access: ['command:write'], throttle: 'tier' },
    async ({ robot_id, latch_id, nonce, reason, confirmed }, context) => {
      const principal = await context.principal();
      const order = validate(
        FailsafeRecoverRequest,
        { latch_id: latch_id ?? undefined, nonce: nonce || undefined, reason, confirmed },
        'request',
      );
      const robot = await core.robots.find(principal, robot_id);
      const answer = await core.recoverer.recover({
        robot,
        latchId: order.latch_id,
        nonce: order.nonce ?? '',
        reason: order.reason ?? '',
        confirmed: order.confirmed ?? [],
        requestedBy: principal.sub,
        traceId: context.requestId,
      });
      return {
        robot_id: robot.robotId,
        latch_id: answer.latchId,
        motion_epoch: answer.motionEpoch,
        command_id: answer.commandId,
        detail: answer.detail,
        recovered_at: new Date(answer.answeredAtMs).toISOString(),
      };
    },
  ),
});
