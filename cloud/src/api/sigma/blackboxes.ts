import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { type BlackBoxes, BOX_BYTES_MAX } from '../../fleet/blackboxes.ts';
import type { Principal } from '../../identity/principal.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { sigmaErrors } from './responses.ts';
import { RobotPath } from './schemas.ts';

/** A part of 512 KiB in base64, and the words around it. */
const CHUNK_BODY_BYTES_MAX = 1024 * 1024;

const BoxPath = RobotPath.extend({ box_id: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9-]{0,99}$/) });
const Chunk = z.strictObject({
  size: z.int().min(1).max(BOX_BYTES_MAX),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  offset: z.int().min(0).max(BOX_BYTES_MAX),
  data: z.base64().openapi({ description: 'At most 512 KiB before encoding; empty asks how much is here' }),
});
const Received = z.object({ received: z.int(), complete: z.boolean() });
const Listed = z.object({
  blackboxes: z.array(
    z.object({
      box_id: z.string(),
      size: z.int().openapi({ description: '0: only asked for so far' }),
      sha256: z.string(),
      received: z.int(),
      complete: z.boolean(),
      requested: z.boolean(),
    }),
  ),
});

/** /api/v1/robots/{robot_id}/blackboxes: the recordings around stops. */
export function registerBlackBoxes(router: Router, core: Core): void {
  const boxes = (): BlackBoxes => {
    if (core.blackboxes) return core.blackboxes;
    throw new DomainError('unavailable', 'this server keeps no files');
  };
  const asRobot = (principal: Principal): void => {
    if (principal.kind !== 'robot') throw new DomainError('forbidden', "this takes the robot's own API key");
  };
  router.add(
    {
      method: 'get',
      path: '/api/v1/robots/{robot_id}/blackboxes',
      operationId: 'listBlackBoxes',
      summary: 'Recordings around the stops of a robot, as far as they are here or asked for',
      tag: 'SigmaPrompt',
      access: ['telemetry:read'],
      throttle: 'tier',
      params: RobotPath,
      responses: { 200: { description: 'Recordings', schema: Listed }, ...sigmaErrors([401, 403, 404, 429, 503]) },
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const listed = await boxes().list(robot.robotPk);
      return c.json({
        blackboxes: listed.map(({ boxId, size, sha256, received, isComplete, isRequested }) => ({
          box_id: boxId,
          size,
          sha256,
          received,
          complete: isComplete,
          requested: isRequested,
        })),
      });
    },
  );
  router.add(
    {
      method: 'get',
      path: '/api/v1/robots/{robot_id}/blackboxes/{box_id}',
      operationId: 'downloadBlackBox',
      summary: 'A recording around a stop, as MCAP',
      tag: 'SigmaPrompt',
      access: ['telemetry:read'],
      throttle: 'tier',
      params: BoxPath,
      responses: {
        200: { description: 'The recording', contentType: 'application/octet-stream' },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const { size, stream } = await boxes().open(robot.robotPk, params.box_id);
      return c.body(stream, 200, {
        'content-type': 'application/octet-stream',
        'content-length': String(size),
        'content-disposition': `attachment; filename="${params.box_id}.mcap"`,
      });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/api/v1/robots/{robot_id}/blackboxes/{box_id}/request',
      operationId: 'requestBlackBox',
      summary: 'Ask the robot to hand over a recording; it looks within a minute while it is connected',
      tag: 'SigmaPrompt',
      access: ['robot:control'],
      throttle: 'tier',
      params: BoxPath,
      responses: {
        202: { description: 'Asked for', schema: z.object({ here: z.boolean() }) },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      return c.json({ here: await boxes().request(robot.robotPk, params.box_id) }, 202);
    },
  );
  router.add(
    {
      method: 'get',
      path: '/api/v1/robots/{robot_id}/blackbox-requests',
      operationId: 'listBlackBoxRequests',
      summary: "Recordings that the robot is asked for; takes the robot's own API key",
      tag: 'SigmaPrompt',
      access: ['telemetry:write'],
      throttle: 'tier',
      params: RobotPath,
      responses: {
        200: { description: 'Ids', schema: z.object({ box_ids: z.array(z.string()) }) },
        ...sigmaErrors([401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) => {
      asRobot(principal);
      const robot = await core.robots.find(principal, params.robot_id);
      return c.json({ box_ids: await boxes().wanted(robot.robotPk) });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/api/v1/robots/{robot_id}/blackboxes/{box_id}/chunks',
      operationId: 'uploadBlackBoxChunk',
      summary: "Hand over a part of a recording; takes the robot's own API key",
      tag: 'SigmaPrompt',
      access: ['telemetry:write'],
      throttle: 'tier',
      params: BoxPath,
      body: Chunk,
      bodyBytesMax: CHUNK_BODY_BYTES_MAX,
      responses: {
        200: { description: 'How much is here: go on from there', schema: Received },
        ...sigmaErrors([400, 401, 403, 404, 413, 429, 503]),
      },
    },
    async ({ principal, params, body }, c) => {
      asRobot(principal);
      const robot = await core.robots.find(principal, params.robot_id);
      const { size, sha256, offset, data } = body;
      const chunk = { size, sha256, offset, bytes: Buffer.from(data, 'base64') };
      const { received, isComplete } = await boxes().take(robot.robotPk, params.box_id, chunk);
      return c.json({ received, complete: isComplete });
    },
  );
}
