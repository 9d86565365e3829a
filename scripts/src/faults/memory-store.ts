import type { IngestStore, LaneOutcome, LaneWork, StrayBody } from '@outrider/cloud/telemetry/ingest-ports';
import type { LaneRecord } from '@outrider/cloud/telemetry/record';
import { advance, equalBytes, type LaneCursor } from '@outrider/cloud/telemetry/watermark';

/** A lane as the simulated cloud keeps it. */
interface StoredLane {
  upto: number;
  ahead: LaneCursor['ahead'];
  readonly records: Map<number, LaneRecord>;
  /** Positions of records that are stored under another epoch. */
  readonly elsewhere: Map<number, LaneRecord>;
}

const laneKey = (epoch: string, lane: number): string => `${epoch}/${lane}`;

/**
 * The storage port of the ingest in memory, around the real decision about positions. What it does beyond that
 * decision is what the SQL adapter does: the first content of a position stays, a longer gap replaces a shorter one, and
 * what is stored under an earlier epoch is not stored again.
 */
export class MemoryStore implements IngestStore {
  readonly lanes = new Map<string, StoredLane>();
  readonly strays: StrayBody[] = [];
  /** Contents that are stored, by the positions that they have and had first. */
  readonly #contents = new Set<string>();
  collisions = 0;
  /** Records that were known by the position that they had first. */
  recognized = 0;
  /** Positions that were given to storage a second time. */
  storedTwice = 0;

  async commit(work: readonly LaneWork[]): Promise<LaneOutcome[]> {
    return work.map((entry) => this.#commitLane(entry));
  }

  async quarantine(stray: StrayBody): Promise<void> {
    this.strays.push(stray);
  }

  async watermarks(_robotPk: number, epoch: string): Promise<{ lane: number; upto: number }[]> {
    return [...this.lanes].flatMap(([key, { upto }]) => {
      const [of, lane] = key.split('/');
      return of === epoch ? [{ lane: Number(lane), upto }] : [];
    });
  }

  async acceptForgotten(robotPk: number, epoch: string, lane: number, oldestSeq: number): Promise<void> {
    const stored = this.lane(epoch, lane);
    if (stored.upto >= oldestSeq - 1) return;
    const gap: LaneRecord = {
      kind: 'gap',
      seq: stored.upto + 1,
      seqTo: oldestSeq - 1,
      hash: new Uint8Array(0),
      bootId: '',
      reason: 'acknowledged before, unknown to this database',
      samples: 0,
      fromMs: 0,
      toMs: 0,
    };
    this.#commitLane({ robot: { robotPk, tenantId: '', robotId: '' }, epoch, lane, records: [gap] });
  }

  lane(epoch: string, lane: number): StoredLane {
    const key = laneKey(epoch, lane);
    let stored = this.lanes.get(key);
    if (!stored) {
      stored = { upto: 0, ahead: [], records: new Map(), elsewhere: new Map() };
      this.lanes.set(key, stored);
    }
    return stored;
  }

  /** The record that stands for a position: its own, or the gap that covers it. */
  find(epoch: string, lane: number, seq: number): LaneRecord | undefined {
    const { records } = this.lane(epoch, lane);
    const own = records.get(seq);
    if (own) return own;
    for (const record of records.values()) if (record.seq <= seq && record.seqTo >= seq) return record;
    return undefined;
  }

  #recognize(epoch: string, lane: number, record: LaneRecord): boolean {
    if (record.kind !== 'telemetry' && record.kind !== 'event') return false;
    const positions = [{ epoch, seq: record.seq }, ...(record.origin ? [record.origin] : [])];
    const keys = positions.map(
      (at) => `${laneKey(at.epoch, lane)}/${at.seq}/${Buffer.from(record.hash).toString('hex')}`,
    );
    const isKnown = keys.some((key) => this.#contents.has(key));
    for (const key of keys) this.#contents.add(key);
    if (isKnown) this.recognized += 1;
    return isKnown;
  }

  #commitLane({ robot, epoch, lane, records }: LaneWork): LaneOutcome {
    const stored = this.lane(epoch, lane);
    const verdict = advance({ upto: stored.upto, ahead: stored.ahead }, records);
    const clashes = verdict.passed.filter((record) => {
      const known = stored.records.get(record.seq) ?? stored.elsewhere.get(record.seq);
      return known && known.kind === record.kind && record.kind !== 'gap' && !equalBytes(known.hash, record.hash);
    });
    const fresh = verdict.fresh.filter((record) => !this.#recognize(epoch, lane, record));
    for (const record of verdict.fresh) if (!fresh.includes(record)) stored.elsewhere.set(record.seq, record);
    for (const record of fresh) {
      const known = stored.records.get(record.seq);
      if (!known) stored.records.set(record.seq, record);
      else if (known.kind === 'gap' && record.kind === 'gap') {
        if (record.seqTo > known.seqTo) stored.records.set(record.seq, record);
      } else if (record.kind === 'gap') {
        // The record arrived beyond a hole, and its robot, which never heard so, had to drop it with others: both stay, as
        // in SQL, and there is more than the gap says. No position is negative.
        stored.records.set(-record.seq, record);
      } else this.storedTwice += 1;
    }
    stored.upto = verdict.upto;
    stored.ahead = [
      ...stored.ahead.filter(({ to }) => to > verdict.upto),
      ...verdict.ahead.map(({ seq, seqTo, hash }) => ({ from: seq, to: seqTo, hash })),
    ].filter(({ to }) => to > verdict.upto);
    const colliding = [...verdict.collisions, ...clashes];
    this.collisions += colliding.length;
    const first = colliding.reduce((least, { seq }) => Math.min(least, seq), Number.POSITIVE_INFINITY);
    return {
      robot,
      epoch,
      lane,
      upto: Math.min(verdict.upto, first - 1),
      collision: colliding.length > 0,
      stored: fresh,
      duplicates:
        verdict.duplicates.length + verdict.fresh.length - fresh.length + verdict.passed.length - clashes.length,
      collisions: colliding.length,
      deferred: verdict.deferred.length,
    };
  }
}
