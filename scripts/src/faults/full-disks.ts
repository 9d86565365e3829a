import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Outbox } from '@outrider/edge-agent/outbox/outbox';
import { readGap } from '@outrider/edge-agent/outbox/records';
import { outrider } from '@outrider/shared/messages';
import { decodeBlock } from '@outrider/shared/protocol/block';
import { systemClock } from '@outrider/shared/time';
import { type Campaign, must, runTrials } from './campaign.ts';
import { Random } from './random.ts';
import { newDiskFolder, noiseLayout, noiseSample, openOutbox, readLane, removeFolder } from './sim-edge.ts';

const { BODY_EVENT, BODY_GAP, BODY_TELEMETRY } = outrider.v1.BodyKind;
const MIB = 1024 * 1024;
const RESUME_MS_MAX = 5000;
const CHUNK_BYTES = 64 * 1024;

/** Why a small disk cannot be made here; `false` when it can. */
function noTmpfs(): string | false {
  if (process.getuid?.() !== 0) return 'mounting a small disk needs root';
  const dir = newDiskFolder('probe');
  try {
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', dir]).status !== 0)
      return 'mounting is not allowed here';
    execFileSync('umount', [dir]);
    return false;
  } finally {
    removeFolder(dir);
  }
}

interface Tally {
  readonly resumeMs: number[];
  readonly stepMs: number[];
  lost: number;
  gaps: number;
  fullAtStart: number;
}

/** A disk that somebody else fills, before the start or under way, and gives back: what was lost must be explained. */
class SmallDisk {
  readonly #random: Random;
  readonly #tally: Tally;
  readonly #disk = newDiskFolder('disk');
  readonly #layout = noiseLayout('disk/joint_state', 30);
  #outbox: Outbox | undefined;
  #samples = 0;
  readonly #events: string[] = [];
  readonly #kept = new Set<string>();

  constructor(seed: number, tally: Tally) {
    this.#random = new Random(seed);
    this.#tally = tally;
  }

  async run(): Promise<void> {
    const sizeMib = this.#random.int(4, 16);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeMib}m`, 'tmpfs', this.#disk]);
    const stop = new AbortController();
    let ended: Promise<void> = Promise.resolve();
    try {
      // With its journal it must fit on the empty disk: that somebody else fills it is what is tried here.
      const sizeMaxBytes = this.#random.pick([sizeMib / 8, sizeMib / 4, sizeMib / 3]) * MIB;
      const open = (): Outbox => openOutbox(this.#disk, systemClock, sizeMaxBytes);
      this.#outbox = open();
      await this.#produce(this.#random.int(20, 200));
      if (this.#random.chance(0.5)) {
        this.#tally.fullAtStart += 1;
        this.#outbox.close();
        this.#fill();
        this.#outbox = open();
      } else this.#fill();
      ended = this.#outbox.run(stop.signal);
      // More than memory holds, now and then: then samples are lost, and must be explained.
      await this.#produce(this.#random.chance(0.2) ? this.#random.int(12_000, 16_000) : this.#random.int(200, 1500));
      rmSync(join(this.#disk, 'somebody-elses'), { force: true });
      const freedMs = systemClock.monotonicMs();
      while (this.#outbox.stats().isFull || this.#kept.size < this.#events.length) {
        must(
          systemClock.monotonicMs() - freedMs < RESUME_MS_MAX,
          `not writing ${RESUME_MS_MAX} ms after there is space`,
        );
        await sleep(20);
      }
      this.#tally.resumeMs.push(systemClock.monotonicMs() - freedMs);
      await this.#produce(50);
      this.#outbox.flush();
      this.#judge(this.#outbox);
    } finally {
      stop.abort();
      await ended;
      this.#outbox?.close();
      execFileSync('umount', [this.#disk]);
      removeFolder(this.#disk);
    }
  }

  async #produce(count: number): Promise<void> {
    const outbox = this.#outbox as Outbox;
    for (let i = 0; i < count; i += 1) {
      const fromMs = systemClock.monotonicMs();
      outbox.appendSample(noiseSample(this.#layout, this.#samples, this.#random));
      this.#samples += 1;
      if (this.#random.chance(20 / count)) this.#event(outbox);
      if (i % 20 === 19) {
        outbox.flush();
        await sleep(1);
      }
      this.#tally.stepMs.push(systemClock.monotonicMs() - fromMs);
    }
  }

  #event(outbox: Outbox): void {
    const eventId = `evt_${this.#events.length}`;
    this.#events.push(eventId);
    const event = { eventId, type: 'edge.started.v1', occurredAtMs: systemClock.epochMs(), traceId: '' } as const;
    outbox.appendEvent({ ...event, payload: { text: 'x'.repeat(200) } }).then(
      () => this.#kept.add(eventId),
      () => undefined,
    );
  }

  /** To the last byte. */
  #fill(): void {
    const file = openSync(join(this.#disk, 'somebody-elses'), 'w');
    try {
      for (let bytes = CHUNK_BYTES; bytes >= 1; ) {
        try {
          writeSync(file, Buffer.alloc(bytes));
        } catch {
          bytes = Math.floor(bytes / 2);
        }
      }
    } finally {
      closeSync(file);
    }
    must(statfsSync(this.#disk).bavail === 0, 'the disk is not full');
  }

  #judge(outbox: Outbox): void {
    const telemetry = readLane(outbox, 'telemetry');
    const blocks = telemetry.filter(({ kind }) => kind === BODY_TELEMETRY).map(({ body }) => decodeBlock(body));
    const kept = blocks.reduce((sum, { count }) => sum + count, 0);
    const thinned = blocks.reduce((sum, { count, thinnedFrom = count }) => sum + thinnedFrom - count, 0);
    const gaps = telemetry.filter(({ kind }) => kind === BODY_GAP).map(({ body }) => readGap(body));
    const explained = gaps.reduce((sum, { samples }) => sum + samples, thinned);
    must(kept + explained === this.#samples, `${this.#samples} samples: ${kept} kept, ${explained} in gaps or thinned`);
    const events = readLane(outbox, 'event').filter(({ kind }) => kind === BODY_EVENT);
    must(events.length === this.#events.length, `${this.#events.length} events, ${events.length} kept`);
    this.#tally.lost += explained;
    this.#tally.gaps += gaps.length;
  }
}

export const fullDisks: Campaign = {
  id: 'C6',
  title: 'a disk of 4 to 16 MB filled to the last byte by somebody else, before the start or under way, then freed',
  counts: { full: 50, short: 4 },
  skip: noTmpfs(),
  async run(plan) {
    const tally: Tally = { resumeMs: [], stepMs: [], lost: 0, gaps: 0, fullAtStart: 0 };
    const done = await runTrials(plan, (seed) => new SmallDisk(seed, tally).run());
    const worst = (values: readonly number[]): string => values.reduce((a, b) => Math.max(a, b), 0).toFixed(0);
    const figures =
      `${tally.fullAtStart} full before the start; ${tally.lost} samples lost in ${tally.gaps} gap records, 0 events; ` +
      `writing again at most ${worst(tally.resumeMs)} ms after there was space; longest step of the agent ${worst(tally.stepMs)} ms`;
    return { ...done, figures };
  },
};
