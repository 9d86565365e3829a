import { z } from 'zod';

const pem = z.string().includes('-----BEGIN CERTIFICATE-----');
/** The answer to a signing request. */
export const grantedSchema = z.object({
  status: z.literal('success'),
  data: z.object({
    certificate: pem,
    ca_certificate: pem,
    mqtt_url: z.string().regex(/^(mqtts|tls|ssl):\/\//),
    device_name: z.string(),
    tenant_id: z.string(),
    robot_id: z.string(),
    expires_at: z.string(),
    /** Absent from a cloud that orders nothing. */
    instruction_keys: z.base64().optional(),
  }),
});
/** What the cloud answers to a signing request. */
export type GrantedCertificate = z.infer<typeof grantedSchema>['data'];
/** A refusal, in the envelope of either API. */
export const refusalSchema = z.object({
  error: z.union([z.string(), z.object({ code: z.string(), message: z.string() })]),
});
export type Refusal = z.infer<typeof refusalSchema>;
