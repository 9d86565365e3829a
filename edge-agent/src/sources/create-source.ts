import { resolve } from 'node:path';
import type { ReplaySourceSettings, Ros2SourceSettings } from './options.ts';
import type { PlaybackOptions } from './playback.ts';
import { ReplaySource } from './replay.ts';
import { Ros2Source } from './ros2.ts';
import type { Environment } from './ros2-environment.ts';
import type { Source, SourcePorts } from './source.ts';

/** What a source needs to know beyond its own settings. */
export interface SourceContext {
  /** Folder that relative paths in the settings start from. */
  readonly baseDir: string;
  /** The agent's environment, which a ROS setup file adds to. */
  readonly env: Environment;
  /** Position that a recording goes on behind; see ReplaySource. Default 0. */
  readonly startAfter?: number;
  /** Joint limits, for telling a jump from a motion. [rad/s] */
  readonly velocityMaxRadps?: Readonly<Record<string, number>>;
  /** Where a private copy of a recording may lie for a moment. Default: the system's folder for such. */
  readonly scratchDir?: string;
}

/** Makes the source that the settings name. */
export function createSource(
  settings: Ros2SourceSettings | ReplaySourceSettings,
  context: SourceContext,
  ports: SourcePorts,
): Source {
  const { baseDir, env, velocityMaxRadps } = context;
  const limits = velocityMaxRadps ? { velocityMaxRadps } : {};
  if (settings.type === 'replay') {
    const { name, speed, loop } = settings;
    const startAfter = context.startAfter ?? 0;
    return new ReplaySource({ ...playbackOptions(settings, context), name, speed, loop, startAfter }, ports);
  }
  const { name, setup, distro, domain_id, node_name, rclnodejs_dir, topics } = settings;
  return new Ros2Source(
    {
      name,
      nodeName: node_name,
      topics,
      env,
      ...limits,
      ...(setup === undefined ? {} : { setup: resolve(baseDir, setup) }),
      ...(distro === undefined ? {} : { distro }),
      ...(domain_id === undefined ? {} : { domainId: domain_id }),
      ...(rclnodejs_dir === undefined ? {} : { rclnodejsDir: resolve(baseDir, rclnodejs_dir) }),
    },
    ports,
  );
}

/** The part of a replay's settings that decides what its positions mean; see `replayFingerprint`. */
export function playbackOptions(settings: ReplaySourceSettings, context: SourceContext): PlaybackOptions {
  const { file, topics, columns } = settings;
  const { baseDir, velocityMaxRadps, scratchDir } = context;
  return {
    file: resolve(baseDir, file),
    ...(topics ? { topics } : {}),
    ...(columns ? { columns } : {}),
    ...(velocityMaxRadps ? { velocityMaxRadps } : {}),
    ...(scratchDir === undefined ? {} : { scratchDir }),
  };
}
