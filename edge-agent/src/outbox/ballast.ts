import { closeSync, existsSync, openSync, rmSync, statfsSync, statSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';

const BALLAST_FILE = 'outbox.ballast';
/** Twice what the journal takes before it is written back (1000 pages). */
const BALLAST_BYTES_MAX = 8 * 1024 * 1024;
/** Of the outbox's bound, and of the whole disk: small ones need little and have little. */
const OUTBOX_SHARE = 1 / 8;
const DISK_SHARE = 1 / 16;
const CHUNK_BYTES = 1024 * 1024;
/** Left to others beside the ballast, so that taking it back does not fill the disk again. */
const MARGIN_BYTES = 256 * 1024;

/**
 * A file of nothing that is given up when somebody else has filled the disk: the space lets events be written and
 * acknowledged rows be deleted, which both need room in the journal.
 */
export class Ballast {
  readonly #path: string;
  readonly #bytes: number;
  #isTaken = false;

  constructor(stateDir: string, sizeMaxBytes: number) {
    this.#path = join(stateDir, BALLAST_FILE);
    const { blocks, bsize } = statfsSync(stateDir);
    const shares = [sizeMaxBytes * OUTBOX_SHARE, blocks * bsize * DISK_SHARE];
    this.#bytes = Math.floor(Math.min(BALLAST_BYTES_MAX, ...shares));
  }

  /** Takes the space unless it is taken. @returns Whether it is taken now. */
  take(): boolean {
    if (this.#isTaken) return true;
    let file: number | undefined;
    try {
      if (existsSync(this.#path) && statSync(this.#path).size === this.#bytes) {
        this.#isTaken = true;
        return true;
      }
      rmSync(this.#path, { force: true });
      const { bavail, bsize } = statfsSync(dirname(this.#path));
      if (bavail * bsize < this.#bytes + MARGIN_BYTES) return false;
      file = openSync(this.#path, 'w', 0o600);
      // Written, not only announced: a sparse file holds no space.
      const zeros = Buffer.alloc(Math.min(CHUNK_BYTES, this.#bytes));
      for (let left = this.#bytes; left > 0; left -= zeros.length)
        writeSync(file, zeros, 0, Math.min(left, zeros.length));
      this.#isTaken = true;
      return true;
    } catch {
      rmSync(this.#path, { force: true });
      return false;
    } finally {
      if (file !== undefined) closeSync(file);
    }
  }

  /** Gives the space up when the disk is what is full, not the outbox. @returns Whether there is more room now. */
  release(): boolean {
    const { bavail, bsize } = statfsSync(dirname(this.#path));
    if (bavail * bsize > MARGIN_BYTES || !existsSync(this.#path)) return false;
    rmSync(this.#path, { force: true });
    this.#isTaken = false;
    return true;
  }
}
