import type { ChildProcess } from 'node:child_process';
import { cpus } from 'node:os';
import { startLoad } from '../bench/load.ts';
import { end } from '../bench/robot.ts';
import { newDiskFolder, removeFolder } from './sim-edge.ts';

/**
 * Bytes of a pty pass through a kernel worker of ordinary priority. The load takes every cycle that is left, and leaves
 * that one first; otherwise it is the kernel's queue that is measured.
 */
const NICE = 10;

/** Processes that keep the machine busy: one spinning per core, one writing SQLite, one sending MQTT. */
export class Load {
  /** For the page. */
  static readonly words =
    `Load: ${cpus().length} spinning processes, one that commits to SQLite and one that publishes through an MQTT broker, ` +
    `all without a pause and at nice ${NICE}, beside whatever else the machine did.`;
  readonly #children: ChildProcess[] = [];
  /** Of the one that writes, which has no time to tidy up. */
  readonly #dir = newDiskFolder('load');

  static start(): Load {
    const load = new Load();
    for (const kind of [...cpus().map(() => 'cpu' as const), 'disk', 'mqtt'] as const)
      load.#children.push(startLoad(kind, load.#dir, NICE));
    return load;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#children.splice(0).map((child) => end(child, 'SIGKILL')));
    removeFolder(this.#dir);
  }
}
