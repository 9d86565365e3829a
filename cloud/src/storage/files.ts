import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve, sep } from 'node:path';
import { Readable } from 'node:stream';
import { DomainError } from '@outrider/shared/errors';
import type { FileStore } from '../fleet/file-store.ts';

const PART = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

const isGone = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOENT';

/** A folder of this machine. An object store takes its place once there are several machines. */
export class FolderFiles implements FileStore {
  readonly #root: string;

  constructor(root: string) {
    this.#root = resolve(root);
  }

  async size(name: string): Promise<number | undefined> {
    try {
      return (await stat(this.#path(name))).size;
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  async read(name: string): Promise<Uint8Array | undefined> {
    try {
      return await readFile(this.#path(name));
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    const path = await this.#prepared(name);
    await writeFile(`${path}.new`, bytes, { mode: 0o600, flush: true });
    await rename(`${path}.new`, path);
  }

  async writeAt(name: string, position: number, bytes: Uint8Array): Promise<void> {
    const path = await this.#prepared(name);
    const isNew = (await this.size(name)) === undefined;
    const file = await open(path, isNew ? 'wx' : 'r+', 0o600);
    try {
      await file.write(bytes, 0, bytes.length, position);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  stream(name: string): ReadableStream<Uint8Array> {
    return Readable.toWeb(createReadStream(this.#path(name))) as ReadableStream<Uint8Array>;
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.#path(from), this.#path(to));
  }

  async remove(name: string): Promise<void> {
    await rm(this.#path(name), { force: true });
  }

  async list(folder: string): Promise<string[]> {
    try {
      return (await readdir(this.#path(folder))).filter((name) => PART.test(name) && !name.endsWith('.new')).sort();
    } catch (error) {
      if (isGone(error)) return [];
      throw error;
    }
  }

  async #prepared(name: string): Promise<string> {
    const path = this.#path(name);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    return path;
  }

  /** @throws DomainError `invalid` for a name that could lead anywhere else. */
  #path(name: string): string {
    const path = join(this.#root, name);
    if (!name.split('/').every((part) => PART.test(part)) || !path.startsWith(this.#root + sep))
      throw new DomainError('invalid', 'that is no name of a file');
    return path;
  }
}
