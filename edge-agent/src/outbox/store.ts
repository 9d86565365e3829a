import { mkdirSync } from 'node:fs';
import { errorMessage } from '@outrider/shared/errors';
import { newEpoch } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { Ballast } from './ballast.ts';
import {
  type Db,
  isCorruption,
  isUnusable,
  isUnwritable,
  Meta,
  openDatabase,
  RecentEvents,
  StateLock,
  sealIdentity,
  setAside,
} from './database.ts';
import { LaneTable } from './lane-table.ts';
import { LANES, type LaneName } from './records.ts';
import { salvage } from './recovery.ts';

/** Under this name a telemetry position is noted beyond which nothing was sent, whatever happened. */
const RESERVED = 'may_be_sent.telemetry';
/** Positions reserved at a time: one commit more for so many records sent. */
const POSITIONS_RESERVED = 1000;

/** Where a lane stands between the disk and the cloud. 0: nothing yet. */
export interface Cursor {
  /** The cloud has everything up to here; the rows may still wait to be deleted. */
  acked: number;
  /** On their way now: must not be evicted or changed. */
  inFlight: number;
  /** Were on their way at some time, so that the cloud may hold them. */
  sent: number;
  /** Up to here an earlier run may have sent records, killed before it could note which. */
  sentBefore: number;
  /** Noted on disk: up to here this run may have sent records, whatever becomes of it. */
  reserved: number;
}

interface Opened {
  readonly db: Db;
  readonly meta: Meta;
  readonly lanes: Readonly<Record<LaneName, LaneTable>>;
  readonly recent: RecentEvents;
  readonly epoch: string;
  /** Runs a change in one transaction of `db`; made once, because making it costs as much as a small change. */
  readonly transact: (change: () => unknown) => unknown;
}

/** The files of an outbox: opened, locked, checked, and replaced by new ones when they are damaged. */
export class Store {
  readonly #stateDir: string;
  readonly #sizeMaxBytes: number;
  readonly #bootId: string;
  readonly #log: Logger;
  readonly #lock: StateLock;
  readonly #ballast: Ballast;
  readonly cursors: Readonly<Record<LaneName, Cursor>> = { event: cursor(), state: cursor(), telemetry: cursor() };
  #opened: Opened;
  #isClosed = false;

  /** @throws DomainError `already_exists` when another agent uses the directory. */
  constructor(stateDir: string, sizeMaxBytes: number, bootId: string, log: Logger) {
    this.#stateDir = stateDir;
    this.#sizeMaxBytes = sizeMaxBytes;
    this.#bootId = bootId;
    this.#log = log;
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    this.#lock = new StateLock(stateDir);
    this.#ballast = new Ballast(stateDir, sizeMaxBytes);
    try {
      this.#opened = this.#openWithRoom();
      this.#ballast.take();
    } catch (error) {
      this.#lock.release();
      throw error;
    }
  }

  get epoch(): string {
    return this.#opened.epoch;
  }

  get meta(): Meta {
    return this.#opened.meta;
  }

  get lanes(): Readonly<Record<LaneName, LaneTable>> {
    return this.#opened.lanes;
  }

  get recent(): RecentEvents {
    return this.#opened.recent;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Used share of the size bound, 0 to 1. */
  fill(): number {
    const pragma = (name: string): number => Number(this.#opened.db.pragma(name, { simple: true }));
    return (pragma('page_count') - pragma('freelist_count')) / pragma('max_page_count');
  }

  /** Whether the disk has room for more than what must be kept: takes the ballast back when it was given up. */
  hasRoom(): boolean {
    return this.#ballast.take();
  }

  /** Gives the ballast up, so that a disk that others have filled takes events and deletions. @returns False: none. */
  releaseBallast(): boolean {
    const released = this.#ballast.release();
    if (released) this.#log.error({ fill: this.fill() }, 'outbox.ballast_released');
    return released;
  }

  /** One durable transaction, or `undefined` when nothing can be written now. Damaged files are replaced first. */
  write<T>(change: () => T): { value: T } | undefined {
    try {
      return { value: this.#transact(change) };
    } catch (error) {
      if (isUnwritable(error)) return undefined;
      throw error;
    }
  }

  /** `undefined` when the files turned out to be damaged; they have been replaced then. */
  read<T>(look: () => T): T | undefined {
    try {
      return look();
    } catch (error) {
      if (!isCorruption(error)) throw error;
      this.#replace(error);
      return undefined;
    }
  }

  /**
   * Notes on disk that telemetry up to a position may be on its way, and some beyond it so that this is rarely written:
   * after a crash nobody else knows, and what was sent must not be thinned. While nothing can be written at all it is
   * sent all the same; should the next run thin it, the cloud sees that the contents differ and asks for a new epoch.
   */
  reserveSending(upto: number): void {
    const cursor = this.cursors.telemetry;
    if (upto <= cursor.reserved) return;
    const reserved = upto + POSITIONS_RESERVED;
    if (this.write(() => this.meta.set(RESERVED, reserved))) cursor.reserved = reserved;
  }

  /** Makes the oldest record of each lane position 1 of a new epoch. @returns False when it cannot be written now. */
  startEpoch(reason: string): boolean {
    const { epoch: oldEpoch, db } = this.#opened;
    const epoch = newEpoch();
    const written = this.write(() => {
      // Asked here: when damaged files are replaced on the way, another epoch ends.
      const ended = this.meta.get('epoch') ?? '';
      this.meta.set('epoch', epoch);
      for (const lane of LANES) {
        this.lanes[lane].renumber(ended);
        this.meta.set(`sent.${lane}`, 0);
      }
      this.meta.set(RESERVED, 0);
      sealIdentity(this.meta);
    });
    if (!written) return false;
    // When damaged files were replaced meanwhile, that was a new epoch already.
    if (db === this.#opened.db) this.#opened = { ...this.#opened, epoch };
    for (const lane of LANES) Object.assign(this.cursors[lane], cursor());
    this.#log.warn({ reason, old_epoch: oldEpoch, epoch: this.epoch }, 'outbox.epoch_started');
    return true;
  }

  /** Marks the stop as a clean one and frees the directory. */
  close(): void {
    if (this.#isClosed) return;
    this.write(() => {
      const { sent, sentBefore } = this.cursors.telemetry;
      this.meta.set(RESERVED, Math.max(sent, sentBefore));
      this.meta.set('clean', '1');
    });
    this.#isClosed = true;
    this.#opened.db.close();
    this.#lock.release();
  }

  #transact<T>(change: () => T): T {
    try {
      return this.#opened.transact(change) as T;
    } catch (error) {
      if (isCorruption(error)) {
        this.#replace(error);
        return this.#opened.transact(change) as T;
      }
      for (const lane of LANES) this.lanes[lane].reload();
      this.recent.reload();
      throw error;
    }
  }

  /** On a disk that is full before the start the ballast is what the journal is made of. */
  #openWithRoom(): Opened {
    try {
      return this.#open();
    } catch (error) {
      if (!isUnwritable(error) || !this.#ballast.release()) throw error;
      this.#log.error({ reason: errorMessage(error) }, 'outbox.ballast_released');
      return this.#open();
    }
  }

  #open(damaged?: string): Opened {
    try {
      const { db, isNew, stoppedUncleanly } = openDatabase(this.#stateDir, this.#sizeMaxBytes);
      const opened = this.#attachOrClose(db);
      if (damaged) salvage(damaged, db, opened, this.#log);
      this.#log.info({ epoch: opened.epoch, new: isNew, stopped_uncleanly: stoppedUncleanly }, 'outbox.opened');
      return opened;
    } catch (error) {
      if (!isUnusable(error) || damaged) throw error;
      return this.#open(this.#setAside(error));
    }
  }

  /** An open file keeps its lock, also under another name: nothing could be salvaged from it. */
  #attachOrClose(db: Db): Opened {
    try {
      return this.#attach(db);
    } catch (error) {
      db.close();
      throw error;
    }
  }

  #attach(db: Db): Opened {
    const meta = new Meta(db);
    const lane = (name: LaneName): LaneTable => new LaneTable(db, meta, name, this.#bootId);
    const lanes = { event: lane('event'), state: lane('state'), telemetry: lane('telemetry') };
    for (const name of LANES) Object.assign(this.cursors[name], cursor(meta.getNumber(`sent.${name}`)));
    // A file from before this was noted: all that it holds may have been sent.
    if (meta.get(RESERVED) === undefined) meta.set(RESERVED, lanes.telemetry.maxSeq);
    const reserved = meta.getNumber(RESERVED);
    // What is not there yet was not sent either.
    Object.assign(this.cursors.telemetry, { reserved, sentBefore: Math.min(reserved, lanes.telemetry.maxSeq) });
    return {
      db,
      meta,
      lanes,
      recent: new RecentEvents(db),
      epoch: meta.get('epoch') ?? '',
      transact: db.transaction((change: () => unknown) => change()).immediate,
    };
  }

  #replace(error: unknown): void {
    this.#opened.db.close();
    this.#opened = this.#open(this.#setAside(error));
  }

  #setAside(error: unknown): string {
    const path = setAside(this.#stateDir);
    this.#log.error({ reason: errorMessage(error), set_aside: path }, 'outbox.damaged');
    return path;
  }
}

function cursor(sent = 0): Cursor {
  return { acked: 0, inFlight: 0, sent, sentBefore: 0, reserved: 0 };
}
