import { assertNever } from '../assert.ts';
import { stepCause, stepSilence, trippingChannel, unmetOf } from './channel.ts';
import { type FailsafeAction, type FailsafePhase, severity } from './modes.ts';
import { type CauseId, type CauseRule, type FailsafePolicy, TRIGGER_CAUSES } from './rules.ts';
import {
  type CauseReport,
  type CauseState,
  type FailsafeEvent,
  type FailsafeOutput,
  type FailsafeState,
  type RecoverAnswer,
  recoverNonce,
} from './state.ts';

const HOLD = severity('HOLD');
const DERATE = severity('DERATE');

/** A latched cause of at least HOLD keeps the gate closed. */
const isBlocking = (cause: CauseState | undefined, rule: CauseRule): boolean =>
  cause?.latched === true && severity(rule.action) >= HOLD;

/** Causes that only slow or warn and let go by themselves: no matter for a recovery, and it does not clear them. */
const isAside = (rule: CauseRule): boolean => rule.clearing === 'auto' && severity(rule.action) < HOLD;

/**
 * The failsafe: one step from a state by an event. Pure: no clock, no I/O, same answer every time.
 * SPEC.md beside this file has the states, the transitions and the invariants.
 */
export function evaluate(
  before: FailsafeState,
  event: FailsafeEvent,
  policy: FailsafePolicy,
): { readonly state: FailsafeState; readonly output: FailsafeOutput } {
  // Time never runs backwards here; an impossible time is a fault, not a reason to trust it.
  const isTimeSane = Number.isFinite(event.atMs);
  const nowMs = isTimeSane ? Math.max(before.nowMs, event.atMs) : before.nowMs;
  const seen = observe({ ...before, nowMs }, event, policy);
  const fault = event.kind === 'fault' ? event.detail : isTimeSane ? undefined : 'an event without a valid time';
  const latched = latchAsked(seen, event, fault);
  const released = releaseAuto(latched, policy);
  const rising = released.causes.filter((cause, i) => cause.latched && !before.causes[i]?.latched);
  const isStopping = policy.rules.some((rule, i) => isBlocking(released.causes[i], rule) && !before.causes[i]?.latched);
  const moved = movePhase(released, event, isStopping, policy);
  const state = rising.length > 0 ? { ...moved.state, latchId: before.latchId + 1 } : moved.state;
  const output = describe(state, policy);
  return {
    state,
    output: {
      ...output,
      rising: rising.map((cause) => cause.cause),
      changed: hasChanged(before, state),
      ...(moved.recover && { recover: moved.recover }),
      ...(moved.abandoned && { abandoned: moved.abandoned }),
    },
  };
}

/** Takes in what the event says about the world. */
function observe(state: FailsafeState, event: FailsafeEvent, policy: FailsafePolicy): FailsafeState {
  const isArmed = state.phase === 'ARMED';
  switch (event.kind) {
    case 'readings': {
      const causes = [...state.causes];
      for (const reading of event.readings) {
        const i = causes.findIndex((cause) => cause.cause === reading.cause);
        const cause = causes[i];
        // Latched reading by reading: a good one later in the same batch must not drain what has tripped.
        if (cause)
          causes[i] = latchTripped(stepCause(cause, reading, isArmed, state.nowMs, policy), state.nowMs, policy);
      }
      return { ...state, causes };
    }
    case 'actuator':
      return { ...state, mcu: event.mcu, standstill: event.standstill };
    case 'tick':
      // Outside ARMED silence only blocks a recovery: it would latch causes whose line was merely unplugged.
      if (!isArmed) return state;
      return {
        ...state,
        causes: state.causes.map((cause, i) => {
          const rule = policy.rules[i];
          return rule ? latchTripped(stepSilence(cause, rule, state.nowMs, policy), state.nowMs, policy) : cause;
        }),
      };
    case 'trigger':
    case 'recover':
    case 'stored':
    case 'store_failed':
    case 'fault':
      return state;
    default:
      return assertNever(event);
  }
}

/** Latches a cause whose counter has reached the trip level. */
function latchTripped(cause: CauseState, nowMs: number, policy: FailsafePolicy): CauseState {
  const trip = cause.latched ? undefined : trippingChannel(cause, policy);
  return trip ? { ...cause, latched: true, latchedAtMs: nowMs, detail: trip.detail } : cause;
}

/** Latches what was asked for. */
function latchAsked(state: FailsafeState, event: FailsafeEvent, fault: string | undefined): FailsafeState {
  let latched = state;
  if (event.kind === 'trigger') latched = latch(latched, TRIGGER_CAUSES[event.mode], event.detail);
  if (event.kind === 'store_failed' && state.phase === 'RECOVERING')
    latched = latch(latched, 'unknown_state', event.detail);
  if (fault !== undefined) latched = latch(latched, 'guard_fault', fault);
  return latched;
}

/** A request for what is latched already only starts its dwell again. */
const latch = (state: FailsafeState, cause: CauseId, detail: string): FailsafeState => ({
  ...state,
  causes: state.causes.map((held) =>
    held.cause === cause
      ? { ...held, latched: true, latchedAtMs: state.nowMs, detail: held.latched ? held.detail : detail }
      : held,
  ),
});

/** Lets go of latches that need no recovery. The phase stays, so motion never resumes by it. */
function releaseAuto(state: FailsafeState, policy: FailsafePolicy): FailsafeState {
  const isOver = (cause: CauseState, rule: CauseRule | undefined): boolean =>
    cause.latched && rule?.clearing === 'auto' && unmetOf(cause, rule, state.nowMs) === undefined;
  if (!state.causes.some((cause, i) => isOver(cause, policy.rules[i]))) return state;
  const causes = state.causes.map((cause, i) =>
    isOver(cause, policy.rules[i]) ? { ...cause, latched: false, detail: '' } : cause,
  );
  return { ...state, causes };
}

interface Moved {
  readonly state: FailsafeState;
  readonly recover?: RecoverAnswer;
  readonly abandoned?: readonly string[];
}

function movePhase(state: FailsafeState, event: FailsafeEvent, isStopping: boolean, policy: FailsafePolicy): Moved {
  const isBlocked = policy.rules.some((rule, i) => isBlocking(state.causes[i], rule));
  switch (state.phase) {
    case 'BOOT':
    case 'LATCHED': {
      const closed = isBlocked ? enter(state, 'LATCHED') : state;
      return event.kind === 'recover' ? recover(closed, event, policy) : { state: closed };
    }
    case 'RECOVERING': {
      const answer = event.kind === 'recover' ? refuse('phase', 'a recovery is already under way') : {};
      const unmet = recoveryProblems(state, event, isStopping, policy);
      if (unmet.length > 0) return { ...answer, state: enter(state, isBlocked ? 'LATCHED' : 'BOOT'), abandoned: unmet };
      const isStored =
        event.kind === 'stored' && event.latchId === state.latchId && event.motionEpoch === state.motionEpoch + 1;
      return { ...answer, state: isStored ? open(state, policy) : state };
    }
    case 'ARMED': {
      const answer = event.kind === 'recover' ? refuse('phase', 'nothing to recover: the robot is armed') : {};
      return { ...answer, state: isBlocked ? enter(state, 'LATCHED') : endReturn(state, policy) };
    }
  }
}

/** Answers a recovery. Any attempt that quotes the nonce uses it up, so none can be replayed later. */
function recover(
  given: FailsafeState,
  event: FailsafeEvent & { readonly kind: 'recover' },
  policy: FailsafePolicy,
): Moved {
  if (event.nonce !== recoverNonce(given)) return { state: given, ...refuse('nonce', 'the nonce is unknown or used') };
  const state = { ...given, noncesUsed: given.noncesUsed + 1 };
  if (event.latchId !== state.latchId)
    return { state, ...refuse('latch_id', `latch ${event.latchId} is not the present one, ${state.latchId}`) };
  const unmet = unmetConditions(state, event.local, policy);
  if (unmet.length > 0) return { state, recover: { kind: 'unmet', unmet } };
  return { state: enter(state, 'RECOVERING'), recover: { kind: 'accepted' } };
}

const refuse = (why: 'phase' | 'latch_id' | 'nonce', message: string): { readonly recover: RecoverAnswer } => ({
  recover: { kind: 'conflict', why, message },
});

/** The recovery checklist: every condition that is not met, one sentence each. */
export function unmetConditions(state: FailsafeState, local: boolean, policy: FailsafePolicy): string[] {
  const unmet: string[] = [];
  for (const [cause, rule] of zip(state, policy)) {
    if (isAside(rule)) continue;
    const sentence = unmetOf(cause, rule, state.nowMs);
    if (sentence !== undefined) unmet.push(sentence);
    if (cause.latched && rule.clearing === 'local' && !local) unmet.push(`${rule.cause}: must be reset at the robot`);
  }
  if (state.mcu !== 'STOPPED') unmet.push(`the microcontroller does not confirm the stop: ${state.mcu}`);
  if (!state.standstill) unmet.push('the joints do not stand still');
  return unmet;
}

/** Why a recovery under way cannot go on. The local reset was checked when it was accepted. */
function recoveryProblems(
  state: FailsafeState,
  event: FailsafeEvent,
  isStopping: boolean,
  policy: FailsafePolicy,
): string[] {
  const unmet = unmetConditions(state, true, policy);
  // A cause without a dwell would be met again at once, and this recovery never asked for it.
  if (isStopping || event.kind === 'trigger') unmet.push('the robot was stopped again meanwhile');
  if (state.nowMs - state.phaseSinceMs > policy.recoveryMsMax)
    unmet.push(`the recovery took longer than ${policy.recoveryMsMax} ms`);
  if (event.kind === 'store_failed') unmet.push(`the latch store could not be written: ${event.detail}`);
  return unmet;
}

/** Opens the gate: the only place where that happens. */
function open(state: FailsafeState, policy: FailsafePolicy): FailsafeState {
  const causes = zip(state, policy).map(([cause, rule]) =>
    isAside(rule) ? cause : { ...cause, latched: false, detail: '' },
  );
  const returning = isOutside(state, policy);
  return { ...enter(state, 'ARMED'), causes, returning, motionEpoch: state.motionEpoch + 1 };
}

/** Lets the robot move freely again once it has been back for the dwell. */
const endReturn = (state: FailsafeState, policy: FailsafePolicy): FailsafeState => ({
  ...state,
  returning: state.returning && isOutside(state, policy),
});

/** Whether a channel of a cause that lets the robot return has not been clear for the dwell. */
const isOutside = (state: FailsafeState, policy: FailsafePolicy): boolean =>
  zip(state, policy).some(([cause, rule]) => rule.mayReturn && !isInside(cause, rule, state.nowMs));

/** Whether every channel of a cause has been clear for the dwell. */
const isInside = (cause: CauseState, rule: CauseRule, nowMs: number): boolean =>
  Object.values(cause.channels).every(
    ({ clearSinceMs = Number.POSITIVE_INFINITY }) => nowMs - clearSinceMs >= rule.clearDwellMs,
  );

const enter = (state: FailsafeState, phase: FailsafePhase): FailsafeState =>
  state.phase === phase ? state : { ...state, phase, phaseSinceMs: state.nowMs, returning: false };

/** What a state means for the robot: gate, action, mode, latched causes. */
export function describe(
  state: FailsafeState,
  policy: FailsafePolicy,
): Pick<FailsafeOutput, 'gateOpen' | 'action' | 'mode' | 'causes' | 'speedFactor' | 'inwardOnly'> {
  const gateOpen = state.phase === 'ARMED';
  const causes: CauseReport[] = [];
  let worst: CauseRule | undefined;
  policy.rules.forEach((rule, i) => {
    const cause = state.causes[i];
    if (!cause?.latched) return;
    if (!worst || severity(rule.action) > severity(worst.action)) worst = rule;
    const { detail, latchedAtMs: sinceMs } = cause;
    causes.push({ cause: cause.cause, action: rule.action, latched: true, detail, sinceMs });
  });
  const floor: FailsafeAction = gateOpen ? 'NONE' : 'HOLD';
  const action = worst && severity(worst.action) > severity(floor) ? worst.action : floor;
  const speedFactor = !gateOpen ? 0 : severity(action) >= DERATE ? policy.derateSpeedFactor : 1;
  return { gateOpen, action, mode: worst?.mode ?? '', speedFactor, inwardOnly: gateOpen && state.returning, causes };
}

/** A new latch_id comes with a new latch, and a new motion epoch with a new phase. */
function hasChanged(before: FailsafeState, after: FailsafeState): boolean {
  return (
    before.phase !== after.phase ||
    before.returning !== after.returning ||
    before.causes.some((cause, i) => cause.latched !== after.causes[i]?.latched)
  );
}

/** Causes with their rules; both are in table order. */
function zip(state: FailsafeState, policy: FailsafePolicy): [CauseState, CauseRule][] {
  const pairs: [CauseState, CauseRule][] = [];
  policy.rules.forEach((rule, i) => {
    const cause = state.causes[i];
    if (cause) pairs.push([cause, rule]);
  });
  return pairs;
}
