import { join } from 'node:path';
import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { decodeBlock, sampleAt } from '@outrider/shared/protocol/block';
import type { Sample, StreamLayout } from '@outrider/shared/telemetry';
import { type Clock, type EpochMs, type MonotonicMs, systemClock } from '@outrider/shared/time';
import Database from 'better-sqlite3';
import { Outbox } from '../src/outbox/outbox.ts';
import type { LaneName, OutboxEvent, StoredRecord } from '../src/outbox/records.ts';
import { readGap } from '../src/outbox/records.ts';
import type { OutboxOptions } from '../src/outbox/types.ts';

const { BodyKind } = outrider.v1;
const BASE_NS = 1_790_000_000_000_000_000n;
export const silentLog = createLogger('test', 'silent');

/** A clock that only moves when told. */
export class StepClock implements Clock {
  nowMs = 1000;
  epochMs = (): EpochMs => (1_790_000_000_000 + this.nowMs) as EpochMs;
  monotonicMs = (): MonotonicMs => this.nowMs as MonotonicMs;
}

export function openOutbox(stateDir: string, options: Partial<OutboxOptions> = {}): Outbox {
  return new Outbox({
    stateDir,
    sizeMaxBytes: 64 * 1024 * 1024,
    commitIntervalMs: 10,
    flushIntervalMs: 50,
    flushIntervalOfflineMs: 100,
    bootId: 'b007',
    log: silentLog,
    clock: systemClock,
    ...options,
  });
}

export function jointLayout(stream: string, joints = 3): StreamLayout {
  const names = Array.from({ length: joints }, (_, i) => `q${i}`);
  const fields = ['position', 'velocity', 'effort'].map((name) => ({ name, width: joints }));
  return { stream, kind: 'joint_state', names, fields, tags: {}, declaredRateHz: 50 };
}

/** Numbers that look random and are the same each time. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Sample number `index` of a stream; its values are noise, so that nothing compresses away. */
export function sampleOf(layout: StreamLayout, index: number, random = seeded(index + 1)): Sample {
  const at = BASE_NS + BigInt(index) * 20_000_000n;
  return {
    layout,
    stampNs: at,
    receivedNs: at + 1_000_000n,
    receivedMonoNs: BigInt(index) * 20_000_000n,
    flags: 0,
    values: Float64Array.from({ length: 3 * layout.names.length }, () => random() * 6 - 3),
  };
}

export function eventOf(n: number): OutboxEvent {
  const at = 1_790_000_000_000 + n;
  return { eventId: `evt_${n}`, type: 'edge.started.v1', occurredAtMs: at, traceId: `trace_${n}`, payload: { n } };
}

/** Everything a lane holds after a position. */
export function readLane(outbox: Outbox, lane: LaneName, after = 0): StoredRecord[] {
  const all: StoredRecord[] = [];
  for (let from = after; ; ) {
    const records = outbox.next(lane, from, 256 * 1024);
    const last = records.at(-1);
    if (!last) return all;
    all.push(...records);
    from = Math.max(last.seq, last.seqTo);
  }
}

/** The samples in telemetry records, in order. */
export function samplesIn(records: readonly StoredRecord[]): Sample[] {
  return records
    .filter((record) => record.kind === BodyKind.BODY_TELEMETRY)
    .flatMap((record) => {
      const block = decodeBlock(record.body);
      return Array.from({ length: block.count }, (_, row) => sampleAt(block, row));
    });
}

/** The gaps among records. */
export function gapsIn(records: readonly StoredRecord[]) {
  return records
    .filter((record) => record.kind === BodyKind.BODY_GAP)
    .map((record) => ({ seq: record.seq, seqTo: record.seqTo, ...readGap(record.body) }));
}

/** First position at which a lane has a hole or goes back; `undefined` when it is whole. */
export function brokenAt(records: readonly StoredRecord[], first = records[0]?.seq ?? 1): number | undefined {
  let expected = first;
  for (const { seq, seqTo } of records) {
    if (seq !== expected) return expected;
    expected = Math.max(seq, seqTo) + 1;
  }
  return undefined;
}

/** Changes the file of an outbox that is closed. */
export function changeFile(stateDir: string, ...statements: string[]): void {
  const db = new Database(join(stateDir, 'outbox.db'));
  for (const statement of statements) db.exec(statement);
  db.close();
}
