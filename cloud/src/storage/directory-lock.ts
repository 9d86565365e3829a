import { createHash } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
import { createServer } from 'node:net';
import { DomainError } from '@outrider/shared/errors';

/** Holds a folder for this process. */
export interface DirectoryLock {
  release(): Promise<void>;
}

/**
 * Takes a folder for this process alone. PGlite has no lock of its own, and two processes on one folder destroy it.
 *
 * The lock is a name in Linux's abstract socket space: the kernel gives it back when the holder dies, however it
 * dies, so there is no stale lock to judge. It is not seen across network namespaces: two containers must not
 * share the folder.
 *
 * @throws DomainError `unavailable` when another process, or another part of this one, holds it.
 */
export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const real = await realpath(directory);
  const name = createHash('sha256').update(real).digest('hex').slice(0, 32);
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const inUse = cause.code === 'EADDRINUSE';
      const message = inUse
        ? `${real} is in use by another outrider-cloud; stop it, or give this one another data folder`
        : `${real} could not be locked: ${cause.message}`;
      reject(new DomainError('unavailable', message, { cause }));
    });
    server.listen(`\0outrider-cloud-${name}`, resolve);
  });
  server.unref();
  return { release: () => new Promise((resolve) => server.close(() => resolve())) };
}
