import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { Ros2Unusable } from './ros2-preflight.ts';

/** A setup.bash runs hundreds of small scripts; on a slow board that takes seconds. */
const SOURCE_TIMEOUT_MS = 30_000;
const ENVIRONMENT_BYTES_MAX = 4 * 1024 * 1024;

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The environment that a shell has after sourcing a ROS 2 setup file. It has to be there when a process starts: the
 * linker reads LD_LIBRARY_PATH once.
 *
 * @param setup Path of a setup.bash. Absent: `base` is sourced already.
 * @throws Ros2Unusable
 */
export async function sourcedEnvironment(
  setup: string | undefined,
  base: Environment,
  signal: AbortSignal,
): Promise<Environment> {
  if (setup === undefined) return base;
  if (!existsSync(setup)) throw new Ros2Unusable('ros_not_sourced', `${setup} does not exist`);
  const output = await new Promise<string>((resolve, reject) => {
    execFile(
      'bash',
      // Setup files may write to standard output; only what follows the mark is the environment.
      ['-c', '. "$ROS_SETUP" >/dev/null && printf "\\0OUTRIDER\\0" && env -0'],
      { env: { ...base, ROS_SETUP: setup }, timeout: SOURCE_TIMEOUT_MS, maxBuffer: ENVIRONMENT_BYTES_MAX, signal },
      (error, stdout, stderr) => {
        if (!error) resolve(stdout);
        else
          reject(new Ros2Unusable('ros_not_sourced', `${setup} failed: ${stderr.trim().slice(-500) || error.message}`));
      },
    );
  });
  const entries = (output.split('\0OUTRIDER\0')[1] ?? '').split('\0').filter((entry) => entry.includes('='));
  return Object.fromEntries(
    entries.map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]),
  );
}
