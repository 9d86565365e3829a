import { z } from '@hono/zod-openapi';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { success } from './envelope.ts';
import { wiaResponses } from './responses.ts';
import { RobotPath } from './schemas.ts';

const CertificatePath = RobotPath.extend({ serial_number: z.string().regex(/^[0-9a-f]{1,64}$/i) });

const Certificates = z.object({
  certificates: z.array(
    z.object({
      serial_number: z.string(),
      fingerprint_sha256: z.string(),
      issued_at: z.iso.datetime(),
      expires_at: z.iso.datetime(),
      revoked_at: z.iso.datetime().nullable(),
      revoked_reason: z.string().nullable(),
    }),
  ),
});

/** DELETE /v1/robots/{robot_id}, and the certificates of a robot. */
export function registerDecommission(router: Router, core: Core): void {
  router.add(
    {
      method: 'delete',
      path: '/v1/robots/{robot_id}',
      operationId: 'deregisterRobot',
      summary: 'Take a robot out of the fleet; its keys and certificates end at once',
      tag: 'WIA',
      access: ['robot:admin'],
      throttle: 'tier',
      params: RobotPath,
      responses: wiaResponses(204, 'The robot is gone', undefined, [401, 403, 404, 429, 503]),
    },
    async ({ principal, params }, c) => {
      await core.decommissioner.deregister(principal, params.robot_id, c.get('requestId'));
      return c.body(null, 204);
    },
  );
  router.add(
    {
      method: 'get',
      path: '/v1/robots/{robot_id}/certificates',
      operationId: 'listRobotCertificates',
      summary: 'Certificates that the robot was given, newest first',
      tag: 'WIA',
      access: ['robot:admin'],
      throttle: 'tier',
      params: RobotPath,
      responses: wiaResponses(200, 'The certificates', Certificates, [401, 403, 404, 429, 503]),
    },
    async ({ principal, params }, c) => {
      const records = await core.decommissioner.certificatesOf(principal, params.robot_id);
      return success(c, {
        certificates: records.map((record) => ({
          serial_number: record.serialNumber,
          fingerprint_sha256: record.fingerprintSha256,
          issued_at: new Date(record.issuedAtMs).toISOString(),
          expires_at: new Date(record.expiresAtMs).toISOString(),
          revoked_at: record.revokedAtMs === undefined ? null : new Date(record.revokedAtMs).toISOString(),
          revoked_reason: record.revokedReason ?? null,
        })),
      });
    },
  );
  router.add(
    {
      method: 'delete',
      path: '/v1/robots/{robot_id}/certificates/{serial_number}',
      operationId: 'revokeRobotCertificate',
      summary: 'Take back one certificate; its session ends at once',
      tag: 'WIA',
      access: ['robot:admin'],
      throttle: 'tier',
      params: CertificatePath,
      responses: wiaResponses(204, 'It is revoked', undefined, [401, 403, 404, 422, 429, 503]),
    },
    async ({ principal, params }, c) => {
      const { robot_id, serial_number } = params;
      await core.decommissioner.revokeCertificate(principal, robot_id, serial_number, c.get('requestId'));
      return c.body(null, 204);
    },
  );
}
