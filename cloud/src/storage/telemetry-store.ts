import { decodeBlock, sampleAt } from '@outrider/shared/protocol/block';
import type { StreamKind } from '@outrider/shared/telemetry';
import type { EpochMs } from '@outrider/shared/time';
import { selectRows } from '../telemetry/block-rows.ts';
import type {
  HistoryBlock,
  HistoryQuery,
  LatestSample,
  ShadowEntry,
  StoredEvent,
  StoredGap,
  StreamCount,
  TelemetryReader,
} from '../telemetry/ports.ts';
import type { Queryable } from './database.ts';
import { Gathered } from './gathered.ts';

/** Blocks fetched at a time while history is read. */
const PAGE_BLOCKS = 64;
const EVENTS_DEFAULT = 100;
const GAPS_DEFAULT = 1000;
/** Bounds of timestamptz that JavaScript can also say; "for ever" in a query. */
const FIRST_MS = Date.UTC(1970, 0, 1);
const LAST_MS = Date.UTC(9999, 0, 1);
const DAY_MS = 86_400_000;

const ms = (at: Date): EpochMs => at.getTime() as EpochMs;

interface BlockRow {
  readonly epoch: string;
  readonly seq: number;
  readonly recorded_at: Date;
  readonly recorded_until: Date;
  readonly ingested_at: Date;
  readonly boot_id: string;
  readonly body: Uint8Array;
}

interface LatestRow {
  readonly robot_pk: number;
  readonly stream: string;
  readonly kind: StreamKind;
  readonly recorded_at: Date;
  readonly ingested_at: Date;
  readonly body: Uint8Array;
}

interface ShadowRow {
  readonly robot_pk: number;
  readonly key: string;
  readonly at: Date;
  readonly ingested_at: Date;
  readonly value: unknown;
}

/** Reads telemetry, newest values, events and gaps. */
export class SqlTelemetryStore implements TelemetryReader {
  readonly #database: Queryable;
  readonly #latest = this.#byRobot<LatestRow>(
    `select robot_pk, stream, kind, recorded_at, ingested_at, body from latest_sample
      where robot_pk = any($1::int8[]) order by stream`,
  );
  readonly #shadows = this.#byRobot<ShadowRow>(
    'select robot_pk, key, at, ingested_at, value from robot_shadow where robot_pk = any($1::int8[]) order by key',
  );

  constructor(database: Queryable) {
    this.#database = database;
  }

  async latest(robotPk: number): Promise<LatestSample[]> {
    // Unpacked by each asker, so that a block that cannot be read fails nobody else.
    return ((await this.#latest.read(robotPk)) ?? []).map((row) => ({
      stream: row.stream,
      kind: row.kind,
      recordedAt: ms(row.recorded_at),
      ingestedAt: ms(row.ingested_at),
      sample: sampleAt(decodeBlock(row.body), 0),
    }));
  }

  async shadow(robotPk: number): Promise<ShadowEntry[]> {
    const rows = (await this.#shadows.read(robotPk)) ?? [];
    return rows.map(({ key, at, ingested_at, value }) => ({ key, at: ms(at), ingestedAt: ms(ingested_at), value }));
  }

  /** Rows of robots, for whoever asks at the same time in one question. @param text Takes the robots as $1. */
  #byRobot<Row extends { readonly robot_pk: number }>(text: string): Gathered<number, Row[]> {
    return new Gathered(async (robotPks) => {
      const found = new Map<number, Row[]>(robotPks.map((robotPk) => [robotPk, []]));
      for (const row of await this.#database.query<Row>(text, [[...robotPks]])) found.get(row.robot_pk)?.push(row);
      return found;
    });
  }

  async *history(query: HistoryQuery): AsyncIterable<HistoryBlock> {
    const fromMs = Math.max(FIRST_MS, query.fromMs ?? FIRST_MS);
    const toMs = Math.min(LAST_MS, query.toMs ?? LAST_MS);
    let left = query.limit ?? Number.POSITIVE_INFINITY;
    let after: BlockRow | undefined;
    while (left > 0) {
      const rows = await this.#page(query, fromMs, toMs, after);
      for (const row of rows) {
        const whole = decodeBlock(row.body);
        const isWithin = row.recorded_at.getTime() >= fromMs && row.recorded_until.getTime() <= toMs;
        const block =
          isWithin && whole.count <= left
            ? whole
            : selectRows(whole, fromMs, toMs, ms(row.ingested_at), left, query.newestFirst);
        if (!block) continue;
        left -= block.count;
        yield {
          ...block,
          recordedAt: ms(row.recorded_at),
          ingestedAt: ms(row.ingested_at),
          epoch: row.epoch,
          seq: row.seq,
          bootId: row.boot_id,
        };
        if (left <= 0) return;
      }
      after = rows.at(-1);
      if (rows.length < PAGE_BLOCKS || !after) return;
    }
  }

  /**
   * One page of blocks that touch the range. A block starts at most a day before it ends, so `recorded_at` is
   * bounded and partitions are skipped; the few longer ones have an index of their own.
   */
  async #page(query: HistoryQuery, fromMs: number, toMs: number, after: BlockRow | undefined): Promise<BlockRow[]> {
    const parameters: unknown[] = [];
    const given = (value: unknown, type: string): string => `$${parameters.push(value)}::${type}`;
    const atMs = (value: number): string => `to_timestamp(${given(value, 'float8')} / 1000)`;
    const [past, order] = query.newestFirst ? ['<', 'desc'] : ['>', 'asc'];
    const columns = 'epoch, seq, recorded_at, recorded_until, ingested_at, boot_id, body';
    // Only what was asked for stands in the text: with "or it is null" the planner could not use an index for it.
    const common = [
      `robot_pk = ${given(query.robotPk, 'int8')}`,
      ...(query.kinds ? [`kind = any(${given([...query.kinds], 'text[]')})`] : []),
      ...(query.streams ? [`stream = any(${given([...query.streams], 'text[]')})`] : []),
      `recorded_at <= ${atMs(toMs)}`,
      `recorded_until >= ${atMs(fromMs)}`,
      ...(after
        ? [
            `(recorded_at, epoch, seq) ${past} (${atMs(after.recorded_at.getTime())}, ${given(after.epoch, 'text')}, ${given(after.seq, 'int8')})`,
          ]
        : []),
    ].join(' and ');
    const page = `order by recorded_at ${order}, epoch ${order}, seq ${order} limit ${PAGE_BLOCKS}`;
    const isLong = `(recorded_until - recorded_at) > interval '1 day'`;
    return await this.#database.query<BlockRow>(
      `select * from (
         (select ${columns} from telemetry_block
           where ${common} and not ${isLong} and recorded_at >= ${atMs(fromMs - DAY_MS)} ${page})
         union all
         (select ${columns} from telemetry_block where ${common} and ${isLong} ${page})
       ) as found ${page}`,
      parameters,
    );
  }

  async counts(
    robotPk: number,
    range: { readonly fromMs?: EpochMs; readonly toMs?: EpochMs } = {},
  ): Promise<StreamCount[]> {
    const rows = await this.#database.query<{
      stream: string;
      kind: StreamKind;
      samples: number;
      thinned: number;
      blocks: number;
      first_at: Date;
      last_at: Date;
    }>(
      `select stream, kind, sum(sample_count)::int8 as samples, sum(thinned_count)::int8 as thinned,
              count(*)::int8 as blocks, min(recorded_at) as first_at, max(recorded_until) as last_at
         from telemetry_block
        where robot_pk = $1 and recorded_at >= to_timestamp($2::float8 / 1000)
          and recorded_at <= to_timestamp($3::float8 / 1000)
        group by stream, kind order by stream, kind`,
      [robotPk, range.fromMs ?? FIRST_MS, range.toMs ?? LAST_MS],
    );
    return rows.map(({ stream, kind, samples, thinned, blocks, first_at, last_at }) => ({
      stream,
      kind,
      samples,
      thinned,
      blocks,
      firstAt: ms(first_at),
      lastAt: ms(last_at),
    }));
  }

  async gaps(robotPk: number, limit: number = GAPS_DEFAULT): Promise<StoredGap[]> {
    const rows = await this.#database.query<{
      epoch: string;
      lane: number;
      seq_from: number;
      seq_to: number;
      reason: string;
      sample_count: number;
      from_at: Date;
      to_at: Date;
    }>(
      `select epoch, lane, seq_from, seq_to, reason, sample_count, from_at, to_at from telemetry_gap
        where robot_pk = $1 order by ingested_at desc, seq_from desc limit $2`,
      [robotPk, limit],
    );
    return rows.map((row) => ({
      epoch: row.epoch,
      lane: row.lane,
      seqFrom: row.seq_from,
      seqTo: row.seq_to,
      reason: row.reason,
      samples: row.sample_count,
      fromAt: ms(row.from_at),
      toAt: ms(row.to_at),
    }));
  }

  async events(
    robotPk: number,
    query: { readonly types?: readonly string[]; readonly limit?: number } = {},
  ): Promise<StoredEvent[]> {
    const rows = await this.#database.query<{
      event_id: string;
      type: string;
      occurred_at: Date;
      ingested_at: Date;
      trace_id: string;
      payload: unknown;
    }>(
      `select event_id, type, occurred_at, ingested_at, trace_id, payload from robot_event
        where robot_pk = $1 and ($2::text[] is null or type = any($2::text[]))
        order by occurred_at desc, seq desc limit $3`,
      [robotPk, query.types ? [...query.types] : null, query.limit ?? EVENTS_DEFAULT],
    );
    return rows.map((row) => ({
      eventId: row.event_id,
      type: row.type,
      occurredAt: ms(row.occurred_at),
      ingestedAt: ms(row.ingested_at),
      traceId: row.trace_id,
      payload: row.payload,
    }));
  }
}
