import type { Sample } from '@outrider/shared/telemetry';
import { CsvFiles } from './csv-files.ts';
import { McapFile } from './mcap-file.ts';

export const EXPORT_FORMATS = ['mcap', 'csv'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/** Which samples to export, and where to. */
export interface ExportRequest {
  readonly format: ExportFormat;
  readonly out: string;
  /** Empty: all. */
  readonly streams: readonly string[];
  /** By the time of reception. [ns since 1970] */
  readonly fromNs: bigint | undefined;
  readonly toNs: bigint | undefined;
  /** Goes into an MCAP file as metadata. */
  readonly facts: Readonly<Record<string, string>>;
}

export interface ExportResult {
  readonly files: readonly string[];
  readonly samples: number;
  readonly streams: Readonly<Record<string, number>>;
  /** Of the exported samples, by time of reception; 0 when there are none. [ns since 1970] */
  readonly fromNs: bigint;
  readonly toNs: bigint;
}

/** Writes the samples that were asked for. A CSV export of one named stream is one file, of more a folder. */
export async function exportSamples(
  samples: AsyncIterable<Sample> | Iterable<Sample>,
  request: ExportRequest,
): Promise<ExportResult> {
  const { streams, fromNs = MIN_NS, toNs = MAX_NS } = request;
  const counts = new Map<string, number>();
  let first = MAX_NS;
  let last = MIN_NS;
  const sink = await openSink(request);
  try {
    for await (const sample of samples) {
      const { receivedNs, layout } = sample;
      if (receivedNs < fromNs || receivedNs > toNs) continue;
      if (streams.length > 0 && !streams.includes(layout.stream)) continue;
      await sink.add(sample);
      counts.set(layout.stream, (counts.get(layout.stream) ?? 0) + 1);
      if (receivedNs < first) first = receivedNs;
      if (receivedNs > last) last = receivedNs;
    }
  } catch (error) {
    await sink.discard();
    throw error;
  }
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const files = await sink.finish();
  return {
    files,
    samples: total,
    streams: Object.fromEntries(counts),
    fromNs: total === 0 ? 0n : first,
    toNs: total === 0 ? 0n : last,
  };
}

const MIN_NS = -(2n ** 63n);
const MAX_NS = 2n ** 63n - 1n;

interface Sink {
  add(sample: Sample): Promise<void>;
  /** @returns The files. */
  finish(): Promise<readonly string[]>;
  discard(): Promise<void>;
}

async function openSink({ format, out, streams, facts }: ExportRequest): Promise<Sink> {
  if (format === 'csv') {
    const csv = streams.length === 1 ? CsvFiles.single(out) : CsvFiles.folder(out);
    const finish = (): Promise<readonly string[]> => csv.finish().then(() => csv.paths);
    return { add: (sample) => csv.add(sample), finish, discard: () => csv.finish() };
  }
  const mcap = await McapFile.create(out);
  await mcap.addFacts('outrider.export', facts);
  return {
    add: (sample) => mcap.add(sample),
    finish: () => mcap.finish().then(() => [out]),
    discard: () => mcap.discard(),
  };
}
