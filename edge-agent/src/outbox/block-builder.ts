import { BLOCK_SAMPLES_MAX, encodeBlock } from '@outrider/shared/protocol/block';
import { type Sample, sameLayout } from '@outrider/shared/telemetry';
import type { MonotonicMs } from '@outrider/shared/time';
import { type NewRecord, telemetryRecord } from './records.ts';

const NS_PER_MS = 1e6;
/** Unpacked size at which a block ends although it has room: packed, it must fit into one message whatever it holds. */
const BLOCK_BYTES_MAX = 512 * 1024;
/** A character of text may take three bytes. */
const BYTES_PER_CHARACTER = 3;

/** Collects the samples of all streams until they make blocks. A block ends when it is full or its layout changes. */
export class BlockBuilder {
  readonly #streams = new Map<string, { readonly samples: Sample[]; bytes: number }>();
  readonly #onBlock: (block: NewRecord) => void;
  /** Where each recording stands after the samples that are in open blocks. */
  readonly #positions = new Map<string, number>();
  /** When the oldest sample of an open block came; `undefined` while all are closed. */
  openSince: MonotonicMs | undefined;

  constructor(onBlock: (block: NewRecord) => void) {
    this.#onBlock = onBlock;
  }

  /** Whether samples of a recording are in open blocks. */
  get isRecording(): boolean {
    return this.#positions.size > 0;
  }

  add(sample: Sample, now: MonotonicMs, position?: { readonly source: string; readonly value: number }): void {
    const { stream } = sample.layout;
    let open = this.#streams.get(stream);
    if (!open) {
      open = { samples: [], bytes: 0 };
      this.#streams.set(stream, open);
    }
    const first = open.samples[0];
    const bytes = 8 * sample.values.length + BYTES_PER_CHARACTER * (sample.text?.length ?? 0);
    if (first && (!sameLayout(first.layout, sample.layout) || open.bytes + bytes > BLOCK_BYTES_MAX)) this.#close(open);
    open.samples.push(sample);
    open.bytes += bytes;
    this.openSince ??= now;
    if (position) this.#positions.set(position.source, position.value);
    if (open.samples.length >= BLOCK_SAMPLES_MAX) this.#close(open);
  }

  /** Ends all open blocks. @returns The positions that recordings have reached with them. */
  closeAll(): ReadonlyMap<string, number> {
    for (const open of this.#streams.values()) this.#close(open);
    const positions = new Map(this.#positions);
    this.#positions.clear();
    this.openSince = undefined;
    return positions;
  }

  #close(open: { readonly samples: Sample[]; bytes: number }): void {
    const { samples } = open;
    const first = samples[0];
    const last = samples.at(-1);
    if (!first || !last) return;
    const fromMs = Number(first.receivedNs) / NS_PER_MS;
    const toMs = Number(last.receivedNs) / NS_PER_MS;
    this.#onBlock(telemetryRecord(encodeBlock(samples), samples.length, fromMs, toMs));
    samples.length = 0;
    open.bytes = 0;
  }
}
