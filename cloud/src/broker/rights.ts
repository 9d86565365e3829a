import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import { downFilter, parseTopic } from '@outrider/shared/protocol/topics';

export type PublishRight = 'up' | 'presence' | 'unknown' | 'foreign';

/**
 * What a robot's publish to a topic is. `unknown` is below its own `up/`, from a newer edge perhaps: nobody hears
 * it. `foreign` is everything that is not its own to publish.
 */
export function publishRight(device: DeviceIdentity, topic: string): PublishRight {
  const parsed = parseTopic(topic);
  const isOwn = parsed !== undefined && deviceName(parsed.device) === deviceName(device);
  if (isOwn && parsed.direction === 'up') return 'up';
  if (isOwn && parsed.direction === 'presence') return 'presence';
  return topic.startsWith(`outrider/v1/${deviceName(device)}/up/`) ? 'unknown' : 'foreign';
}

/** Whether a robot may listen to this filter: its own `down/+`, or one topic below it, letter by letter. */
export function maySubscribe(device: DeviceIdentity, filter: string): boolean {
  if (filter === downFilter(device)) return true;
  const parsed = parseTopic(filter);
  return parsed?.direction === 'down' && deviceName(parsed.device) === deviceName(device);
}

/** Whether a program of the tenant may listen to this filter: its tenant's events, all or some. */
export function mayReadEvents(tenantId: string, filter: string): boolean {
  const [root, tenant, ...rest] = filter.split('/');
  return root === 'events' && tenant === tenantId && rest.length > 0;
}
