import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DomainError } from '@outrider/shared/errors';

/** What a box says of itself. Times are ISO 8601, UTC. */
export interface BoxFacts {
  readonly id: string;
  readonly robot: string;
  readonly tripped_at: string;
  readonly mode: string;
  readonly latch_id: number;
  readonly transition_id: number;
  readonly trace_id: string;
  readonly causes: readonly string[];
  /** Further trips while the box was being recorded. */
  readonly also: readonly string[];
  readonly from: string;
  readonly to: string;
  readonly samples: number;
  /** Why it holds less than it should; `null` when it does not. */
  readonly cut_short: string | null;
  readonly exported_at: string | null;
}

/** A box with what its file says. */
export interface BoxView extends BoxFacts {
  readonly file: string;
  readonly bytes: number;
}

export interface ShelfLimits {
  readonly filesMax: number;
  readonly bytesMax: number;
}

const BOX_FILE = /^[A-Za-z0-9.-]+\.mcap$/;

/** The folder with the finished black boxes: a recording and its facts each. Telemetry never makes room in here. */
export class BoxShelf {
  readonly directory: string;

  constructor(stateDir: string) {
    this.directory = join(stateDir, 'blackbox');
  }

  /** Makes the folder. */
  prepare(): void {
    mkdirSync(this.directory, { recursive: true, mode: 0o700 });
  }

  pathOf(id: string): string {
    return join(this.directory, `${id}.mcap`);
  }

  has(id: string): boolean {
    return existsSync(this.pathOf(id));
  }

  /** All boxes, oldest first. A box without readable facts is listed too: its recording is what counts. */
  list(): BoxView[] {
    if (!existsSync(this.directory)) return [];
    return readdirSync(this.directory)
      .filter((name) => BOX_FILE.test(name))
      .sort()
      .map((name) => this.#view(name.slice(0, -'.mcap'.length)));
  }

  /** @throws DomainError `not_found` */
  get(id: string): BoxView {
    const found = this.list().find((box) => box.id === id);
    if (found) return found;
    const known = this.list().map((box) => box.id);
    throw new DomainError(
      'not_found',
      `no black box ${id}; there ${known.length > 0 ? `are ${known.join(', ')}` : 'is none'}`,
    );
  }

  /** Recordings that were not finished: the agent was killed, or the power was cut. */
  unfinished(): string[] {
    if (!existsSync(this.directory)) return [];
    return readdirSync(this.directory).filter((name) => name.endsWith('.mcap.part'));
  }

  saveFacts(facts: BoxFacts): void {
    const path = this.#factsPath(facts.id);
    writeFileSync(`${path}.new`, `${JSON.stringify(facts, null, 2)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  markExported(id: string, at: string): void {
    const { file: _, bytes: __, ...facts } = this.get(id);
    this.saveFacts({ ...facts, exported_at: at });
  }

  /**
   * Removes boxes beyond the limits: those that were exported first, then the oldest. The newest one stays, whatever
   * its size.
   *
   * @returns Ids of what went.
   */
  makeRoom({ filesMax, bytesMax }: ShelfLimits): string[] {
    const boxes = this.list();
    const newest = boxes.at(-1)?.id;
    const order = [
      ...boxes.filter((box) => box.exported_at !== null),
      ...boxes.filter((box) => box.exported_at === null),
    ];
    let files = boxes.length;
    let bytes = boxes.reduce((sum, box) => sum + box.bytes, 0);
    const removed: string[] = [];
    for (const box of order) {
      if (files <= filesMax && bytes <= bytesMax) break;
      if (box.id === newest) continue;
      rmSync(box.file, { force: true });
      rmSync(this.#factsPath(box.id), { force: true });
      files -= 1;
      bytes -= box.bytes;
      removed.push(box.id);
    }
    return removed;
  }

  #view(id: string): BoxView {
    const file = this.pathOf(id);
    const { size: bytes, mtime } = statSync(file);
    const at = mtime.toISOString();
    try {
      const facts = JSON.parse(readFileSync(this.#factsPath(id), 'utf8')) as BoxFacts;
      return { ...facts, id, file, bytes };
    } catch {
      const unknown = { robot: '', mode: '', latch_id: 0, transition_id: 0, trace_id: '', causes: [], also: [] };
      const cutShort = 'its facts are lost; the recording itself holds them as metadata';
      return {
        ...unknown,
        id,
        tripped_at: at,
        from: '',
        to: '',
        samples: 0,
        cut_short: cutShort,
        exported_at: null,
        file,
        bytes,
      };
    }
  }

  #factsPath(id: string): string {
    return join(this.directory, `${id}.json`);
  }
}
