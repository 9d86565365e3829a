import { createReadStream, existsSync, readFileSync } from 'node:fs';
import { DomainError } from '@outrider/shared/errors';
import type { Sample } from '@outrider/shared/telemetry';
import { parse } from 'csv-parse';
import { parse as parseAll } from 'csv-parse/sync';
import type { CsvMapping } from '../sources/options.ts';

/** Says of each sample of a recording, in its order, whether it is labelled as a fault. */
export type Labelling = (sample: Sample) => boolean;

/** What a cell of a label column holds where nothing is wrong. */
const NORMAL = /^(|0|0\.0+|false|f|no|n|ok|none|normal|nan|null)$/i;
const NS_PER_S = 1e9;

/**
 * Labels from a column of the recording itself, when it is a CSV that has the column, or from a file of times.
 *
 * @throws DomainError `invalid` that says what both should look like.
 */
export async function openLabels(
  given: string,
  recording: { readonly file: string; readonly columns?: CsvMapping },
): Promise<Labelling> {
  const column = recording.columns && (await labelColumn(recording.file, recording.columns, given));
  if (column) return byRow(column);
  if (existsSync(given)) return byTime(given);
  throw refuse(
    given,
    `is neither a file nor ${recording.columns ? `a column of ${recording.file}` : 'a column: only a CSV recording has columns'}`,
  );
}

/** The column's cells, row by row; `undefined` when there is no such column. */
async function labelColumn(
  file: string,
  { delimiter, header }: CsvMapping,
  name: string,
): Promise<boolean[] | undefined> {
  if (!header) return undefined;
  const rows = createReadStream(file).pipe(
    parse({ delimiter, bom: true, relax_column_count: true, skip_empty_lines: true }),
  );
  const isFault: boolean[] = [];
  let index: number | undefined;
  for await (const row of rows as AsyncIterable<readonly string[]>) {
    if (index !== undefined) {
      isFault.push(!NORMAL.test((row[index] ?? '').trim()));
      continue;
    }
    index = row.findIndex((label) => label.trim() === name);
    if (index < 0) return undefined;
  }
  return isFault;
}

/** Each row of a CSV gives one sample to each stream. */
function byRow(isFault: readonly boolean[]): Labelling {
  const rows = new Map<string, number>();
  return ({ layout: { stream } }) => {
    const row = rows.get(stream) ?? 0;
    rows.set(stream, row + 1);
    return isFault[row] === true;
  };
}

interface Span {
  readonly from: bigint | number;
  readonly to: bigint | number;
}

/** A CSV with the columns `from` and `to`: ISO 8601, or seconds from the first sample. */
function byTime(file: string): Labelling {
  const rows = readRows(file);
  const spans = rows.map((row, i): Span => {
    const [from, to] = [row['from'], row['to']].map((cell) => timeOf(cell ?? ''));
    if (from === undefined || to === undefined)
      throw refuse(file, `line ${i + 2}: from and to must be ISO 8601 times, or seconds from the first sample`);
    if (typeof from !== typeof to) throw refuse(file, `line ${i + 2}: from and to must be times of the same kind`);
    if (from > to) throw refuse(file, `line ${i + 2}: from is after to`);
    return { from, to };
  });
  let startNs: bigint | undefined;
  return ({ receivedNs }) => {
    startNs ??= receivedNs;
    const sinceS = Number(receivedNs - startNs) / NS_PER_S;
    return spans.some(({ from, to }) => {
      const at = typeof from === 'bigint' ? receivedNs : sinceS;
      return at >= from && at <= to;
    });
  };
}

function readRows(file: string): Record<string, string>[] {
  let rows: Record<string, string>[];
  try {
    rows = parseAll(readFileSync(file), { bom: true, columns: true, trim: true, skip_empty_lines: true });
  } catch (cause) {
    throw refuse(file, `cannot be read as CSV: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  if (rows.length === 0 || rows.some((row) => row['from'] === undefined || row['to'] === undefined))
    throw refuse(file, 'must be a CSV with the columns from and to, and a line for each fault');
  return rows;
}

function timeOf(cell: string): bigint | number | undefined {
  if (/^\d+(\.\d+)?$/.test(cell)) return Number(cell);
  const ms = Date.parse(cell);
  return Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000_000n;
}

const refuse = (given: string, reason: string): DomainError =>
  new DomainError('invalid', `--labels ${given}: ${reason}`);
