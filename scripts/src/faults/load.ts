import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { newDiskFolder, removeFolder } from './sim-edge.ts';

const CHILD = fileURLToPath(new URL('./load-child.js', import.meta.url));

/** Processes that keep the machine busy: one spinning per core, one writing SQLite, one sending MQTT. */
export class Load {
  readonly #children: ChildProcess[] = [];
  /** Of the one that writes, which has no time to tidy up. */
  readonly #dir = newDiskFolder('load');

  /** For the page. */
  static readonly words =
    `Load: ${cpus().length} spinning processes, one that commits 100 samples at a time to SQLite and one that sends 64 kB messages over MQTT, all at nice 10, beside whatever else the machine did.`;

  static start(secondsMax: number): Load {
    const load = new Load();
    const kinds = [...cpus().map(() => 'cpu'), 'sqlite', 'mqtt'];
    for (const kind of kinds) {
      // Each ends by itself, also when this process is killed.
      const child = spawn(process.execPath, [CHILD, kind, String(secondsMax), load.#dir], {
        stdio: ['pipe', 'ignore', 'inherit'],
      });
      load.#children.push(child);
    }
    return load;
  }

  async stop(): Promise<void> {
    for (const child of this.#children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    }
    removeFolder(this.#dir);
  }
}
