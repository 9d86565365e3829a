import { createWriteStream, mkdirSync, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { type Sample, type StreamLayout, sameLayout, sampleFlagNames } from '@outrider/shared/telemetry';
import { valueNames } from './ros-encoder.ts';
import { isoOfNs } from './sample-json.ts';

interface OpenFile {
  readonly layout: StreamLayout;
  readonly out: WriteStream;
}

/**
 * Writes samples as CSV, a file for each stream: times, flags, then one column per value. Numbers are written with as
 * many digits as give the same bits back. A stream that changes its shape goes on in a further file.
 */
export class CsvFiles {
  readonly #nameOf: (stream: string, part: number) => string;
  readonly #open = new Map<string, OpenFile>();
  readonly #parts = new Map<string, number>();
  readonly paths: string[] = [];

  private constructor(nameOf: (stream: string, part: number) => string) {
    this.#nameOf = nameOf;
  }

  /** One stream in one file. */
  static single(path: string): CsvFiles {
    return new CsvFiles((_, part) => (part === 1 ? path : `${path.replace(/\.csv$/, '')}-${part}.csv`));
  }

  /** A folder with a file for each stream. */
  static folder(directory: string): CsvFiles {
    mkdirSync(directory, { recursive: true });
    return new CsvFiles((stream, part) => {
      const name = stream.replace(/^\//, '').replaceAll(/[^A-Za-z0-9_.-]+/g, '_') || 'stream';
      return join(directory, `${name}${part === 1 ? '' : `-${part}`}.csv`);
    });
  }

  async add(sample: Sample): Promise<void> {
    const { stream } = sample.layout;
    let file = this.#open.get(stream);
    if (!file || !sameLayout(file.layout, sample.layout)) {
      if (file) await end(file);
      file = this.#create(sample.layout);
      this.#open.set(stream, file);
    }
    const { receivedNs, stampNs, flags, values } = sample;
    const head = [isoOfNs(receivedNs), receivedNs, stampNs, sampleFlagNames(flags).join(' ')];
    const row = [...head, ...Array.from(values, digits)].join(',');
    if (!file.out.write(`${row}\n`)) await new Promise<void>((resolve) => file.out.once('drain', resolve));
  }

  async finish(): Promise<void> {
    for (const file of this.#open.values()) await end(file);
    this.#open.clear();
  }

  #create(layout: StreamLayout): OpenFile {
    const part = (this.#parts.get(layout.stream) ?? 0) + 1;
    this.#parts.set(layout.stream, part);
    const path = this.#nameOf(layout.stream, part);
    this.paths.push(path);
    const out = createWriteStream(path, { mode: 0o600 });
    out.write(`${['received', 'received_ns', 'stamp_ns', 'flags', ...valueNames(layout)].map(quoted).join(',')}\n`);
    return { layout, out };
  }
}

async function end({ out }: OpenFile): Promise<void> {
  out.end();
  await finished(out);
}

const digits = (value: number): string => (Object.is(value, -0) ? '-0' : String(value));
const quoted = (text: string): string => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
