import { type DeviceIdentity, deviceName, parseDeviceName } from '../ids.ts';

/**
 * The MQTT topic map. `<device>` is `<tenant>.<robot>`: certificate common name, client id and topic level at once,
 * so that a broker can derive every right from the certificate alone.
 *
 * | topic | who publishes | QoS | retained | payload |
 * |---|---|---|---|---|
 * | outrider/v1/<device>/up/hello | robot | 1 | no | Hello |
 * | outrider/v1/<device>/up/event, /state, /telemetry | robot | 1 | no | UplinkBatch |
 * | outrider/v1/<device>/up/reply | robot | 1 | no | CommandReply |
 * | outrider/v1/<device>/presence | robot, last will | 1 | yes | PresenceReport |
 * | outrider/v1/<device>/down/ack | cloud | 0 | no | Ack |
 * | outrider/v1/<device>/down/hello | cloud | 1 | no | HelloReply |
 * | outrider/v1/<device>/down/keys | cloud | 1 | no | SignedKeyList |
 * | outrider/v1/<device>/down/command | cloud | 1 | no | SignedInstruction |
 *
 * An acknowledgement needs none of MQTT's own: after one that is lost with its
 * connection the batches come again and are known.
 *
 * Stops, recoveries and commands share one channel: what a message asks for is said by the part of it that is signed,
 * never by its topic, and on one channel a stop is not overtaken by what was sent after it.
 */
const ROOT = 'outrider/v1';

export const UP_CHANNELS = ['hello', 'event', 'state', 'telemetry', 'reply'] as const;
export type UpChannel = (typeof UP_CHANNELS)[number];
export const DOWN_CHANNELS = ['ack', 'hello', 'keys', 'command'] as const;
export type DownChannel = (typeof DOWN_CHANNELS)[number];

export const upTopic = (id: DeviceIdentity, channel: UpChannel): string => `${ROOT}/${deviceName(id)}/up/${channel}`;
export const downTopic = (id: DeviceIdentity, channel: DownChannel): string =>
  `${ROOT}/${deviceName(id)}/down/${channel}`;
export const presenceTopic = (id: DeviceIdentity): string => `${ROOT}/${deviceName(id)}/presence`;
/** What a robot subscribes to: exactly its own. */
export const downFilter = (id: DeviceIdentity): string => `${ROOT}/${deviceName(id)}/down/+`;

/** What the cloud subscribes to. Prefix with `$share/<group>/` on a broker that knows shared subscriptions. */
export const INGEST_FILTERS = [`${ROOT}/+/up/+`, `${ROOT}/+/presence`] as const;

export type ParsedTopic =
  | { readonly device: DeviceIdentity; readonly direction: 'up'; readonly channel: UpChannel }
  | { readonly device: DeviceIdentity; readonly direction: 'down'; readonly channel: DownChannel }
  | { readonly device: DeviceIdentity; readonly direction: 'presence' };

/** Reads a topic of the map; `undefined` for any other. */
export function parseTopic(topic: string): ParsedTopic | undefined {
  const [root, version, name, direction, channel, ...rest] = topic.split('/');
  if (`${root}/${version}` !== ROOT || name === undefined || rest.length > 0) return undefined;
  const device = parseDeviceName(name);
  if (!device) return undefined;
  if (direction === 'presence' && channel === undefined) return { device, direction };
  if (direction === 'up' && isOneOf(UP_CHANNELS, channel)) return { device, direction, channel };
  if (direction === 'down' && isOneOf(DOWN_CHANNELS, channel)) return { device, direction, channel };
  return undefined;
}

function isOneOf<T extends string>(set: readonly T[], value: string | undefined): value is T {
  return value !== undefined && (set as readonly string[]).includes(value);
}
