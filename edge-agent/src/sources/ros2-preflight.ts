import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { ROS2_CHILD_ADVICE, type Ros2ChildFailure, type Ros2ChildStart } from './ros2-protocol.ts';

/** Why ROS 2 cannot be used here. */
export class Ros2Unusable extends Error {
  override readonly name = 'Ros2Unusable';
  readonly code: Ros2ChildFailure;

  constructor(code: Ros2ChildFailure, detail = '') {
    super(`${ROS2_CHILD_ADVICE[code]}${detail === '' ? '' : ` (${detail})`}`);
    this.code = code;
  }
}

/** What the checks ask of the machine. */
export interface Ros2Machine {
  /** Path of rclnodejs's package.json; throws when there is none. */
  resolvePackage(): string;
  /** Loads a native addon into this process; throws with the linker's message. */
  loadAddon(file: string): void;
}

/**
 * Checks all that could make importing rclnodejs go wrong, because the import itself answers trouble with a rebuild
 * that deletes its own addon.
 *
 * @returns Folder of the package.
 * @throws Ros2Unusable
 */
export function checkRos2(start: Ros2ChildStart, machine: Ros2Machine): string {
  const folder = packageFolder(machine);
  const { sourcedDistro, expectedDistro } = start;
  if (!sourcedDistro) throw new Ros2Unusable('ros_not_sourced');
  if (expectedDistro !== undefined && sourcedDistro !== expectedDistro)
    throw new Ros2Unusable('ros_wrong_distro', `sourced ${sourcedDistro}, configured ${expectedDistro}`);
  checkAddon(folder, sourcedDistro, machine);
  for (const { type } of [...start.topics, ...(start.stop?.publishers ?? [])]) {
    const [packageName = '', , name = ''] = type.split('/');
    const file = join(folder, 'generated', packageName, `${packageName}__msg__${name}.js`);
    if (!existsSync(file)) throw new Ros2Unusable('ros_messages_missing', `no ${file}`);
  }
  return folder;
}

function packageFolder(machine: Ros2Machine): string {
  try {
    return dirname(machine.resolvePackage());
  } catch (error) {
    throw new Ros2Unusable('rclnodejs_not_installed', errorMessage(error).split('\n')[0]);
  }
}

/** Loads the addon that the import would load, from the places where it looks, in its order. */
function checkAddon(folder: string, distro: string, machine: Ros2Machine): void {
  const prebuilds = join(folder, 'prebuilds', `${process.platform}-${process.arch}`);
  const prebuilt = join(prebuilds, `${distro}-${osCodename()}-${process.arch}-node-rclnodejs.node`);
  const candidates = [prebuilt, join(folder, 'build', 'Release', 'rclnodejs.node')].filter((file) => existsSync(file));
  const problems: string[] = [];
  for (const file of candidates) {
    try {
      machine.loadAddon(file);
      return;
    } catch (error) {
      problems.push(errorMessage(error));
    }
  }
  if (candidates.length > 0) throw new Ros2Unusable('rclnodejs_addon_broken', problems.join('; '));
  const others = existsSync(prebuilds) ? readdirSync(prebuilds).filter((file) => file.includes('-node-')) : [];
  const built = others.map((file) => file.split('-').slice(0, 2).join(' on ')).join(', ');
  if (built !== '') throw new Ros2Unusable('ros_wrong_distro', `sourced ${distro}; prebuilt for ${built}`);
  throw new Ros2Unusable('rclnodejs_addon_broken', `no addon under ${folder}`);
}

function osCodename(): string {
  try {
    return /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]?.trim() ?? '';
  } catch {
    return '';
  }
}
