import { basename, join } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { aborted, pause, type Service } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import { type Clock, type EpochMs, toIso } from '@outrider/shared/time';
import type { McapFile } from '../export/mcap-file.ts';
import { isoOfNs } from '../export/sample-json.ts';
import { SampleRing, sampleBytes } from './ring.ts';
import { type BoxFacts, BoxShelf, type BoxView } from './shelf.ts';

type Transition = outrider.v1.Transition.$Properties;

export interface BlackBoxOptions {
  readonly stateDir: string;
  /** `<tenant>.<robot>` */
  readonly robot: string;
  readonly beforeMs: number;
  readonly afterMs: number;
  /** Bound of the ring, and of what may wait to be written. */
  readonly memoryMaxBytes: number;
  readonly filesMax: number;
  readonly sizeMaxBytes: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called once a box is on disk. */
  readonly onRecorded: (box: BoxView) => void;
}

/** Samples written in one go: a millisecond or two. Then everybody else, so that the agent never looks stuck. */
const SAMPLES_PER_TURN = 25;
const TURN_PAUSE_MS = 2;
const POLL_MS = 50;
/** Trips that follow each other extend one box, up to so many times the time after a trip. */
const EXTENSIONS_MAX = 6;
const FACTS_NAME = 'outrider.trip';

interface OpenBox {
  readonly facts: BoxFacts;
  readonly also: string[];
  readonly startedMs: number;
  readonly before: readonly Sample[];
  /** Written as one list after `before`; what the writer has taken is gone. */
  queue: Sample[];
  queueBytes: number;
  endsMs: number;
  cutShort: string | null;
}

/**
 * Keeps the last seconds of every stream at full rate in memory and, when the robot is stopped, writes them and the
 * seconds after into a file of its own, which telemetry can never push out.
 */
export class BlackBoxRecorder implements Service {
  readonly name = 'blackbox';
  readonly shelf: BoxShelf;
  readonly #options: BlackBoxOptions;
  readonly #ring: SampleRing;
  #open: OpenBox | undefined;
  #writing: Promise<void> = Promise.resolve();
  #lastLatchId: number | undefined;
  #isStopping = false;

  constructor(options: BlackBoxOptions) {
    this.#options = options;
    this.#ring = new SampleRing(options.beforeMs, options.memoryMaxBytes);
    this.shelf = new BoxShelf(options.stateDir);
  }

  /** Takes a sample of any source. Cheap, and never throws. */
  add(sample: Sample): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#ring.add(sample, nowMs);
    const open = this.#open;
    if (!open || nowMs > open.endsMs) return;
    if (open.queueBytes > this.#options.memoryMaxBytes) {
      open.cutShort ??= 'the disk was too slow';
      return;
    }
    open.queue.push(sample);
    open.queueBytes += sampleBytes(sample);
  }

  /** Takes a change of the failsafe. One that newly latches starts a box, or extends the one that is being written. */
  transition(transition: Transition): void {
    const latchId = transition.latchId ?? 0;
    const isTrip = transition.toPhase === 'LATCHED' && latchId !== this.#lastLatchId;
    this.#lastLatchId = latchId;
    if (!isTrip || this.#isStopping) return;
    const { clock, afterMs, log } = this.#options;
    const nowMs = clock.monotonicMs();
    const atMonoMs = transition.atMonoMs ?? nowMs;
    // One that comes late, from before this start, has no samples here; the box it had is on the shelf already.
    if (this.#ring.oldestMs === undefined || atMonoMs < this.#ring.oldestMs) {
      log.info({ latch_id: latchId, transition_id: transition.transitionId }, 'blackbox.too_late');
      return;
    }
    const endsMs = atMonoMs + afterMs;
    const open = this.#open;
    if (open) {
      open.endsMs = Math.min(endsMs, open.startedMs + EXTENSIONS_MAX * afterMs);
      open.also.push(`latch ${latchId}: ${describe(transition).join('; ')}`);
      return;
    }
    const facts = this.#factsOf(transition);
    if (this.shelf.has(facts.id)) return;
    const before = this.#ring.samples(nowMs);
    const box: OpenBox = {
      facts,
      also: [],
      startedMs: nowMs,
      before,
      queue: [],
      queueBytes: 0,
      endsMs,
      cutShort: null,
    };
    this.#open = box;
    this.#writing = this.#writing.then(() => this.#record(box));
  }

  async run(signal: AbortSignal): Promise<void> {
    this.shelf.prepare();
    await this.#salvage();
    await aborted(signal);
    this.#isStopping = true;
    if (this.#open) this.#open.cutShort ??= 'the agent stopped';
    await this.#writing;
  }

  async #record(box: OpenBox): Promise<void> {
    const { log } = this.#options;
    let file: McapFile | undefined;
    try {
      this.shelf.prepare();
      // Loaded now, and what comes meanwhile waits in the queue: most of its life a robot writes no box.
      const mcap = await import('../export/mcap-file.ts');
      file = await mcap.McapFile.create(this.shelf.pathOf(box.facts.id));
      await file.addFacts(FACTS_NAME, textFacts(box.facts));
      const span = { fromNs: box.before[0]?.receivedNs ?? 0n, toNs: 0n, samples: 0 };
      await this.#write(file, box.before, span);
      await file.sync();
      while (this.#goesOn(box, file)) {
        const { queue } = box;
        box.queue = [];
        box.queueBytes = 0;
        if (queue.length > 0) await this.#write(file, queue, span);
        else await pause(POLL_MS, NEVER);
      }
      this.#open = undefined;
      await this.#write(file, box.queue, span);
      for (const also of box.also) await file.addFacts('outrider.also', { also });
      const facts: BoxFacts = {
        ...box.facts,
        also: box.also,
        from: isoOfNs(span.fromNs),
        to: isoOfNs(span.toNs),
        samples: span.samples,
        cut_short: box.cutShort,
      };
      await file.finish();
      this.#shelve(facts);
    } catch (error) {
      this.#open = undefined;
      log.error({ box: box.facts.id, reason: errorMessage(error) }, 'blackbox.failed');
      await file?.discard().catch(() => undefined);
    }
  }

  #goesOn(box: OpenBox, file: McapFile): boolean {
    if (box.cutShort === null && file.bytes > this.#options.sizeMaxBytes) box.cutShort = 'it reached its size bound';
    return box.cutShort === null && this.#options.clock.monotonicMs() <= box.endsMs;
  }

  async #write(
    file: McapFile,
    samples: readonly Sample[],
    span: { fromNs: bigint; toNs: bigint; samples: number },
  ): Promise<void> {
    for (const [i, sample] of samples.entries()) {
      if (i % SAMPLES_PER_TURN === SAMPLES_PER_TURN - 1) await pause(TURN_PAUSE_MS, NEVER);
      await file.add(sample);
      if (span.fromNs === 0n) span.fromNs = sample.receivedNs;
      span.toNs = sample.receivedNs;
      span.samples += 1;
    }
  }

  #shelve(facts: BoxFacts): void {
    const { log, filesMax, sizeMaxBytes, onRecorded } = this.#options;
    this.shelf.saveFacts(facts);
    const removed = this.shelf.makeRoom({ filesMax, bytesMax: sizeMaxBytes });
    log.info({ box: facts.id, samples: facts.samples, cut_short: facts.cut_short, removed }, 'blackbox.recorded');
    onRecorded(this.shelf.get(facts.id));
  }

  /** Finishes what a kill or a power cut left. */
  async #salvage(): Promise<void> {
    for (const name of this.shelf.unfinished()) {
      const id = basename(name, '.mcap.part');
      try {
        const { salvageRecording } = await import('./salvage.ts');
        const saved = await salvageRecording(join(this.shelf.directory, name), this.shelf.pathOf(id));
        if (!saved) continue;
        const { facts, messages, fromNs, toNs } = saved;
        this.#shelve({
          ...emptyFacts(id, this.#options.robot),
          tripped_at: facts['tripped_at'] ?? '',
          mode: facts['mode'] ?? '',
          latch_id: Number(facts['latch_id'] ?? 0),
          transition_id: Number(facts['transition_id'] ?? 0),
          trace_id: facts['trace_id'] ?? '',
          causes: (facts['causes'] ?? '').split('\n').filter((cause) => cause !== ''),
          from: isoOfNs(fromNs),
          to: isoOfNs(toNs),
          samples: messages,
          cut_short: 'the agent was killed while it recorded',
        });
      } catch (error) {
        this.#options.log.error({ box: id, reason: errorMessage(error) }, 'blackbox.not_salvaged');
      }
    }
  }

  #factsOf(transition: Transition): BoxFacts {
    const trippedAt = toIso((transition.atMs ?? this.#options.clock.epochMs()) as EpochMs);
    const latchId = transition.latchId ?? 0;
    return {
      ...emptyFacts(`${trippedAt.replaceAll(':', '-')}-latch-${latchId}`, this.#options.robot),
      tripped_at: trippedAt,
      mode: transition.mode ?? '',
      latch_id: latchId,
      transition_id: transition.transitionId ?? 0,
      trace_id: transition.traceId ?? '',
      causes: describe(transition),
    };
  }
}

const NEVER = new AbortController().signal;

const emptyFacts = (id: string, robot: string): BoxFacts => ({
  id,
  robot,
  tripped_at: '',
  mode: '',
  latch_id: 0,
  transition_id: 0,
  trace_id: '',
  causes: [],
  also: [],
  from: '',
  to: '',
  samples: 0,
  cut_short: null,
  exported_at: null,
});

const describe = ({ causes }: Transition): string[] =>
  (causes ?? []).map(({ cause, action, detail }) => `${cause}: ${action}${detail ? `, ${detail}` : ''}`);

/** Facts as MCAP metadata, which is text only. */
function textFacts(facts: BoxFacts): Record<string, string> {
  const { robot, tripped_at, mode, latch_id, transition_id, trace_id, causes } = facts;
  const numbers = { latch_id: String(latch_id), transition_id: String(transition_id) };
  return { robot, tripped_at, mode, trace_id, ...numbers, causes: causes.join('\n') };
}
