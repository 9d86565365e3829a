import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import { deviceName } from '@outrider/shared/ids';
import type { Robot } from '../../fleet/robot.ts';
import { parseScopes } from '../../identity/principal.ts';
import type { Core } from '../core.ts';
import { type Router, remoteAddress } from '../router.ts';
import { success } from './envelope.ts';
import { wiaResponses } from './responses.ts';
import {
  CertificateRequest,
  ListQuery,
  LoginRequest,
  RegisteredRobot,
  RegisterRequest,
  RobotDetails,
  RobotList,
  RobotPath,
} from './schemas.ts';

const iso = (atMs: number | undefined): string | null => (atMs === undefined ? null : new Date(atMs).toISOString());

/** /v1/auth/login, /v1/robots and /v1/robots/{robot_id}. */
export function registerRobots(router: Router, core: Core): void {
  const apiEndpoint = (robotId: string): string => `${core.urls().http}/v1/robots/${robotId}`;
  const websocketUrl = (robotId: string): string => `${apiEndpoint(robotId).replace(/^http/, 'ws')}/ws`;
  router.addPublic(
    {
      method: 'post',
      path: '/v1/auth/login',
      operationId: 'login',
      summary: 'Log in with a password',
      tag: 'WIA',
      access: 'public',
      throttle: 'auth',
      body: LoginRequest,
      responses: wiaResponses(
        200,
        'A token',
        z.object({ access_token: z.string(), token_type: z.literal('Bearer'), expires_in: z.int(), scope: z.string() }),
        [400, 401, 413, 422, 429, 503],
      ),
    },
    async ({ body }, c) => {
      const asked = parseScopes(body.scope ?? '');
      const login = await core.throttle.guardSecret(body.username, remoteAddress(c), () =>
        core.accounts.login(body.username, body.password, asked),
      );
      return success(c, {
        access_token: login.accessToken,
        token_type: 'Bearer',
        expires_in: login.expiresInS,
        scope: login.principal.scopes.join(' '),
      });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/v1/robots',
      operationId: 'registerRobot',
      summary: 'Register a robot; its API key is shown this once',
      tag: 'WIA',
      access: ['robot:admin'],
      throttle: 'tier',
      body: RegisterRequest,
      responses: wiaResponses(201, 'Registered', RegisteredRobot, [400, 401, 403, 409, 413, 422, 429, 503]),
    },
    async ({ principal, body }, c) => {
      const given = body.robot_descriptor;
      const { ref, apiKey, registeredAtMs } = await core.robots.register(
        principal,
        {
          robotId: given.robot_id,
          robotName: given.robot_name,
          robotType: given.robot_type,
          capabilities: given.capabilities,
          ...(given.manufacturer === undefined ? {} : { manufacturer: given.manufacturer }),
          ...(given.model === undefined ? {} : { model: given.model }),
          ...(given.firmware_version === undefined ? {} : { firmwareVersion: given.firmware_version }),
        },
        c.get('requestId'),
      );
      return success(
        c,
        {
          robot_id: ref.robotId,
          registered_at: iso(registeredAtMs),
          api_key: apiKey,
          websocket_url: websocketUrl(ref.robotId),
        },
        201,
      );
    },
  );
  router.add(
    {
      method: 'get',
      path: '/v1/robots',
      operationId: 'listRobots',
      summary: 'List robots',
      tag: 'WIA',
      access: ['robot:read'],
      throttle: 'tier',
      query: ListQuery,
      responses: wiaResponses(200, 'Robots', RobotList, [401, 403, 422, 429, 503]),
    },
    async ({ principal, query }, c) => {
      const { robots, total } = await core.robots.list(principal, query);
      const { limit, offset } = query;
      return success(c, {
        robots: robots.map((robot) => summarize(robot, apiEndpoint(robot.robotId))),
        pagination: { total, limit, offset, has_more: offset + robots.length < total },
      });
    },
  );
  router.add(
    {
      method: 'get',
      path: '/v1/robots/{robot_id}',
      operationId: 'getRobot',
      summary: 'Details of a robot',
      tag: 'WIA',
      access: ['robot:read'],
      throttle: 'tier',
      params: RobotPath,
      responses: wiaResponses(200, 'The robot', RobotDetails, [401, 403, 404, 429, 503]),
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.read(principal, params.robot_id);
      return success(c, {
        robot_id: robot.robotId,
        robot_name: robot.robotName,
        robot_type: robot.robotType,
        manufacturer: robot.manufacturer ?? null,
        model: robot.model ?? null,
        firmware_version: robot.firmwareVersion ?? null,
        status: robot.status,
        last_seen: iso(robot.lastSeenMs),
        registered_at: iso(robot.registeredAtMs),
        capabilities: robot.capabilities,
        network: { ip_address: null, websocket_url: websocketUrl(robot.robotId) },
      });
    },
  );
  router.add(
    {
      method: 'post',
      path: '/v1/robots/{robot_id}/certificates',
      operationId: 'issueRobotCertificate',
      summary: "Certify a robot's key for MQTT; takes the robot's own API key",
      tag: 'WIA',
      access: ['telemetry:write'],
      throttle: 'tier',
      params: RobotPath,
      body: CertificateRequest,
      responses: wiaResponses(
        201,
        'The certificate',
        z.object({
          certificate: z.string(),
          ca_certificate: z.string(),
          mqtt_url: z.string(),
          device_name: z.string(),
          tenant_id: z.string(),
          robot_id: z.string(),
          expires_at: z.iso.datetime(),
          instruction_keys: z.string().openapi({
            description: 'SignedKeyList of messages.proto, in base64: who may order this robot to do things',
          }),
        }),
        [400, 401, 403, 404, 413, 422, 429, 503],
      ),
    },
    async ({ principal, params, body }, c) => {
      if (principal.kind !== 'robot') throw new DomainError('forbidden', "this takes the robot's own API key");
      const robot = await core.robots.find(principal, params.robot_id);
      const issued = await core.certificates.issueRobotCertificate(robot, body.csr);
      return success(
        c,
        {
          certificate: issued.certificatePem,
          ca_certificate: issued.caPem,
          mqtt_url: core.urls().mqtt,
          device_name: deviceName(robot),
          tenant_id: robot.tenantId,
          robot_id: robot.robotId,
          expires_at: iso(issued.expiresAt),
          instruction_keys: Buffer.from(core.instructionKeys.list.bytes).toString('base64'),
        },
        201,
      );
    },
  );
}

const summarize = (robot: Robot, endpoint: string): z.output<typeof RobotList>['robots'][number] => ({
  robot_id: robot.robotId,
  robot_name: robot.robotName,
  robot_type: robot.robotType,
  status: robot.status,
  last_seen: iso(robot.lastSeenMs),
  capabilities_summary: Object.keys(robot.capabilities),
  api_endpoint: endpoint,
});
