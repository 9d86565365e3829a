import type { Logger } from '@outrider/shared/log';
import { Backoff, pause } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { IngestMetrics } from './ingest-metrics.ts';
import type { IngestStore, LaneOutcome, LaneWork } from './ingest-ports.ts';
import type { LaneRecord, PoisonRecord } from './record.ts';

const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5000;

export interface CommitterOptions {
  readonly store: IngestStore;
  readonly metrics: IngestMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether the failure is about the data, so that trying the same again is vain. */
  readonly isDataError: (error: unknown) => boolean;
}

/** Brings work into the store, whatever it takes: waits out a database that is away, and isolates poison. */
export class Committer {
  readonly #options: CommitterOptions;

  constructor(options: CommitterOptions) {
    this.#options = options;
  }

  /**
   * Stores the work. While the database is away it waits and tries again.
   *
   * @returns What became of each lane; fewer when the signal aborted, and for work that could not even be kept
   * as poison.
   */
  async commit(work: readonly LaneWork[], signal: AbortSignal): Promise<LaneOutcome[]> {
    const { store, metrics, clock, log, isDataError } = this.#options;
    const backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS);
    let failures = 0;
    do {
      const started = clock.monotonicMs();
      try {
        const outcomes = await store.commit(work, clock.epochMs());
        metrics.commitSeconds.observe((clock.monotonicMs() - started) / 1000);
        if (failures > 0) log.info({ failures }, 'ingest.recovered');
        return outcomes;
      } catch (error) {
        if (isDataError(error)) return await this.#isolate(work, error, signal);
        failures += 1;
        metrics.commitFailures.inc();
        if (failures === 1) log.error({ err: error }, 'ingest.commit_failed');
        await pause(backoff.nextMs(), signal);
      }
    } while (!signal.aborted);
    return [];
  }

  /** Halves a batch that the database refuses until the record that it refuses stands alone. */
  async #isolate(work: readonly LaneWork[], error: unknown, signal: AbortSignal): Promise<LaneOutcome[]> {
    const count = work.reduce((sum, entry) => sum + entry.records.length, 0);
    if (count > 1) {
      const [first, second] = halve(work, Math.ceil(count / 2));
      const before = await this.commit(first, signal);
      return [...before, ...(await this.commit(second, signal))];
    }
    const [entry] = work;
    const [record] = entry?.records ?? [];
    if (!entry || !record) return [];
    if (record.kind === 'poison') {
      this.#options.log.error({ robotId: entry.robot.robotId, seq: record.seq, err: error }, 'ingest.poison_lost');
      return [];
    }
    const poison: PoisonRecord = {
      kind: 'poison',
      seq: record.seq,
      seqTo: record.seqTo,
      hash: record.hash,
      bootId: '',
      reason: `the database refused it: ${error instanceof Error ? error.message : String(error)}`.slice(0, 256),
      body: bodyOf(record),
    };
    return await this.commit([{ ...entry, records: [poison] }], signal);
  }
}

/** Splits the work into two of about the same number of records, keeping their order. */
function halve(work: readonly LaneWork[], firstCount: number): [LaneWork[], LaneWork[]] {
  const first: LaneWork[] = [];
  const second: LaneWork[] = [];
  let left = firstCount;
  for (const entry of work) {
    const records = entry.records.toSorted((a, b) => a.seq - b.seq);
    const taken = records.slice(0, left);
    if (taken.length > 0) first.push({ ...entry, records: taken });
    if (taken.length < records.length) second.push({ ...entry, records: records.slice(taken.length) });
    left -= taken.length;
  }
  return [first, second];
}

function bodyOf(record: LaneRecord): Uint8Array {
  if (record.kind === 'telemetry' || record.kind === 'poison') return record.body;
  if (record.kind === 'event') return Buffer.from(record.payloadJson);
  return Buffer.from(record.kind === 'state' ? record.valueJson : record.reason);
}
