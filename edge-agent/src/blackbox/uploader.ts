import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { Backoff, pause, type Service } from '@outrider/shared/service';
import { type Clock, toIso } from '@outrider/shared/time';
import type { BoxShelf, BoxView } from './shelf.ts';

/** When recordings go to the cloud: each by itself, when it is asked for, or never. */
export const UPLOAD_POLICIES = ['auto', 'on_request', 'never'] as const;
export type UploadPolicy = (typeof UPLOAD_POLICIES)[number];

/** The cloud's end, as far as recordings go. */
export interface BoxSink {
  /** Ids of recordings that somebody asked for. */
  wanted(): Promise<readonly string[]>;
  /** @returns How much of it the cloud has: where to go on. */
  send(
    boxId: string,
    chunk: { size: number; sha256: string; offset: number; data: Uint8Array },
  ): Promise<{
    readonly received: number;
    readonly complete: boolean;
  }>;
}

export interface BoxUploaderOptions {
  readonly shelf: BoxShelf;
  readonly policy: Exclude<UploadPolicy, 'never'>;
  /** At most so fast, so that what is live comes first. [bytes/s] */
  readonly bytesPerS: number;
  /** `undefined` while the robot has no key. */
  readonly sink: () => Promise<BoxSink | undefined>;
  /** Not while the link is down: the next attempt would only wait. */
  readonly isOnline: () => boolean;
  readonly clock: Clock;
  readonly log: Logger;
  readonly lookEveryMs?: number;
}

const CHUNK_BYTES = 256 * 1024;
const LOOK_EVERY_MS = 30_000;
const RETRY_MS_FIRST = 2000;
const RETRY_MS_MAX = 600_000;

/**
 * Hands recordings over to the cloud, one at a time, slowly, in parts that go on where they broke off. Over a
 * connection of its own: however large a recording is, no event waits behind it.
 */
export class BoxUploader implements Service {
  readonly name = 'blackbox-uploader';
  readonly #options: BoxUploaderOptions;
  readonly #backoff = new Backoff(RETRY_MS_FIRST, RETRY_MS_MAX);

  constructor(options: BoxUploaderOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { isOnline, log, lookEveryMs = LOOK_EVERY_MS } = this.#options;
    while (!signal.aborted) {
      let waitMs = lookEveryMs;
      try {
        const sink = isOnline() ? await this.#options.sink() : undefined;
        if (sink) await this.#deliver(sink, signal);
        this.#backoff.reset();
      } catch (error) {
        waitMs = Math.max(this.#backoff.nextMs(), Math.min(lookEveryMs, RETRY_MS_FIRST));
        log.warn({ reason: errorMessage(error) }, 'blackbox.upload_failed');
      }
      await pause(waitMs, signal);
    }
  }

  async #deliver(sink: BoxSink, signal: AbortSignal): Promise<void> {
    const { shelf, policy } = this.#options;
    const boxes = shelf.list();
    if (boxes.length === 0) return;
    const wanted = await sink.wanted();
    // What somebody waits for first, then the newest: it is what is asked about.
    const asked = boxes.filter(({ id }) => wanted.includes(id));
    const rest = boxes.filter((box) => box.exported_at === null && !wanted.includes(box.id)).reverse();
    for (const box of policy === 'auto' ? [...asked, ...rest] : asked) {
      if (signal.aborted) return;
      await this.#send(sink, box, signal);
    }
  }

  async #send(sink: BoxSink, box: BoxView, signal: AbortSignal): Promise<void> {
    const { shelf, bytesPerS, clock, log } = this.#options;
    const size = box.bytes;
    const sha256 = await hashOf(box.file);
    const file = await open(box.file, 'r');
    try {
      let { received, complete } = await sink.send(box.id, { size, sha256, offset: 0, data: new Uint8Array() });
      while (!complete && !signal.aborted) {
        const startedMs = clock.monotonicMs();
        const data = Buffer.alloc(Math.min(CHUNK_BYTES, size - received));
        await file.read(data, 0, data.length, received);
        ({ received, complete } = await sink.send(box.id, { size, sha256, offset: received, data }));
        const dueMs = (1000 * data.length) / bytesPerS - (clock.monotonicMs() - startedMs);
        if (!complete && dueMs > 0) await pause(dueMs, signal);
      }
      if (!complete) return;
      // Only now may it give way to newer ones.
      shelf.markExported(box.id, toIso(clock.epochMs()));
      log.info({ box_id: box.id, bytes: size }, 'blackbox.uploaded');
    } finally {
      await file.close();
    }
  }
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return hash.digest('hex');
}
