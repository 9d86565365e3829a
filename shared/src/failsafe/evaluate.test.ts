import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { OVERFLOW_CHANNEL, stepChannel } from './channel.ts';
import { evaluate, unmetConditions } from './evaluate.ts';
import { CAUSE_RULES, DEFAULT_POLICY, policyWith } from './rules.ts';
import {
  bootState,
  type FailsafeEvent,
  type FailsafeState,
  type Reading,
  recoverNonce,
  type Verdict,
} from './state.ts';
import {
  checkCombiner,
  checkRecovery,
  checkSequences,
  checkTimelines,
  checkVectors,
  type Findings,
} from './testing/checks.ts';
import { CAUSE_KINDS, explore, isLarge, kindSets, randomWalk } from './testing/explore.ts';
import { exploreWhole } from './testing/explore-whole.ts';
import { MUTANTS } from './testing/mutants.ts';
import {
  allClear,
  armedWalk,
  checkPolicy,
  EMPTY,
  REAL_SYSTEM,
  reading,
  ruleOf,
  type System,
  Walk,
} from './testing/system.ts';

// The large pairs take a minute.
t.setTimeout(process.argv.includes('--whole') ? 0 : 590_000);

const NEVER_STALE_MS = 1_000_000;
/** On demand: every set, every pair and every three of kinds. Takes minutes. */
const WHOLE = process.argv.includes('--whole');
const WHOLE_JOBS = 2;
/** Run on a mutated copy, hundreds of times: the largest checks are cut down. What they find, the whole ones find. */
const MUTANT = process.argv.includes('--mutant');

t.test('timelines: stops during a recovery, impossible times, hidden channels, automatic causes', async (t) => {
  const found = checkTimelines(REAL_SYSTEM);
  t.same(found.faults, []);
  t.ok(found.cases > 15);
});

t.test('the same state and event give the same result, and neither is changed', async (t) => {
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const state = deepFreeze(armedWalk(REAL_SYSTEM, policy).state);
  const event = deepFreeze({
    kind: 'readings',
    atMs: state.nowMs + 1,
    readings: [reading('thermal_shutdown', 'severe'), ...allClear(policy)],
  } as const);
  const once = evaluate(state, event, policy);
  t.ok(isDeepStrictEqual(once, evaluate(state, event, policy)));
  t.equal(once.state.phase, 'LATCHED');
  t.equal(once.output.mode, 'thermal_shutdown');
});

t.test('a refused recovery says why, and what is missing, and uses its nonce up [I13]', async (t) => {
  const policy = DEFAULT_POLICY;
  let state: FailsafeState = bootState(policy, EMPTY, 'slot a has a wrong checksum', 0, 'seed');
  t.equal(state.latchId, EMPTY.latchId + 1);
  const attempt = (latchId: number, nonce: string): unknown => {
    const result = evaluate(state, { kind: 'recover', atMs: 1, latchId, nonce, local: false }, policy);
    state = result.state;
    return result.output.recover;
  };
  t.match(attempt(state.latchId, 'guess'), { kind: 'conflict', why: 'nonce' });
  t.match(attempt(state.latchId - 1, recoverNonce(state)), { kind: 'conflict', why: 'latch_id' });
  t.match(attempt(state.latchId, recoverNonce(state)), {
    kind: 'unmet',
    unmet: [
      'estop: no reading yet',
      'unknown_state: must be reset at the robot',
      'mcu_silent: no reading yet',
      'mcu_fault: no reading yet',
      'source_stale: no reading yet',
      'agent_stuck: no reading yet',
      'mechanical_lock: no reading yet',
      'thermal_shutdown: no reading yet',
      'the microcontroller does not confirm the stop: UNKNOWN',
      'the joints do not stand still',
    ],
  });
});

t.test('latches of causes that this version does not know are kept as unknown_state', async (t) => {
  const stored = { ...EMPTY, latched: [{ cause: 'levitation' as 'estop', detail: 'fell up' }] };
  const state = bootState(DEFAULT_POLICY, stored, undefined, 0, 'seed');
  t.equal(state.phase, 'LATCHED');
  t.match(
    state.causes.find((cause) => cause.latched),
    { cause: 'unknown_state', detail: /levitation/ },
  );
});

t.test('a start knows nothing of the robot, and a doubt that is latched already is not a new one', async (t) => {
  const stored = { ...EMPTY, latched: [{ cause: 'unknown_state', detail: 'first' }] } as const;
  const state = bootState(DEFAULT_POLICY, stored, 'second', 5, 'seed');
  t.match(state, { latchId: EMPTY.latchId, motionEpoch: EMPTY.motionEpoch, nowMs: 5, phaseSinceMs: 5, noncesUsed: 0 });
  t.match(state, { mcu: 'UNKNOWN', standstill: false, returning: false });
  t.match(
    state.causes.find((cause) => cause.latched),
    { cause: 'unknown_state', detail: 'first', latchedAtMs: 5 },
  );
  const waiting = evaluate(
    state,
    { kind: 'readings', atMs: 6, readings: [reading('tilt', 'pending')] },
    DEFAULT_POLICY,
  );
  t.ok(unmetConditions(waiting.state, true, DEFAULT_POLICY).includes('tilt (a): no reading yet'));
});

t.test('a policy may raise an action and not lower it', async (t) => {
  const { policy, problems } = policyWith({
    geofence_lock: { action: 'STOP1' },
    thermal_shutdown: { clearDwellMs: 5 },
    estop: { action: 'WARN' },
  });
  t.equal(policy.rules.find((rule) => rule.cause === 'geofence_lock')?.action, 'STOP1');
  t.equal(policy.rules.find((rule) => rule.cause === 'thermal_shutdown')?.clearDwellMs, 5);
  t.equal(policy.rules.find((rule) => rule.cause === 'estop')?.action, 'STOP0');
  t.match(problems, [{ cause: 'estop', reason: /not lowered/ }]);
});

t.test('a recovery that is given up says why, and one that is not says nothing', async (t) => {
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const given = (event: (atMs: number) => FailsafeEvent): unknown => {
    const walk = new Walk(REAL_SYSTEM, policy);
    walk.settle(20, 5);
    t.match(walk.recover(false).recover, { kind: 'accepted' });
    const { abandoned, recover } = walk.step(event(walk.state.nowMs));
    return [abandoned, recover?.kind];
  };
  t.match(
    given((atMs) => ({ kind: 'tick', atMs: atMs + 3 })),
    [['the recovery took longer than 2 ms'], undefined],
  );
  t.same(
    given((atMs) => ({ kind: 'tick', atMs: atMs + 2 })),
    [undefined, undefined],
  );
  const trigger = { kind: 'trigger', mode: 'geofence_lock', detail: 'asked' } as const;
  t.match(
    given((atMs) => ({ ...trigger, atMs })),
    [[/geofence_lock: must stay clear/, /stopped again/], undefined],
  );
  const failed = { kind: 'store_failed', detail: 'disk full' } as const;
  t.match(
    given((atMs) => ({ ...failed, atMs })),
    [[/stopped again/, /could not be written: disk full/], undefined],
  );
  t.match(
    given((atMs) => ({ kind: 'recover', atMs, latchId: 7, nonce: 'x', local: true })),
    [undefined, 'conflict'],
  );
  const moving = { kind: 'actuator', mcu: 'ARMED', standstill: false } as const;
  t.match(
    given((atMs) => ({ ...moving, atMs })),
    [[/does not confirm the stop: ARMED/, /do not stand still/], undefined],
  );
});

t.test('an opening needs its own write, uses one nonce, and returns only from outside a fence', async (t) => {
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const recovering = (...extra: Reading[]): Walk => {
    const walk = new Walk(REAL_SYSTEM, policy);
    walk.settle(20, 5);
    walk.step({ kind: 'readings', atMs: walk.state.nowMs, readings: extra });
    t.equal(recoverNonce(walk.state), 'seed-0');
    walk.recover(false);
    t.equal(recoverNonce(walk.state), 'seed-1');
    return walk;
  };
  const wrong = recovering();
  const { nowMs: atMs, latchId, motionEpoch } = wrong.state;
  wrong.step({ kind: 'stored', atMs, latchId: latchId + 1, motionEpoch: motionEpoch + 1 });
  t.equal(wrong.state.phase, 'RECOVERING', 'the write of another latch');
  wrong.step({ kind: 'tick', atMs: atMs + 3 });
  t.equal(wrong.state.phase, 'BOOT', 'given up, and nothing is latched');
  const opened = recovering(reading('mechanical_lock', 'fair'), reading('geofence_lock', 'clear', 'b'));
  t.match(opened.store(), { gateOpen: true, inwardOnly: true, recover: undefined }, 'one source of positions is new');
  const inside = recovering(reading('mechanical_lock', 'fair'));
  t.match(inside.store(), { gateOpen: true, inwardOnly: false }, 'a joint that is only fair is no fence');
  t.equal(inside.step({ kind: 'tick', atMs: inside.state.nowMs }).recover, undefined);
  t.match(inside.recover(true).recover, { kind: 'conflict', why: 'phase' });
});

t.test('a write that fails while armed latches nothing, and a request keeps the first words', async (t) => {
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const walk = armedWalk(REAL_SYSTEM, policy);
  const failed = { kind: 'store_failed', atMs: walk.state.nowMs, detail: 'disk full' } as const;
  t.match(walk.step(failed), { gateOpen: true, causes: [] });
  for (const detail of ['a person in the cell', 'again'])
    walk.step({ kind: 'trigger', atMs: walk.state.nowMs, mode: 'emergency_stop', detail });
  t.match(walk.step({ kind: 'tick', atMs: walk.state.nowMs }), { causes: [{ detail: 'a person in the cell' }] });
});

t.test('a warning that only a recovery clears stands in its way like any other', async (t) => {
  const policy = checkPolicy([{ ...ruleOf('thermal_shutdown'), action: 'WARN' }], 10, 1000);
  const walk = new Walk(REAL_SYSTEM, policy);
  walk.settle(20, 5);
  walk.step({ kind: 'readings', atMs: walk.state.nowMs, readings: [reading('thermal_shutdown', 'severe')] });
  t.match(walk.recover(true).recover, { kind: 'unmet', unmet: [/thermal_shutdown \(a\): not clear/] });
  walk.settle(20, 5);
  walk.recover(true);
  t.match(walk.store(), { gateOpen: true, causes: [] });
});

t.test('evidence that is new starts at nothing, and channels without end are one unknown one', async (t) => {
  t.match(stepChannel(undefined, 'bad', '', 5, DEFAULT_POLICY.counter), { counter: 2, clearSinceMs: undefined });
  t.match(stepChannel(undefined, 'clear', '', 5, DEFAULT_POLICY.counter), { counter: 0, clearSinceMs: 5 });
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const walk = armedWalk(REAL_SYSTEM, policy);
  const give = (channel: string, verdict: Verdict = 'clear'): void => {
    walk.step({ kind: 'readings', atMs: walk.state.nowMs, readings: [reading('tilt', verdict, channel)] });
  };
  const channels = (): Readonly<Record<string, { readonly verdict: Verdict }>> =>
    walk.state.causes.find(({ cause }) => cause === 'tilt')?.channels ?? {};
  for (let i = 1; i < policy.channelsMax; i++) give(`stream ${i}`);
  t.equal(Object.keys(channels()).length, policy.channelsMax);
  give('stream 1');
  t.equal(channels()['stream 1']?.verdict, 'clear', 'a known one still counts');
  t.equal(channels()[OVERFLOW_CHANNEL], undefined);
  give('one more');
  t.equal(channels()['one more'], undefined);
  t.equal(channels()[OVERFLOW_CHANNEL]?.verdict, 'unknown');
});

t.test('what was not measured yet is no cause before the robot is armed', async (t) => {
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  let state = bootState(policy, EMPTY, undefined, 0, 'seed');
  for (let i = 0; i < 4; i++)
    state = evaluate(state, { kind: 'readings', atMs: i, readings: [reading('agent_stuck', 'pending')] }, policy).state;
  t.equal(state.phase, 'BOOT');
  const cause = state.causes.find((candidate) => candidate.cause === 'agent_stuck');
  t.match(cause, { latched: false, channels: { a: { verdict: 'pending', counter: 0 } } });
});

t.test('every set of latched causes gives the worst action and its first mode, in both table orders', async (t) => {
  const found = checkCombiner(REAL_SYSTEM, WHOLE);
  t.same(found.faults, []);
  // Up to 4 of 19, and all but up to 2; with --whole every set.
  t.equal(found.cases, WHOLE ? 2 ** 19 : 1 + 19 + 171 + 969 + 3876 + 171 + 19 + 1);
});

t.test('from every set of latched causes the gate opens after the dwell and not before', async (t) => {
  const found = checkRecovery(REAL_SYSTEM, WHOLE);
  t.same(found.faults, []);
  t.equal(found.cases, WHOLE ? 2 ** 19 : 1 + 19 + 171 + 969 + 19 + 1);
});

t.test('every combination of verdicts at three ages latches exactly what it must', async (t) => {
  const found = checkVectors(REAL_SYSTEM, WHOLE, MUTANT ? ['estop', 'tilt', 'comm_loss', 'battery_low'] : undefined);
  t.same(found.faults, []);
  const measured = CAUSE_RULES.filter((rule) => rule.monitored).length;
  const pairs = (measured * (measured - 1)) / 2;
  t.equal(found.cases, 3 * (3 ** (MUTANT ? 4 : 9) + (WHOLE ? ((pairs * (measured - 2)) / 3) * 27 : pairs * 9)));
});

t.test('every sequence of nine readings per cause obeys the window rules', async (t) => {
  const found = checkSequences(REAL_SYSTEM, MUTANT ? ['mechanical_lock', 'battery_low'] : undefined);
  t.same(found.faults, []);
  const measured = MUTANT ? 2 : CAUSE_RULES.filter((rule) => rule.monitored).length;
  t.equal(found.cases, (measured * (3 ** 10 - 3)) / 2);
});

t.test('no reachable state of single kinds and pairs of kinds breaks an invariant or is dead', async (t) => {
  const sets = kindSets().filter((causes) => !isLarge(causes) && !(MUTANT && causes.length > 1));
  let states = 0;
  for (const rules of sets) {
    const found = explore(REAL_SYSTEM, rules, NEVER_STALE_MS);
    const names = rules.map((rule) => rule.cause).join(' + ');
    t.same(found.faults, [], `${names}: ${found.states} states`);
    states += found.states;
  }
  for (const rule of CAUSE_KINDS) {
    const found = explore(REAL_SYSTEM, [rule], 2);
    t.same(found.faults, [], `${rule.cause} with silence`);
    states += found.states;
  }
  t.ok(states > (MUTANT ? 6000 : 35_000), `${states} states`);
});

// Half an hour on two cores: asked for, not skipped.
if (WHOLE)
  t.test('nor does any of the large pairs and of all threes', async (t) => {
    const found = await exploreWhole(WHOLE_JOBS, (line) => t.comment(line));
    t.same(found.faults, []);
    t.ok(found.states > 500_000, `${found.states} states`);
  });

t.test('a seeded random walk over the whole table breaks nothing and opens the gate many times', async (t) => {
  const found = randomWalk(REAL_SYSTEM, 20_261_101, MUTANT ? 8000 : 40_000);
  t.same(found.faults, []);
  t.ok(found.openings > (MUTANT ? 60 : 300), `${found.openings} openings`);
});

/** The checks from cheap to dear, until one finds something. */
function firstFault(system: System): string | undefined {
  const checks: (() => Findings)[] = [
    () => checkTimelines(system),
    () => checkCombiner(system),
    () => explore(system, [CAUSE_KINDS[1] ?? never()], NEVER_STALE_MS, { faultsMax: 1 }),
    () => explore(system, [CAUSE_KINDS[0] ?? never()], NEVER_STALE_MS, { faultsMax: 1 }),
    () => explore(system, [CAUSE_KINDS[4] ?? never()], NEVER_STALE_MS, { faultsMax: 1 }),
    () => checkRecovery(system),
    () => checkVectors(system),
    () => checkSequences(system),
  ];
  for (const check of checks) {
    try {
      const fault = check().faults[0];
      if (fault !== undefined) return fault;
    } catch (error) {
      // A system that cannot even be armed is found out too.
      return String(error);
    }
  }
  return undefined;
}

const never = (): never => {
  throw new Error('no such kind');
};

t.test('every seeded fault is found by the checks', { skip: MUTANT && 'a fault is seeded already' }, async (t) => {
  t.ok(Object.keys(MUTANTS).length >= 24);
  for (const [name, system] of Object.entries(MUTANTS)) {
    const fault = firstFault(system);
    t.ok(fault, `${name}: ${fault ?? 'survived'}`);
  }
});

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) deepFreeze(inner);
    Object.freeze(value);
  }
  return value;
}
