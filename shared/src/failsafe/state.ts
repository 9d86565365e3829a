import type { FailsafeAction, FailsafeMode, FailsafePhase, ReportedMode } from './modes.ts';
import type { CauseId, FailsafePolicy } from './rules.ts';

/**
 * What one reading says about one cause.
 * - `clear`: good, and good enough to let go of a latch (below the hysteresis).
 * - `fair`: good, but not enough to let go.
 * - `bad`: counts towards a trip.
 * - `severe`: trips at once.
 * - `unknown`: NaN, infinite, physically impossible or missing. Counts like `bad`.
 * - `pending`: nothing was measured yet since the guard started. Blocks a recovery; unknown while ARMED.
 */
export const VERDICTS = ['clear', 'fair', 'bad', 'severe', 'unknown', 'pending'] as const;
export type Verdict = (typeof VERDICTS)[number];

/** One classified reading. */
export interface Reading {
  readonly cause: CauseId;
  /** Which evidence it is: a stream, a line. Each has its own counter, so a fast one cannot hide a slow one. */
  readonly channel: string;
  readonly verdict: Verdict;
  /** For people: `knee_left 96.2 C`. */
  readonly detail: string;
}

/** What the microcontroller says of itself. */
export const MCU_STATES = ['UNKNOWN', 'SILENT', 'STOPPED', 'HOLDING', 'ARMED'] as const;
export type McuState = (typeof MCU_STATES)[number];

/** Everything that can happen. `atMs` is monotonic. [ms] */
export type FailsafeEvent =
  | { readonly kind: 'tick'; readonly atMs: number }
  | { readonly kind: 'readings'; readonly atMs: number; readonly readings: readonly Reading[] }
  /** What the actuators do: the microcontroller's state, and whether everything stands still. */
  | { readonly kind: 'actuator'; readonly atMs: number; readonly mcu: McuState; readonly standstill: boolean }
  | { readonly kind: 'trigger'; readonly atMs: number; readonly mode: FailsafeMode; readonly detail: string }
  | {
      readonly kind: 'recover';
      readonly atMs: number;
      readonly latchId: number;
      readonly nonce: string;
      /** Given at the robot itself. */
      readonly local: boolean;
    }
  /** The latch store holds this on disk now. */
  | { readonly kind: 'stored'; readonly atMs: number; readonly latchId: number; readonly motionEpoch: number }
  | { readonly kind: 'store_failed'; readonly atMs: number; readonly detail: string }
  /** Something was thrown where nothing may be thrown. */
  | { readonly kind: 'fault'; readonly atMs: number; readonly detail: string };

/** One line of evidence for one cause. */
export interface ChannelState {
  readonly counter: number;
  readonly verdict: Verdict;
  readonly atMs: number;
  /** Since when every reading was clear; `undefined` while the last one was not. */
  readonly clearSinceMs: number | undefined;
  readonly detail: string;
}

export interface CauseState {
  readonly cause: CauseId;
  readonly latched: boolean;
  /** When it was latched or asked for again; the dwell starts no earlier. */
  readonly latchedAtMs: number;
  /** Why it is latched. */
  readonly detail: string;
  readonly channels: Readonly<Record<string, ChannelState>>;
}

/** The whole state of the failsafe. Plain data; nothing but `evaluate` and `bootState` makes one. */
export interface FailsafeState {
  readonly phase: FailsafePhase;
  /** Rises by one whenever a cause is newly latched. */
  readonly latchId: number;
  /** Rises by one whenever the gate opens. Commands carry it, so an old one cannot move the robot. */
  readonly motionEpoch: number;
  /** Same order as the policy's rules. */
  readonly causes: readonly CauseState[];
  readonly mcu: McuState;
  readonly standstill: boolean;
  /** Armed outside the geofence: only motion inwards is allowed, until it has been inside for the dwell. */
  readonly returning: boolean;
  readonly nowMs: number;
  /** When the present phase began. */
  readonly phaseSinceMs: number;
  /** Random at each boot; with the count it makes the one nonce that the next recovery must quote. */
  readonly nonceSeed: string;
  readonly noncesUsed: number;
}

/** What must survive a power loss. */
export interface DurableState {
  readonly latchId: number;
  readonly motionEpoch: number;
  readonly latched: readonly { readonly cause: CauseId; readonly detail: string }[];
}

/** A cause as told to people. */
export interface CauseReport {
  readonly cause: CauseId;
  readonly action: FailsafeAction;
  readonly latched: boolean;
  readonly detail: string;
  readonly sinceMs: number;
}

export type RecoverAnswer =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'conflict'; readonly why: 'phase' | 'latch_id' | 'nonce'; readonly message: string }
  | { readonly kind: 'unmet'; readonly unmet: readonly string[] };

/** What follows from a state, and what has just changed. */
export interface FailsafeOutput {
  readonly gateOpen: boolean;
  /** The worst latched action; at least HOLD while the gate is closed. */
  readonly action: FailsafeAction;
  /** Mode of the first latched cause that has the worst action; empty when nothing is latched. */
  readonly mode: ReportedMode | '';
  /** Fraction of its speed that the robot may use: 0 with a closed gate, 1 when nothing is latched. */
  readonly speedFactor: number;
  /** Only motion back into the geofence is allowed, at most at `policy.inwardSpeedMaxMps`. */
  readonly inwardOnly: boolean;
  /** Latched causes in table order. */
  readonly causes: readonly CauseReport[];
  /** Causes newly latched by this event. */
  readonly rising: readonly CauseId[];
  /** Phase, latched set or motion epoch differ from before: something to persist and to report. */
  readonly changed: boolean;
  /** Only for a `recover` event. */
  readonly recover?: RecoverAnswer;
  /** Why a recovery under way was given up by this event. */
  readonly abandoned?: readonly string[];
}

/** The one nonce that the next recovery must quote. Every attempt that quotes it uses it up. */
export const recoverNonce = (state: FailsafeState): string => `${state.nonceSeed}-${state.noncesUsed}`;

/**
 * The state after a start. Always closed; latches are those that were stored.
 *
 * @param damage Why the stored latches cannot be trusted whole; latches `unknown_state` on top of what was read.
 * @param nonceSeed Random and new at each boot, so that no nonce of an earlier boot is ever valid again.
 */
export function bootState(
  policy: FailsafePolicy,
  stored: DurableState,
  damage: string | undefined,
  atMs: number,
  nonceSeed: string,
): FailsafeState {
  const known = new Set(policy.rules.map((rule) => rule.cause));
  const held = new Map(stored.latched.map(({ cause, detail }) => [cause, detail]));
  const foreign = stored.latched.filter(({ cause }) => !known.has(cause)).map(({ cause }) => cause);
  const doubt = damage ?? (foreign.length > 0 ? `causes that this version does not know: ${foreign.join(', ')}` : '');
  const isNewDoubt = doubt !== '' && !held.has('unknown_state');
  if (isNewDoubt) held.set('unknown_state', doubt);
  const causes = policy.rules.map(({ cause }): CauseState => {
    const detail = held.get(cause);
    return { cause, latched: detail !== undefined, latchedAtMs: atMs, detail: detail ?? '', channels: {} };
  });
  return {
    phase: causes.some((cause) => cause.latched) ? 'LATCHED' : 'BOOT',
    latchId: stored.latchId + (isNewDoubt ? 1 : 0),
    motionEpoch: stored.motionEpoch,
    causes,
    mcu: 'UNKNOWN',
    standstill: false,
    returning: false,
    nowMs: atMs,
    phaseSinceMs: atMs,
    nonceSeed,
    noncesUsed: 0,
  };
}

/**
 * What to write to the latch store. During a recovery it is already the state after the opening: the gate opens
 * only once that is on disk, so no motion epoch is ever given twice.
 */
export function durableState(state: FailsafeState): DurableState {
  if (state.phase === 'RECOVERING') return { latchId: state.latchId, motionEpoch: state.motionEpoch + 1, latched: [] };
  const latched = state.causes.filter((cause) => cause.latched).map(({ cause, detail }) => ({ cause, detail }));
  return { latchId: state.latchId, motionEpoch: state.motionEpoch, latched };
}
