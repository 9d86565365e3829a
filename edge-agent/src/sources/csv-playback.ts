import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream';
import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import { type Info, parse } from 'csv-parse';
import { LayoutCache } from './layout-cache.ts';
import { JointNames, StreamOddities } from './oddities.ts';
import { CSV_FIELDS, CSV_UNITS, type CsvMapping } from './options.ts';
import type { Playback } from './playback.ts';
import { damaged, type Remark, refuse } from './recording.ts';
import { malformedSample } from './stream-decoder.ts';

const ROW_BYTES_MAX = 1 << 20;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const NOT_A_VALUE = /^(nan|[+-]?inf(inity)?|null|none|na|n\/a)?$/i;
const NS_PER_UNIT = { s: 1e9, ms: 1e6, us: 1e3, ns: 1 } as const;

/** One row as csv-parse gives it with `info`. */
interface Row {
  readonly record: readonly string[];
  readonly info: Info;
}

interface Column {
  readonly index: number;
  readonly label: string;
  readonly convert: (value: number) => number;
}

/** One stream's part of a row. */
interface StreamPlan {
  readonly layouts: LayoutCache;
  readonly names: readonly string[];
  readonly fieldNames: readonly string[];
  readonly widths: readonly number[];
  readonly columns: readonly Column[];
  readonly oddities: StreamOddities;
}

/** A CSV file as samples: each row gives one sample to each mapped stream. */
export class CsvPlayback implements Playback {
  readonly #file: string;
  readonly #mapping: CsvMapping;
  readonly #velocityMaxRadps: Readonly<Record<string, number>> | undefined;
  #readBytes = 0;
  #sizeBytes = 0;

  constructor(file: string, mapping: CsvMapping, velocityMaxRadps?: Readonly<Record<string, number>>) {
    this.#file = file;
    this.#mapping = mapping;
    this.#velocityMaxRadps = velocityMaxRadps;
  }

  async *samples(): AsyncGenerator<Sample, void, void> {
    this.#sizeBytes = (await stat(this.#file)).size;
    const { delimiter, header } = this.#mapping;
    const options = { delimiter, bom: true, info: true, relax_column_count: true, skip_empty_lines: true };
    const parser = parse({ ...options, max_record_size: ROW_BYTES_MAX });
    const input = createReadStream(this.#file);
    input.on('data', (chunk) => {
      this.#readBytes += chunk.length;
    });
    pipeline(input, parser, () => undefined);
    this.#readBytes = 0;
    let plans: readonly StreamPlan[] | undefined;
    let time: Column | undefined;
    let row = 0;
    try {
      for await (const { record, info } of parser as AsyncIterable<Row>) {
        if (!plans) {
          const labels = header ? record.map((label) => label.trim()) : undefined;
          plans = this.#plans(labels, record.length);
          time = this.#timeColumn(labels, record.length);
          if (header) continue;
        }
        yield* this.#rowSamples(record, info.lines, row, plans, time);
        row += 1;
      }
    } catch (error) {
      if (error instanceof Error && error.name === 'DomainError') throw error;
      throw damaged(this.#file, `in row ${row + 1}`, error);
    } finally {
      input.destroy();
    }
    if (!plans) throw refuse(this.#file, 'is empty');
  }

  fractionRead(): number {
    return this.#sizeBytes > 0 ? this.#readBytes / this.#sizeBytes : 1;
  }

  remark(): Remark | undefined {
    return undefined;
  }

  async close(): Promise<void> {}

  *#rowSamples(
    record: readonly string[],
    line: number,
    row: number,
    plans: readonly StreamPlan[],
    time: Column | undefined,
  ): Generator<Sample, void, void> {
    const stampNs = time ? this.#timeNs(record[time.index] ?? '') : 0n;
    const startNs = BigInt(Date.parse(this.#mapping.start)) * 1_000_000n;
    // A row without a readable time keeps its place in the file, one period behind the row before it.
    const rowNs = startNs + BigInt(Math.round((row / this.#mapping.rate_hz) * 1e9));
    const receivedNs = stampNs === undefined || stampNs === 0n ? rowNs : stampNs;
    for (const plan of plans) {
      const problem = stampNs === undefined ? `${quoted(record[time?.index ?? 0] ?? '')} is not a time` : undefined;
      const read = problem ?? this.#values(record, plan.columns);
      if (typeof read === 'string') {
        yield malformedSample(plan.layouts, `line ${line}: ${read}`, SAMPLE_FLAGS.replayed, receivedNs, 0n);
        continue;
      }
      const layout = plan.layouts.layout(plan.names, plan.fieldNames, plan.widths, NO_TAGS);
      const stamp = stampNs ?? 0n;
      const flags =
        SAMPLE_FLAGS.replayed |
        (stamp === 0n ? SAMPLE_FLAGS.noStamp : 0) |
        plan.oddities.flagsOf(layout, read, stamp, receivedNs);
      yield { layout, stampNs: stamp, receivedNs, receivedMonoNs: 0n, flags, values: read };
    }
  }

  /** The row's values, or what is wrong with it. An empty cell is NaN: it was not measured. */
  #values(record: readonly string[], columns: readonly Column[]): Float64Array | string {
    const values = new Float64Array(columns.length);
    for (const [i, { index, label, convert }] of columns.entries()) {
      const cell = record[index];
      if (cell === undefined) return `has ${record.length} columns, '${label}' is missing`;
      const value = this.#number(cell);
      if (value === undefined) return `column '${label}': ${quoted(cell)} is not a number`;
      values[i] = convert(value);
    }
    return values;
  }

  #number(cell: string): number | undefined {
    const text = this.#mapping.decimal === ',' ? cell.trim().replace(',', '.') : cell.trim();
    if (NUMBER.test(text)) return Number(text);
    if (!NOT_A_VALUE.test(text)) return undefined;
    return /inf/i.test(text) ? (text.startsWith('-') ? -Infinity : Infinity) : Number.NaN;
  }

  #timeNs(cell: string): bigint | undefined {
    const unit = this.#mapping.time?.unit ?? 'iso';
    const text = cell.trim();
    if (unit === 'iso') {
      const ms = Date.parse(text);
      return Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000_000n;
    }
    const startNs = BigInt(Date.parse(this.#mapping.start)) * 1_000_000n;
    const sinceStartNs = /^[+-]?\d{1,19}$/.test(text)
      ? BigInt(text) * BigInt(NS_PER_UNIT[unit])
      : this.#fractionNs(text, NS_PER_UNIT[unit]);
    if (sinceStartNs === undefined) return undefined;
    const atNs = startNs + sinceStartNs;
    return BigInt.asIntN(64, atNs) === atNs ? atNs : undefined;
  }

  /** Whole and fraction apart: 1700000000.123456 s has more digits than a double keeps in nanoseconds. */
  #fractionNs(text: string, nsPerUnit: number): bigint | undefined {
    const value = this.#number(text);
    if (value === undefined || !Number.isFinite(value)) return undefined;
    const whole = Math.trunc(value);
    return BigInt(whole) * BigInt(nsPerUnit) + BigInt(Math.round((value - whole) * nsPerUnit));
  }

  #plans(labels: readonly string[] | undefined, width: number): readonly StreamPlan[] {
    const jointNames = new JointNames();
    return this.#mapping.streams.map(({ stream, kind, rate_hz, names, fields }, i) => {
      const fieldNames = Object.keys(CSV_FIELDS[kind]).filter((name) => fields[name]);
      const columns = fieldNames.flatMap((name) =>
        (fields[name] ?? []).map(({ column, unit, negate }) => {
          const toSi = unit ? CSV_UNITS[unit] : (value: number) => value;
          const index = this.#index(column, labels, width, `columns.streams[${i}].fields.${name}`);
          return { index, label: String(column), convert: negate ? (value: number) => -toSi(value) : toSi };
        }),
      );
      return {
        layouts: new LayoutCache(stream, kind, rate_hz),
        names,
        fieldNames,
        widths: fieldNames.map((name) => fields[name]?.length ?? 0),
        columns,
        oddities: new StreamOddities(jointNames, this.#velocityMaxRadps),
      };
    });
  }

  #timeColumn(labels: readonly string[] | undefined, width: number): Column | undefined {
    const column = this.#mapping.time?.column;
    if (column === undefined) return undefined;
    return {
      index: this.#index(column, labels, width, 'columns.time'),
      label: String(column),
      convert: (value) => value,
    };
  }

  #index(column: string | number, labels: readonly string[] | undefined, width: number, path: string): number {
    const index = typeof column === 'number' ? column - 1 : (labels?.indexOf(column) ?? -1);
    if (index >= 0 && index < width) return index;
    throw refuse(this.#file, `has no column ${column} (${path}); it has ${labels?.join(', ') ?? `1 to ${width}`}`);
  }
}

/** Escaped, because a database may refuse the NUL or the half character that a file holds. */
const quoted = (cell: string): string => JSON.stringify(cell.slice(0, 40));

const NO_TAGS: Readonly<Record<string, string>> = {};
