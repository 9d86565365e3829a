import { describe, evaluate } from '../evaluate.ts';
import { type FailsafeAction, severity } from '../modes.ts';
import { CAUSE_RULES, type CauseId, type CauseRule, DEFAULT_POLICY, type FailsafePolicy } from '../rules.ts';
import {
  bootState,
  type DurableState,
  durableState,
  type FailsafeEvent,
  type FailsafeState,
  type Reading,
  recoverNonce,
  type Verdict,
} from '../state.ts';

/** What the checks drive: the real functions, or a copy with a fault seeded into it. */
export interface System {
  readonly boot: typeof bootState;
  readonly evaluate: typeof evaluate;
  readonly describe: typeof describe;
  readonly durable: typeof durableState;
}

export const REAL_SYSTEM: System = { boot: bootState, evaluate, describe, durable: durableState };

/** Latches that were never set. */
export const EMPTY: DurableState = { latchId: 7, motionEpoch: 3, latched: [] };

/** The policy of the checks: real rules, with dwell times short enough to enumerate. [ms] */
export function checkPolicy(rules: readonly CauseRule[], clearDwellMs: number, freshMs: number): FailsafePolicy {
  return {
    ...DEFAULT_POLICY,
    rules: rules.map((rule) => ({ ...rule, freshMs, clearDwellMs: rule.clearDwellMs === 0 ? 0 : clearDwellMs })),
    recoveryMsMax: 2,
  };
}

export const ruleOf = (cause: CauseId): CauseRule => {
  const rule = CAUSE_RULES.find((candidate) => candidate.cause === cause);
  if (!rule) throw new Error(`no rule for ${cause}`);
  return rule;
};

/** What only slows or warns and lets go by itself. */
export const isAside = (rule: CauseRule): boolean =>
  rule.clearing === 'auto' && severity(rule.action) < severity('HOLD');

/** Rows that the shipped table does not have yet, so that `auto` is checked before it is needed. */
export function autoRule(name: string, action: FailsafeAction): CauseRule {
  return { ...ruleOf('source_stale'), cause: name as CauseId, action, clearing: 'auto' };
}

export const reading = (cause: CauseId, verdict: Verdict, channel = 'a'): Reading => ({
  cause,
  channel,
  verdict,
  detail: `${cause} ${verdict}`,
});

/** One clear reading for every monitored cause. */
export const allClear = (policy: FailsafePolicy): Reading[] =>
  policy.rules.filter((rule) => rule.monitored).map((rule) => reading(rule.cause, 'clear'));

/** Steps a system through events, from a boot with nothing latched unless told otherwise. */
export class Walk {
  readonly #system: System;
  readonly #policy: FailsafePolicy;
  state: FailsafeState;

  constructor(system: System, policy: FailsafePolicy, stored: DurableState = EMPTY) {
    this.#system = system;
    this.#policy = policy;
    this.state = system.boot(policy, stored, undefined, 0, 'seed');
  }

  step(event: FailsafeEvent): ReturnType<typeof evaluate>['output'] {
    const next = this.#system.evaluate(this.state, event, this.#policy);
    this.state = next.state;
    return next.output;
  }

  /** Makes everything clear for `forMs`, in steps of `stepMs`. */
  settle(forMs: number, stepMs: number): void {
    const untilMs = this.state.nowMs + forMs;
    for (;;) {
      const atMs = Math.min(this.state.nowMs + stepMs, untilMs);
      this.step({ kind: 'actuator', atMs, mcu: 'STOPPED', standstill: true });
      this.step({ kind: 'readings', atMs, readings: allClear(this.#policy) });
      if (atMs >= untilMs) return;
    }
  }

  recover(local: boolean): ReturnType<typeof evaluate>['output'] {
    const { latchId, nowMs: atMs } = this.state;
    return this.step({ kind: 'recover', atMs, latchId, nonce: recoverNonce(this.state), local });
  }

  /** Reports that the present state is on disk. */
  store(): ReturnType<typeof evaluate>['output'] {
    const { latchId, motionEpoch } = this.#system.durable(this.state);
    return this.step({ kind: 'stored', atMs: this.state.nowMs, latchId, motionEpoch });
  }
}

/** A system that has gone all the way to ARMED. @throws when it does not get there. */
export function armedWalk(system: System, policy: FailsafePolicy, stored: DurableState = EMPTY): Walk {
  const walk = new Walk(system, policy, stored);
  const dwellMs = Math.max(0, ...policy.rules.map((rule) => rule.clearDwellMs));
  walk.settle(dwellMs + 5, Math.max(1, dwellMs / 4));
  walk.recover(true);
  walk.store();
  if (walk.state.phase !== 'ARMED') throw new Error(`could not arm: ${walk.state.phase}`);
  return walk;
}
