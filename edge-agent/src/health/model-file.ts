import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { decodeModel, encodeModel } from '@outrider/shared/health/model-codec';
import type { RobotModel } from '@outrider/shared/health/robot-analyser';
import type { Logger } from '@outrider/shared/log';

const FILE = 'health.model';
/** What somebody taught beside the agent, which takes it at its next start. */
const TRAINED_FILE = 'health.trained';

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

  /**
   * Empty when there is none. A file that cannot be used is renamed to `….bad`: learning begins anew. Streams that were
   * trained meanwhile take the place of what was learnt of them.
   */
  async load(): Promise<RobotModel> {
    const learnt = await this.#read(this.#path);
    const trainedPath = join(this.#dir, TRAINED_FILE);
    const trained = await this.#read(trainedPath);
    if (trained.size === 0) return learnt;
    const both = new Map([...learnt, ...trained]);
    try {
      await this.save(both);
      await rm(trainedPath);
      this.#log.info({ streams: trained.size }, 'health.trained_taken');
    } catch (error) {
      // It is used all the same, and taken with a later start.
      this.#log.warn({ file: trainedPath, reason: errorMessage(error) }, 'health.trained_kept');
    }
    return both;
  }

  /** Resolves when it is on disk. Calls must not overlap. */
  save(model: RobotModel): Promise<void> {
    return saveModel(this.#dir, this.#path, model);
  }

  async #read(path: string): Promise<RobotModel> {
    try {
      return decodeModel(await readFile(path));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return new Map();
      this.#log.warn({ file: path, reason: errorMessage(error) }, 'health.model_unusable');
      await rename(path, `${path}.bad`).catch(() => undefined);
      return new Map();
    }
  }
}

/** Writes a model whole or not at all; resolves when it is on disk. */
export async function saveModel(dir: string, path: string, model: RobotModel): Promise<void> {
  const draft = `${path}.new`;
  try {
    await withFile(draft, 'w', async (file) => {
      await file.writeFile(encodeModel(model));
      await file.sync();
    });
    await rename(draft, path);
    await withFile(dir, 'r', (folder) => folder.sync());
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined);
    throw error;
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
