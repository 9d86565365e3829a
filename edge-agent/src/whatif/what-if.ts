import { classifyStream, type LivenessLimits } from '@outrider/shared/failsafe/classify-liveness';
import { signalsOf } from '@outrider/shared/failsafe/classify-signals';
import { evaluate } from '@outrider/shared/failsafe/evaluate';
import { gateOf, type JudgeLimits, SignalJudge } from '@outrider/shared/failsafe/judge';
import { type FailsafeAction, severity } from '@outrider/shared/failsafe/modes';
import type { CauseId, FailsafePolicy } from '@outrider/shared/failsafe/rules';
import {
  bootState,
  type FailsafeEvent,
  type FailsafeState,
  type Reading,
  type Verdict,
} from '@outrider/shared/failsafe/state';
import type { Sample } from '@outrider/shared/telemetry';

/** A policy, ready to be run. */
export interface WhatIfPolicy {
  readonly policy: FailsafePolicy;
  readonly signals: JudgeLimits;
  readonly liveness: LivenessLimits;
  /** Streams without which the robot must not move. */
  readonly requiredStreams: readonly string[];
}

/** Something that the failsafe would have done. */
export interface TimelineEntry {
  /** Since the recording's first sample. [s] */
  readonly atS: number;
  /** Recorded time. [ns since 1970] */
  readonly atNs: bigint;
  readonly kind: 'latched' | 'released';
  readonly cause: CauseId;
  readonly action: FailsafeAction;
  /** What the robot would have reported. */
  readonly mode: string;
  readonly why: string;
  /** This is what would have stopped it: it was moving until then. */
  readonly isStop: boolean;
}

export interface WhatIfResult {
  readonly timeline: readonly TimelineEntry[];
  readonly samples: number;
  readonly durationS: number;
  /** When the robot would have been stopped; `undefined` when it would not. [s] */
  readonly stoppedAtS: number | undefined;
  /** How often each cause got a reading that was not good. */
  readonly readings: Readonly<Partial<Record<CauseId, Readonly<Partial<Record<Verdict, number>>>>>>;
  /** What each stream's rate was taken to be. [Hz] */
  readonly ratesHz: Readonly<Record<string, number>>;
}

/** The guard's own period. [ms] */
const TICK_MS = 20;
/** A pause this long has latched whatever it can; the rest of it is skipped. [ms] */
const PAUSE_MS_MAX = 60_000;
const HOLD = severity('HOLD');
const NS_PER_MS = 1e6;
const NOTHING_LATCHED = { latchId: 0, motionEpoch: 0, latched: [] };

/**
 * Runs the robot's own rules over a recording, in recorded time: the judge and the evaluator that the guard runs, at
 * the guard's period. The robot is taken to be armed at the first sample. Microcontroller, emergency-stop lines and
 * agent are not in a recording and are left out.
 */
export class WhatIf {
  readonly #given: WhatIfPolicy;
  readonly #judge: SignalJudge;
  readonly #ratesHz: ReadonlyMap<string, number>;
  readonly #lastMs = new Map<string, number>();
  readonly #timeline: TimelineEntry[] = [];
  readonly #readings: Partial<Record<CauseId, Partial<Record<Verdict, number>>>> = {};
  #state: FailsafeState;
  #startNs: bigint | undefined;
  #nowMs = 0;
  #tickedMs = 0;
  #samples = 0;
  #stoppedAtS: number | undefined;

  /** @param ratesHz What each stream promises, where its samples do not say. */
  constructor(given: WhatIfPolicy, ratesHz: ReadonlyMap<string, number>) {
    this.#given = given;
    this.#judge = new SignalJudge(given.signals);
    this.#ratesHz = ratesHz;
    const boot = bootState(given.policy, NOTHING_LATCHED, undefined, 0, 'what-if');
    this.#state = { ...boot, phase: 'ARMED', motionEpoch: 1, mcu: 'ARMED' };
  }

  /** Samples in the order of their reception. */
  add(sample: Sample): void {
    this.#startNs ??= sample.receivedNs;
    const atMs = Math.max(this.#nowMs, Number(sample.receivedNs - this.#startNs) / NS_PER_MS);
    this.#advance(atMs);
    this.#nowMs = atMs;
    this.#samples += 1;
    const { stream, declaredRateHz } = sample.layout;
    const rateHz = declaredRateHz || (this.#ratesHz.get(stream) ?? 0);
    const signals = signalsOf(sample, stream.startsWith('mcu/'));
    const readings = this.#judge.judge(signals, atMs, rateHz, gateOf(this.#state));
    const isRelied = readings.length > 0 || this.#given.requiredStreams.includes(stream);
    if (isRelied) this.#lastMs.set(stream, atMs);
    if (readings.length > 0) this.#take(readings, atMs);
  }

  /** What happened up to the last sample. */
  finish(): WhatIfResult {
    return {
      timeline: this.#timeline,
      samples: this.#samples,
      durationS: this.#nowMs / 1000,
      stoppedAtS: this.#stoppedAtS,
      readings: this.#readings,
      ratesHz: Object.fromEntries(this.#ratesHz),
    };
  }

  /** Lets time pass in the guard's steps, up to the next sample. */
  #advance(atMs: number): void {
    if (atMs - this.#tickedMs > PAUSE_MS_MAX) {
      this.#advance(this.#tickedMs + PAUSE_MS_MAX);
      this.#tickedMs = atMs - (atMs % TICK_MS);
    }
    while (this.#tickedMs + TICK_MS <= atMs) {
      this.#tickedMs += TICK_MS;
      this.#tick(this.#tickedMs);
    }
  }

  #tick(nowMs: number): void {
    const { liveness, requiredStreams } = this.#given;
    const watched = new Set([...requiredStreams, ...this.#lastMs.keys()]);
    const readings = [...watched].map((stream) =>
      classifyStream(stream, this.#lastMs.get(stream), this.#ratesHz.get(stream) ?? 0, 0, nowMs, liveness),
    );
    // While ARMED a stream that never came is unknown at once; a recording may begin with another one.
    const heard = readings.filter(({ verdict }) => verdict !== 'pending');
    if (heard.length > 0) this.#take(heard, nowMs);
    this.#step({ kind: 'tick', atMs: nowMs });
  }

  #take(readings: readonly Reading[], atMs: number): void {
    for (const { cause, verdict } of readings) {
      if (verdict === 'clear') continue;
      const counts = this.#readings[cause] ?? {};
      this.#readings[cause] = { ...counts, [verdict]: (counts[verdict] ?? 0) + 1 };
    }
    this.#step({ kind: 'readings', atMs, readings });
  }

  #step(event: FailsafeEvent): void {
    const before = this.#state;
    const { state, output } = evaluate(before, event, this.#given.policy);
    this.#state = state;
    if (!output.changed) return;
    const wasMoving = before.phase === 'ARMED';
    let isStop = wasMoving && state.phase !== 'ARMED';
    if (isStop) this.#stoppedAtS ??= event.atMs / 1000;
    for (const [i, rule] of this.#given.policy.rules.entries()) {
      const cause = state.causes[i];
      const wasLatched = before.causes[i]?.latched === true;
      if (!cause || cause.latched === wasLatched) continue;
      const stops = isStop && cause.latched && severity(rule.action) >= HOLD;
      if (stops) isStop = false;
      this.#timeline.push({
        atS: event.atMs / 1000,
        atNs: (this.#startNs ?? 0n) + BigInt(Math.round(event.atMs * NS_PER_MS)),
        kind: cause.latched ? 'latched' : 'released',
        cause: rule.cause,
        action: rule.action,
        mode: rule.mode,
        why: cause.latched ? cause.detail : 'clear for its dwell time',
        isStop: stops,
      });
    }
  }
}
