import { createRequire } from 'node:module';
import { join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import type { AgentConfig } from '../config.ts';
import type { Ros2Options } from '../sources/ros2.ts';
import { sourcedEnvironment } from '../sources/ros2-environment.ts';
import { checkRos2, Ros2Unusable } from '../sources/ros2-preflight.ts';
import { type Check, type Finding, fail, ok } from './finding.ts';

const SETUP_TIMEOUT_MS = 15_000;
const MENDS: Readonly<Record<string, string>> = {
  rclnodejs_not_installed: 'source ROS 2, then: npm install rclnodejs@2.2.0 in the folder of the agent',
  ros_not_sourced: 'install ROS 2, or set `setup` of the ros2 source to its setup.bash',
  ros_wrong_distro: 'set `setup` and `distro` of the ros2 source to one release, and rebuild rclnodejs for it',
  rclnodejs_addon_broken: 'source ROS 2, then: npm rebuild rclnodejs',
  ros_messages_missing: 'source ROS 2, then: npx generate-ros-messages',
};

/** ROS 2: setup file, release, rclnodejs and its messages. Nothing is imported: that could rebuild its addon. */
export function rosChecks({ sources }: AgentConfig): Check[] {
  const configured = sources.flatMap((source) => (source.type === 'ros2' ? [source.options] : []));
  if (configured.length === 0) return [{ area: 'ros', run: () => [ok('no ROS 2 source is configured')] }];
  return configured.map((options) => ({ area: options.name ?? 'ros', run: () => rosFindings(options) }));
}

async function rosFindings(options: Ros2Options): Promise<Omit<Finding, 'area'>[]> {
  try {
    const environment = await sourcedEnvironment(options.setup, options.env, AbortSignal.timeout(SETUP_TIMEOUT_MS));
    const sourcedDistro = environment['ROS_DISTRO'];
    const folder = checkRos2(
      {
        kind: 'start',
        nodeName: 'outrider_doctor',
        topics: options.topics.map(({ topic, type, qos }) => ({ topic, type, qos })),
        ...(sourcedDistro !== undefined && { sourcedDistro }),
        ...(options.distro !== undefined && { expectedDistro: options.distro }),
      },
      // The addon is only looked for: loading it needs the environment that the agent's child process has.
      { resolvePackage: () => resolveFrom(options.rclnodejsDir), loadAddon: () => undefined },
    );
    return [ok(`ROS 2 ${sourcedDistro}, ${options.topics.length} topics, rclnodejs in ${folder}`)];
  } catch (error) {
    const code = error instanceof Ros2Unusable ? error.code : '';
    return [fail(errorMessage(error), MENDS[code] ?? 'run the setup file in a shell and look at what it says')];
  }
}

function resolveFrom(directory: string | undefined): string {
  const require = createRequire(directory === undefined ? import.meta.url : join(directory, 'package.json'));
  return require.resolve('rclnodejs/package.json');
}
