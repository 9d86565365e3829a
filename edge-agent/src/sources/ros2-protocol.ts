import type { QosSetting } from './options.ts';

/**
 * Why the ROS 2 child gave up, and the exit code that says so even when its last words were lost. Away from 1–15 and
 * 128+, which Node and signals use.
 */
export const ROS2_CHILD_EXITS = {
  rclnodejs_not_installed: 70,
  ros_not_sourced: 71,
  ros_wrong_distro: 72,
  rclnodejs_addon_broken: 73,
  ros_messages_missing: 74,
  ros_failed: 75,
} as const;
export type Ros2ChildFailure = keyof typeof ROS2_CHILD_EXITS;

/** What to do about it, for when the child could not say more. */
export const ROS2_CHILD_ADVICE: Readonly<Record<Ros2ChildFailure, string>> = {
  rclnodejs_not_installed: 'rclnodejs is not installed; source ROS 2 and run `npm install rclnodejs@2.2.0`',
  ros_not_sourced: 'ROS 2 is not sourced; set `setup` to its setup.bash, such as /opt/ros/jazzy/setup.bash',
  ros_wrong_distro: 'the sourced ROS 2 is not the one that was asked for, or that rclnodejs was built for',
  rclnodejs_addon_broken: 'the native part of rclnodejs does not load; source ROS 2 and run `npm rebuild rclnodejs`',
  ros_messages_missing: 'rclnodejs has no generated messages; source ROS 2 and run `npx generate-ros-messages`',
  ros_failed: 'ROS 2 failed in the child process',
};

export interface Ros2ChildTopic {
  readonly topic: string;
  readonly type: string;
  readonly qos: QosSetting;
}

/** What the child publishes while the gate is closed. Payloads are CDR with their encapsulation. */
export interface Ros2ChildStop {
  /** Again and again, at once and then so often. [ms] */
  readonly everyMs: number;
  readonly publishers: readonly {
    readonly topic: string;
    readonly type: string;
    readonly closed: Uint8Array;
    /** Once, when the gate opens. Absent: nothing more is said then. */
    readonly opened?: Uint8Array;
  }[];
}

/** The parent's later messages to the child. */
export interface Ros2ChildGate {
  readonly kind: 'gate';
  readonly isOpen: boolean;
}

/** The parent's first message to the child. */
export interface Ros2ChildStart {
  readonly kind: 'start';
  readonly nodeName: string;
  /** Absolute path, or file URL, of a file beside whose node_modules rclnodejs lies. Absent: the child's own. */
  readonly rclnodejsFrom?: string;
  /** ROS_DISTRO of the sourced environment. */
  readonly sourcedDistro?: string;
  /** What the configuration insists on. */
  readonly expectedDistro?: string;
  readonly topics: readonly Ros2ChildTopic[];
  readonly stop?: Ros2ChildStop;
}

/** One raw message. Times are the child's, whose monotonic clock is the parent's too. */
export interface Ros2RawMessage {
  /** Index into the start message's topics. */
  readonly topic: number;
  readonly receivedNs: bigint;
  readonly receivedMonoNs: bigint;
  /** CDR with its encapsulation. */
  readonly payload: Uint8Array;
}

export interface Ros2Publishers {
  readonly topic: number;
  readonly count: number;
  /** Publishers whose QoS or type keeps their messages from us, each with the reason. */
  readonly incompatible: readonly string[];
}

/** What the child says. */
export type Ros2ChildReport =
  | { readonly kind: 'failed'; readonly code: Ros2ChildFailure; readonly message: string }
  | { readonly kind: 'ready' }
  | { readonly kind: 'messages'; readonly messages: readonly Ros2RawMessage[]; readonly dropped: number }
  | { readonly kind: 'publishers'; readonly publishers: readonly Ros2Publishers[]; readonly dropped: number };
