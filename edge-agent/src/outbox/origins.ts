import { crc32 } from 'node:zlib';
import type { Meta } from './database.ts';
import type { LaneName, Origin } from './records.ts';

/** Most stretches of rows that are noted. Past it the oldest are forgotten, and may then be stored twice. */
const SEGMENTS_MAX = 1000;

/** Rows `from`..`to`, whose positions were row minus `offset` in an epoch that has ended. */
type Segment = [from: number, to: number, epoch: string, offset: number];

/**
 * Where the rows of a lane were before the present epoch. A stretch of rows costs a few bytes among the small facts, so
 * that a new epoch rewrites no row. Methods that write expect the caller's transaction; after a rollback call `reload`.
 */
export class Origins {
  readonly #meta: Meta;
  readonly #key: string;
  #segments: Segment[] = [];

  constructor(meta: Meta, lane: LaneName) {
    this.#meta = meta;
    this.#key = `origins.${lane}`;
    this.reload();
  }

  /** Reads the stretches from the file again. Damaged ones count as none: a wrong origin would be a wrong claim. */
  reload(): void {
    const text = String(this.#meta.get(this.#key) ?? '');
    const json = text.slice(text.indexOf(' ') + 1);
    this.#segments = text !== '' && text === sealed(json) ? (JSON.parse(json) as Segment[]) : [];
  }

  /** The first position of a row, when that was in an earlier epoch. */
  of(row: number): Origin | undefined {
    if (row > this.#last) return undefined;
    const segment = this.#segments.find(([from, to]) => from <= row && row <= to);
    return segment && { epoch: segment[2], seq: row - segment[3] };
  }

  /** Notes where a row was that has just been appended. Call `save` after the last. */
  add(row: number, { epoch, seq }: Origin): void {
    const last = this.#segments.at(-1);
    if (last && last[2] === epoch && last[3] === row - seq) last[1] = row;
    else this.#segments.push([row, row, epoch, row - seq]);
  }

  /** Notes that an epoch ends. Rows that come from an earlier one keep their first origin. */
  endEpoch(epoch: string, offset: number, oldestRow: number, highestRow: number): void {
    const first = Math.max(oldestRow, this.#last + 1);
    this.#segments = this.#segments.filter(([, to]) => to >= oldestRow);
    if (epoch !== '' && first <= highestRow) this.#segments.push([first, highestRow, epoch, offset]);
    this.save();
  }

  save(): void {
    this.#segments = this.#segments.slice(-SEGMENTS_MAX);
    this.#meta.set(this.#key, sealed(JSON.stringify(this.#segments)));
  }

  get #last(): number {
    return this.#segments.at(-1)?.[1] ?? 0;
  }
}

const sealed = (json: string): string => `${crc32(json).toString(16)} ${json}`;
