import type { QosSetting } from './options.ts';

/** rmw_qos_reliability_policy_t and rmw_qos_durability_policy_t, as rclnodejs passes them on. */
export const RMW = {
  keepLast: 1,
  reliable: 1,
  bestEffort: 2,
  transientLocal: 1,
  volatile: 2,
} as const;

/** A subscription's settings in rmw's numbers. */
export interface RmwQos {
  readonly depth: number;
  readonly reliability: number;
  readonly durability: number;
}

/** What rclnodejs tells about a publisher, as far as we look. */
export interface RmwEndpoint {
  readonly node_name?: string;
  readonly topic_type?: string;
  readonly qos_profile?: { readonly reliability?: number; readonly durability?: number };
}

/** `sensor_data` asks for the least (rmw_qos_profile_sensor_data), `default` for reliable delivery. */
export function rmwQos(setting: QosSetting): RmwQos {
  if (setting === 'sensor_data') return { depth: 5, reliability: RMW.bestEffort, durability: RMW.volatile };
  if (setting === 'default') return { depth: 10, reliability: RMW.reliable, durability: RMW.volatile };
  return {
    depth: setting.depth,
    reliability: setting.reliability === 'reliable' ? RMW.reliable : RMW.bestEffort,
    durability: setting.durability === 'transient_local' ? RMW.transientLocal : RMW.volatile,
  };
}

/**
 * Why a publisher's messages do not reach a subscription; nothing when they do. DDS matches silently: who asks for
 * more than is offered simply gets nothing.
 */
export function mismatch(asked: RmwQos, type: string, publisher: RmwEndpoint): string | undefined {
  const who = publisher.node_name || 'a publisher';
  const { reliability, durability } = publisher.qos_profile ?? {};
  if (publisher.topic_type !== undefined && publisher.topic_type !== '' && publisher.topic_type !== type)
    return `${who} publishes ${publisher.topic_type}, not ${type}`;
  if (asked.reliability === RMW.reliable && reliability === RMW.bestEffort)
    return `${who} publishes best effort, we ask for reliable: set qos to sensor_data`;
  if (asked.durability === RMW.transientLocal && durability === RMW.volatile)
    return `${who} publishes volatile, we ask for transient_local: set qos.durability to volatile`;
  return undefined;
}
