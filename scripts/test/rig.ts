import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { CloudClient } from '../src/cloud-client.ts';
import { repositoryRoot, Stack } from '../src/stack.ts';
import type { ExpectedSample } from './second-reader.ts';

/** Real recordings; absent on a clone of the repository alone. */
const DATA = resolve(repositoryRoot, '..', 'shared', 'data');

/** A file of the recordings, or why the test that wants it must be skipped. */
export function recording(path: string): { readonly file: string; readonly skip: string | false } {
  const file = join(DATA, path);
  return { file, skip: existsSync(file) ? false : `${file} is not there` };
}

/** A stack in a folder of its own, stopped and removed by `end`. */
export function openStack(
  say: (line: string) => void,
  patienceMs = 120_000,
): { stack: Stack; stateDir: string; end: () => Promise<void> } {
  const stateDir = mkdtempSync(join(tmpdir(), 'outrider-test-'));
  const stop = new AbortController();
  const stack = new Stack({ stateDir, signal: stop.signal, say, patienceMs, onPid: favour });
  const end = async (): Promise<void> => {
    await stack.stop();
    rmSync(stateDir, { recursive: true, force: true });
  };
  return { stack, stateDir, end };
}

/** A microcontroller has a processor of its own: its stand-in takes precedence on this one, where that is allowed. */
function favour(name: string, pid: number): void {
  // Nice counts only among the processes of one session where the kernel groups them, so it has to be real time.
  if (name.startsWith('mcu')) spawnSync('chrt', ['--fifo', '--pid', '10', String(pid)], { stdio: 'ignore' });
}

interface ExportedLayout {
  readonly names: readonly string[];
  readonly fields: readonly { readonly name: string; readonly width: number }[];
}

/** Every sample of a stream as the control plane gives it back, in the form of the second reader. */
export async function exportStream(client: CloudClient, robotId: string, stream: string): Promise<ExpectedSample[]> {
  const samples: ExpectedSample[] = [];
  let layout: ExportedLayout | undefined;
  let cursor: string | null = '';
  do {
    const query = new URLSearchParams({ stream, ...(cursor ? { cursor } : {}) });
    const reply = await client.request('GET', `/v1/robots/${robotId}/telemetry/export?${query}`);
    if (!reply.ok) throw new Error(`export of ${stream}: ${reply.status} ${await reply.text()}`);
    cursor = null;
    let hasEnded = false;
    for (const line of (await reply.text()).split('\n')) {
      if (line === '') continue;
      const entry = JSON.parse(line) as {
        layout?: ExportedLayout;
        end?: boolean;
        cursor?: string | null;
        values?: (number | string)[];
      };
      if (entry.layout) layout = entry.layout;
      else if (entry.end) {
        hasEnded = true;
        cursor = entry.cursor ?? null;
      } else if (layout && entry.values) samples.push(toSample(layout, entry.values.map(Number)));
    }
    if (!hasEnded) throw new Error(`the export of ${stream} was cut short`);
  } while (cursor !== null);
  return samples;
}

function toSample(layout: ExportedLayout, values: readonly number[]): ExpectedSample {
  const fields: Record<string, readonly number[]> = {};
  let start = 0;
  for (const { name, width } of layout.fields) {
    fields[name] = values.slice(start, start + width);
    start += width;
  }
  return { names: layout.names, values: fields };
}

/**
 * Samples as a sorted list of texts that hold every bit, so that two sets can be compared whatever their order.
 *
 * @param fields Which fields count: those of the reader that knows fewer.
 */
export function fingerprints(samples: readonly ExpectedSample[], fields: readonly string[]): string[] {
  const bits = (numbers: readonly number[]): string =>
    Buffer.from(Float64Array.from(numbers).buffer).toString('base64');
  return samples
    .map(
      ({ names, values }) =>
        `${JSON.stringify(names)} ${fields.map((field) => `${field} ${bits(values[field] ?? [])}`).join(' ')}`,
    )
    .sort();
}
