import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { decodeModel, encodeModel } from '@outrider/shared/health/model-codec';
import type { RobotModel } from '@outrider/shared/health/robot-analyser';
import type { Logger } from '@outrider/shared/log';

const FILE = 'health.model';

/** What the robot has learnt of itself, on disk. Written whole or not at all; a damaged file is put aside. */
export class ModelFile {
  readonly #dir: string;
  readonly #path: string;
  readonly #log: Logger;

  constructor(stateDir: string, log: Logger) {
    this.#dir = stateDir;
    this.#path = join(stateDir, FILE);
    this.#log = log;
  }

  /** Empty when there is none. A file that cannot be used is renamed to `health.model.bad`: learning begins anew. */
  async load(): Promise<RobotModel> {
    try {
      return decodeModel(await readFile(this.#path));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return new Map();
      this.#log.warn({ file: this.#path, reason: errorMessage(error) }, 'health.model_unusable');
      await rename(this.#path, `${this.#path}.bad`).catch(() => undefined);
      return new Map();
    }
  }

  /** Resolves when it is on disk. Calls must not overlap. */
  async save(model: RobotModel): Promise<void> {
    const draft = `${this.#path}.new`;
    try {
      await withFile(draft, 'w', async (file) => {
        await file.writeFile(encodeModel(model));
        await file.sync();
      });
      await rename(draft, this.#path);
      await withFile(this.#dir, 'r', (folder) => folder.sync());
    } catch (error) {
      await rm(draft, { force: true }).catch(() => undefined);
      throw error;
    }
  }
}

async function withFile(path: string, flags: string, use: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, flags, 0o600);
  try {
    await use(file);
  } finally {
    await file.close();
  }
}
