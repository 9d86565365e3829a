import { severity } from '../modes.ts';
import type { CauseRule, FailsafePolicy } from '../rules.ts';
import {
  type DurableState,
  type FailsafeEvent,
  type FailsafeOutput,
  type FailsafeState,
  recoverNonce,
  type Verdict,
} from '../state.ts';

/** One step that was taken. */
export interface Step {
  readonly before: FailsafeState;
  readonly event: FailsafeEvent;
  readonly after: FailsafeState;
  readonly output: FailsafeOutput;
}

const isAside = (rule: CauseRule | undefined): boolean =>
  rule?.clearing === 'auto' && severity(rule.action) < severity('HOLD');

const worst = (state: FailsafeState, policy: FailsafePolicy): number =>
  Math.max(0, ...policy.rules.map((rule, i) => (state.causes[i]?.latched ? severity(rule.action) : 0)));

/** The invariants of SPEC.md that a single step can break. Returns the broken ones. */
export function brokenInvariants({ before, event, after, output }: Step, policy: FailsafePolicy): string[] {
  const broken: string[] = [];
  const must = (holds: boolean, invariant: string): void => {
    if (!holds) broken.push(`${invariant} (${before.phase} --${event.kind}--> ${after.phase})`);
  };
  const worstLatched = worst(after, policy);
  const latchedBefore = before.causes.map((cause) => cause.latched);
  const rising = after.causes.filter((cause, i) => cause.latched && !latchedBefore[i]);

  must(!output.gateOpen || worstLatched < severity('HOLD'), 'I1 gate open under a latched cause');
  must(output.gateOpen === (after.phase === 'ARMED'), 'I1 gate and phase differ');

  const floor = output.gateOpen ? severity('NONE') : severity('HOLD');
  must(severity(output.action) === Math.max(worstLatched, floor), 'I2 action is not the worst');
  const first = policy.rules.find((rule, i) => after.causes[i]?.latched && severity(rule.action) === worstLatched);
  must(output.mode === (first?.mode ?? ''), 'I2 mode is not that of the first worst cause');

  const isOpening = before.phase !== 'ARMED' && after.phase === 'ARMED';
  policy.rules.forEach((rule, i) => {
    const isReleased = latchedBefore[i] && !after.causes[i]?.latched;
    must(!isReleased || rule.clearing === 'auto' || isOpening, 'I3 a latch was let go without a recovery');
  });
  must(
    !isOpening || after.causes.every((cause, i) => !cause.latched || isAside(policy.rules[i])),
    'I3 partial clearing',
  );
  must(
    !isOpening || policy.rules.every((rule, i) => !isAside(rule) || latchedBefore[i] === after.causes[i]?.latched),
    'I21 a recovery cleared what only slows or warns',
  );
  const isSlow = worstLatched >= severity('DERATE');
  const factor = output.gateOpen ? (isSlow ? policy.derateSpeedFactor : 1) : 0;
  must(output.speedFactor === factor, 'I20 speed factor');
  must(!output.inwardOnly || output.gateOpen, 'I22 inwards with a closed gate');
  const mayBeOut = policy.rules.some(
    (rule, i) => rule.mayReturn && Object.values(before.causes[i]?.channels ?? {}).some((c) => c.verdict !== 'clear'),
  );
  must(!isOpening || !mayBeOut || output.inwardOnly, 'I22 opened outside and free to move anywhere');

  const isStored =
    event.kind === 'stored' && event.latchId === before.latchId && event.motionEpoch === before.motionEpoch + 1;
  must(!isOpening || (before.phase === 'RECOVERING' && isStored), 'I4 the gate opened without a completed recovery');
  must(!isOpening || rising.length === 0, 'I4 the gate opened while a cause rose');
  must(after.motionEpoch - before.motionEpoch === (isOpening ? 1 : 0), 'I12 motion epoch');

  after.causes.forEach((cause) => {
    const trips = Object.values(cause.channels).some((channel) => channel.counter >= policy.counter.trip);
    must(!trips || cause.latched, 'I5 a tripped counter did not latch');
  });
  must(after.latchId - before.latchId === (rising.length > 0 ? 1 : 0), 'I7 latch_id');
  must(after.nowMs >= before.nowMs, 'I8 time went backwards');
  const isOther =
    before.phase !== after.phase ||
    before.latchId !== after.latchId ||
    before.motionEpoch !== after.motionEpoch ||
    before.returning !== after.returning ||
    after.causes.some((cause, i) => cause.latched !== latchedBefore[i]);
  must(output.changed === isOther, 'I25 a change is not said, or said where there is none');
  must(before.phase === 'RECOVERING' || output.abandoned === undefined, 'I25 nothing was given up');

  const isAccepted = before.phase !== 'RECOVERING' && after.phase === 'RECOVERING';
  if (isAccepted && event.kind === 'recover') {
    must(before.phase === 'BOOT' || before.phase === 'LATCHED', 'I15 recovery accepted in another phase');
    must(event.latchId === before.latchId, 'I3 recovery with another latch_id');
    must(event.nonce === recoverNonce(before), 'I13 recovery with a used or unknown nonce');
    const needsLocal = policy.rules.some((rule, i) => latchedBefore[i] && rule.clearing === 'local');
    must(event.local || !needsLocal, 'I3 a remote recovery took a local cause');
    policy.rules.forEach((rule, i) => {
      if (isAside(rule)) return;
      const channels = Object.values(before.causes[i]?.channels ?? {});
      const latched = latchedBefore[i];
      if (rule.monitored) {
        must(channels.length > 0 || rule.optional === true, 'I17 recovery without a reading');
        must(
          channels.every((channel) => channel.counter === 0 && before.nowMs - channel.atMs <= rule.freshMs),
          'I17 recovery on an old or unsettled reading',
        );
        const isGood = (verdict: Verdict): boolean =>
          verdict === 'clear' || (rule.mayReturn === true && verdict === 'fair');
        must(!latched || channels.every((channel) => isGood(channel.verdict)), 'I17 recovery while not clear');
      }
      const since = Math.max(before.causes[i]?.latchedAtMs ?? 0, ...channels.map((c) => c.clearSinceMs ?? 0));
      must(!latched || before.nowMs - since >= rule.clearDwellMs, 'I17 recovery before the dwell');
    });
    must(before.mcu === 'STOPPED' && before.standstill, 'I17 recovery while something moves');
  } else must(!isAccepted, 'I4 recovering without a recover');
  if (event.kind === 'recover' && event.nonce === recoverNonce(before) && before.phase !== 'RECOVERING')
    must(before.phase === 'ARMED' || recoverNonce(after) !== event.nonce, 'I13 an attempt left its nonce valid');

  const isInterrupted = event.kind === 'trigger' || event.kind === 'fault' || event.kind === 'store_failed';
  if (before.phase === 'RECOVERING' && isInterrupted)
    must(after.phase === 'LATCHED', 'I18 a recovery went on after a stop');
  if (event.kind === 'trigger') must(after.phase !== 'ARMED' && worstLatched > 0, 'I18 a trigger did not latch');
  if (event.kind === 'fault') must(after.phase === 'LATCHED', 'I18 a fault did not latch');
  const isBlocked = worstLatched >= severity('HOLD');
  must(!isBlocked || after.phase === 'LATCHED' || after.phase === 'RECOVERING', 'I19 phase does not show the latch');
  must(before.phase === 'BOOT' || after.phase !== 'BOOT' || before.phase === 'RECOVERING', 'I19 went back to BOOT');
  return broken;
}

/** The invariants of a restart. */
export function brokenByRestart(disk: DurableState, after: FailsafeState): string[] {
  const broken: string[] = [];
  if (after.phase !== 'BOOT' && after.phase !== 'LATCHED') broken.push('I9 booted open');
  for (const { cause } of disk.latched)
    if (!after.causes.some((held) => held.cause === cause && held.latched)) broken.push(`I9 lost latch ${cause}`);
  if (after.motionEpoch < disk.motionEpoch || after.latchId < disk.latchId) broken.push('I9 counters went back');
  return broken;
}
