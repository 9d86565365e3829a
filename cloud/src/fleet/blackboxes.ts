import { createHash } from 'node:crypto';
import { DomainError } from '@outrider/shared/errors';
import type { FileStore } from './file-store.ts';

/** Largest recording that is taken. */
export const BOX_BYTES_MAX = 256 * 1024 * 1024;
/** Recordings that are kept of one robot; the oldest complete ones go first. Their names begin with their time. */
const BOXES_PER_ROBOT_MAX = 50;

/** A part of a recording, as the robot sends it. */
export interface BoxChunk {
  /** Of the whole recording. */
  readonly size: number;
  /** SHA-256 of the whole recording, in hexadecimal. */
  readonly sha256: string;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** What is known of a recording here. */
export interface BoxEntry {
  readonly boxId: string;
  /** 0: only asked for so far. */
  readonly size: number;
  readonly sha256: string;
  readonly received: number;
  readonly isComplete: boolean;
  readonly isRequested: boolean;
}

interface Facts {
  readonly size: number;
  readonly sha256: string;
}

/** The recordings around stops that robots hand over: in parts, so that a link that breaks costs one part. */
export class BlackBoxes {
  readonly #files: FileStore;
  /** One part of a robot at a time. */
  readonly #queues = new Map<number, Promise<unknown>>();

  constructor(files: FileStore) {
    this.#files = files;
  }

  /**
   * Takes a part. One that does not begin where the last one ended is not written; the answer says where to go on.
   *
   * @throws DomainError `invalid` when the whole does not have the hash that it was announced with: it starts again.
   */
  take(robotPk: number, boxId: string, chunk: BoxChunk): Promise<{ received: number; isComplete: boolean }> {
    return this.#inTurn(robotPk, async () => {
      const name = nameOf(robotPk, boxId);
      if ((await this.#files.size(`${name}.mcap`)) !== undefined) {
        await this.#files.remove(`${name}.wanted`);
        return { received: chunk.size, isComplete: true };
      }
      const { size, sha256, offset, bytes } = chunk;
      const facts = await this.#facts(name);
      if (facts?.sha256 !== sha256 || facts.size !== size) {
        await this.#files.remove(`${name}.part`);
        await this.#files.write(`${name}.facts`, Buffer.from(JSON.stringify({ size, sha256 })));
      }
      const held = (await this.#files.size(`${name}.part`)) ?? 0;
      if (offset !== held || held + bytes.length > size) return { received: held, isComplete: false };
      if (bytes.length > 0) await this.#files.writeAt(`${name}.part`, offset, bytes);
      const received = held + bytes.length;
      if (received < size) return { received, isComplete: false };
      await this.#finish(robotPk, name, sha256);
      return { received, isComplete: true };
    });
  }

  async list(robotPk: number): Promise<BoxEntry[]> {
    const names = await this.#files.list(folderOf(robotPk));
    const ids = new Set(names.map((name) => name.replace(/\.(mcap|part|facts|wanted)$/, '')));
    return await Promise.all(
      [...ids].sort().map(async (boxId): Promise<BoxEntry> => {
        const name = nameOf(robotPk, boxId);
        const whole = await this.#files.size(`${name}.mcap`);
        const received = whole ?? (await this.#files.size(`${name}.part`)) ?? 0;
        const { size = whole ?? 0, sha256 = '' } = (await this.#facts(name)) ?? {};
        const isRequested = names.includes(`${boxId}.wanted`);
        return { boxId, size, sha256, received, isComplete: whole !== undefined, isRequested };
      }),
    );
  }

  /** Ids that somebody wants and that are not here. */
  async wanted(robotPk: number): Promise<string[]> {
    return (await this.list(robotPk)).filter((box) => box.isRequested && !box.isComplete).map(({ boxId }) => boxId);
  }

  /** Notes that the robot is to hand over a recording. @returns Whether it is here already. */
  request(robotPk: number, boxId: string): Promise<boolean> {
    return this.#inTurn(robotPk, async () => {
      const name = nameOf(robotPk, boxId);
      if ((await this.#files.size(`${name}.mcap`)) !== undefined) return true;
      if ((await this.#files.list(folderOf(robotPk))).length >= 4 * BOXES_PER_ROBOT_MAX)
        throw new DomainError('too_many', 'too many recordings of this robot are asked for already');
      await this.#files.write(`${name}.wanted`, new Uint8Array());
      return false;
    });
  }

  /** @throws DomainError `not_found` */
  async open(robotPk: number, boxId: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> }> {
    const name = `${nameOf(robotPk, boxId)}.mcap`;
    const size = await this.#files.size(name);
    if (size === undefined) throw new DomainError('not_found', `there is no black box '${boxId}' of this robot here`);
    return { size, stream: this.#files.stream(name) };
  }

  async #finish(robotPk: number, name: string, sha256: string): Promise<void> {
    const hash = createHash('sha256');
    for await (const piece of this.#files.stream(`${name}.part`) as unknown as AsyncIterable<Uint8Array>)
      hash.update(piece);
    if (hash.digest('hex') !== sha256) {
      await this.#files.remove(`${name}.part`);
      throw new DomainError(
        'invalid',
        'the recording does not have the hash that it was announced with; send it again',
        {
          problems: [{ field: 'sha256', reason: 'is not that of the parts' }],
        },
      );
    }
    await this.#files.rename(`${name}.part`, `${name}.mcap`);
    await this.#files.remove(`${name}.wanted`);
    const whole = (await this.#files.list(folderOf(robotPk))).filter((file) => file.endsWith('.mcap'));
    for (const file of whole.slice(0, -BOXES_PER_ROBOT_MAX)) {
      await this.#files.remove(`${folderOf(robotPk)}/${file}`);
      await this.#files.remove(`${folderOf(robotPk)}/${file.replace(/\.mcap$/, '.facts')}`);
    }
  }

  async #facts(name: string): Promise<Facts | undefined> {
    const bytes = await this.#files.read(`${name}.facts`);
    return bytes && (JSON.parse(Buffer.from(bytes).toString()) as Facts);
  }

  async #inTurn<T>(robotPk: number, work: () => Promise<T>): Promise<T> {
    const turn = (this.#queues.get(robotPk) ?? Promise.resolve()).then(work);
    const settled = turn.catch(() => undefined);
    this.#queues.set(robotPk, settled);
    try {
      return await turn;
    } finally {
      if (this.#queues.get(robotPk) === settled) this.#queues.delete(robotPk);
    }
  }
}

const folderOf = (robotPk: number): string => `blackbox/${robotPk}`;
const nameOf = (robotPk: number, boxId: string): string => `${folderOf(robotPk)}/${boxId}`;
