import type { Comparison, Condition, FlapControl } from './rule.ts';

/** Missing data are no evidence that something held: a longer silence starts a hold anew. */
const SILENCE_MS_MAX = 10_000;

/** What a machine needs to know of its rule. */
export interface SignalSpec {
  readonly comparison: Comparison;
  /** How long the value must be beyond the limit. */
  readonly forMs: number;
  /** How often it must go there, and within how long. */
  readonly count: number;
  readonly withinMs: number;
  readonly clearForMs: number;
  readonly flapRaises: number;
  readonly flapWindowMs: number;
}

/** The spec of a condition that compares a signal; `undefined` for the others. */
export function signalSpecOf(condition: Condition, flap: FlapControl): SignalSpec | undefined {
  const shared = { clearForMs: flap.clearForS * 1000, flapRaises: flap.raises, flapWindowMs: flap.windowS * 1000 };
  switch (condition.kind) {
    case 'threshold':
      return { comparison: condition, forMs: 0, count: 1, withinMs: 0, ...shared };
    case 'duration':
      return { comparison: condition, forMs: condition.forS * 1000, count: 1, withinMs: 0, ...shared };
    case 'repetition': {
      const { comparison, count, withinS } = condition;
      return comparison && { comparison, forMs: 0, count, withinMs: withinS * 1000, ...shared };
    }
    case 'no_data':
    case 'anomaly':
    case 'failsafe':
    case 'offline':
      return undefined;
  }
}

/** Whether the value is past the limit. A missing value is not. */
export function isBeyond({ operator, value: limit }: Comparison, value: number): boolean {
  switch (operator) {
    case '>':
      return value > limit;
    case '>=':
      return value >= limit;
    case '<':
      return value < limit;
    case '<=':
      return value <= limit;
  }
}

/** Whether the value is back past the clear value. A missing value is not: what is unknown is never nominal. */
function isBack({ operator, value, clearValue }: Comparison, measured: number): boolean {
  const limit = clearValue ?? value;
  switch (operator) {
    case '>':
      return measured <= limit;
    case '>=':
      return clearValue === undefined ? measured < limit : measured <= limit;
    case '<':
      return measured >= limit;
    case '<=':
      return clearValue === undefined ? measured > limit : measured >= limit;
  }
}

export type MachineStep =
  | { readonly change: 'raise'; readonly atMs: number; readonly sinceMs: number; readonly isFlapping: boolean }
  | { readonly change: 'clear'; readonly atMs: number };

/**
 * Follows one value over its own time and says when its rule's condition comes true and when it is gone. It knows no
 * clock: time is what the samples say. Feed it in order of time.
 */
export class SignalMachine {
  readonly #spec: SignalSpec;
  /** Newest time looked at. */
  lastMs = Number.NEGATIVE_INFINITY;
  isActive = false;
  isFlapping = false;
  #raises: number[];
  #entries: number[] = [];
  #beyondSinceMs: number | undefined;
  #backSinceMs: number | undefined;
  /** Whether the value went past the limit and has not been back since. */
  #isOut = false;
  /** Whether a person closed the alert while the condition held: it must go away before it counts again. */
  #isMuted = false;

  /** @param raises When it was raised before, for the flap control. */
  constructor(spec: SignalSpec, raises: readonly number[] = []) {
    this.#spec = spec;
    this.#raises = [...raises];
  }

  /** Whether nothing is under way, so that values within the limit change nothing. */
  get isIdle(): boolean {
    return !this.isActive && !this.#isOut && this.#beyondSinceMs === undefined;
  }

  /** Takes over an alert that is open already. */
  adopt(isFlapping: boolean): void {
    this.isActive = true;
    this.isFlapping = isFlapping;
    this.#isOut = true;
  }

  /** The alert was closed elsewhere. @param mute By a person: what still holds then does not raise it again. */
  release(mute: boolean): void {
    this.isActive = false;
    this.isFlapping = false;
    this.#isMuted = mute && this.#isOut;
    this.#beyondSinceMs = undefined;
    this.#backSinceMs = undefined;
    this.#entries = [];
  }

  /** One value at its time. */
  step(atMs: number, value: number): MachineStep | undefined {
    const silenceMs = atMs - this.lastMs;
    this.lastMs = Math.max(this.lastMs, atMs);
    const beyond = isBeyond(this.#spec.comparison, value);
    const back = isBack(this.#spec.comparison, value);
    if (silenceMs > SILENCE_MS_MAX) {
      this.#beyondSinceMs = undefined;
      this.#backSinceMs = undefined;
    }
    if (!beyond) this.#beyondSinceMs = undefined;
    if (!back) this.#backSinceMs = undefined;
    const isEntry = beyond && !this.#isOut;
    if (beyond) this.#isOut = true;
    else if (back) {
      this.#isOut = false;
      this.#isMuted = false;
    }
    if (isEntry) this.#entries = [...this.#entries.filter((at) => at > atMs - this.#spec.withinMs), atMs];
    if (this.isActive) return back ? this.#stepBack(atMs) : undefined;
    return beyond && !this.#isMuted ? this.#stepBeyond(atMs) : undefined;
  }

  #stepBeyond(atMs: number): MachineStep | undefined {
    const { forMs, count, flapRaises, flapWindowMs } = this.#spec;
    this.#beyondSinceMs ??= atMs;
    if (atMs - this.#beyondSinceMs < forMs || (count > 1 && this.#entries.length < count)) return undefined;
    this.#raises = [...this.#raises.filter((at) => at > atMs - flapWindowMs), atMs];
    this.isActive = true;
    this.isFlapping = this.#raises.length > flapRaises;
    return { change: 'raise', atMs, sinceMs: this.#beyondSinceMs, isFlapping: this.isFlapping };
  }

  #stepBack(atMs: number): MachineStep | undefined {
    const { clearForMs, flapWindowMs, count, withinMs } = this.#spec;
    this.#backSinceMs ??= atMs;
    const quietMs = this.isFlapping ? flapWindowMs : count > 1 ? Math.max(clearForMs, withinMs) : clearForMs;
    if (atMs - this.#backSinceMs < quietMs) return undefined;
    const clearedMs = this.#backSinceMs;
    this.isActive = false;
    this.isFlapping = false;
    this.#entries = [];
    this.#backSinceMs = undefined;
    return { change: 'clear', atMs: clearedMs };
  }
}
