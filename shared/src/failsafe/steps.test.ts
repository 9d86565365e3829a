import t from 'tap';
import { OVERFLOW_CHANNEL, stepCause, stepChannel, stepSilence, trippingChannel, unmetOf } from './channel.ts';
import { describe, evaluate, unmetConditions } from './evaluate.ts';
import { CAUSE_RULES, DEFAULT_POLICY, type FailsafePolicy } from './rules.ts';
import {
  bootState,
  type CauseState,
  durableState,
  type FailsafeEvent,
  type FailsafeState,
  recoverNonce,
} from './state.ts';
import { armedWalk, checkPolicy, EMPTY, REAL_SYSTEM, reading, ruleOf, Walk } from './testing/system.ts';

// One step at a time, each with its exact outcome: what the walks over many steps need not notice.

const policy: FailsafePolicy = DEFAULT_POLICY;
const step = (state: FailsafeState, event: FailsafeEvent) => evaluate(state, event, policy);
const latchedIn = (state: FailsafeState): string[] => state.causes.flatMap((c) => (c.latched ? [c.cause] : []));
const boot = (): FailsafeState => bootState(policy, EMPTY, undefined, 1000, 'seed');

/** A robot whose recovery has just been accepted. */
function recovering(): Walk {
  const walk = new Walk(REAL_SYSTEM, policy);
  walk.settle(30_005, 400);
  t.match(walk.recover(true), { recover: { kind: 'accepted' }, changed: true });
  t.equal(walk.state.phase, 'RECOVERING');
  return walk;
}

t.test('time: never backwards, and an impossible time is a fault that leaves it as it was', async (t) => {
  const state = boot();
  t.equal(step(state, { kind: 'tick', atMs: 900 }).state.nowMs, 1000);
  t.equal(step(state, { kind: 'tick', atMs: 1001 }).state.nowMs, 1001);
  for (const atMs of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const { state: after, output } = step(state, { kind: 'tick', atMs });
    t.equal(after.nowMs, 1000);
    t.same(latchedIn(after), ['guard_fault']);
    t.match(output, { rising: ['guard_fault'], changed: true, causes: [{ detail: 'an event without a valid time' }] });
  }
  const fault = step(state, { kind: 'fault', atMs: Number.NaN, detail: 'thrown' });
  t.match(fault.output.causes, [{ cause: 'guard_fault', detail: 'thrown', latched: true, sinceMs: 1000 }]);
});

t.test('a fault latches guard_fault and nothing else; without one nothing does', async (t) => {
  for (const state of [boot(), recovering().state, armedWalk(REAL_SYSTEM, policy).state]) {
    const { state: after, output } = step(state, { kind: 'fault', atMs: state.nowMs, detail: 'thrown' });
    t.same(latchedIn(after), ['guard_fault'], state.phase);
    t.match(output, { gateOpen: false, action: 'STOP0', mode: 'watchdog', speedFactor: 0, rising: ['guard_fault'] });
    t.equal(after.latchId, state.latchId + 1);
    t.equal(after.phase, 'LATCHED');
    const again = step(after, { kind: 'fault', atMs: after.nowMs + 5, detail: 'again' });
    t.equal(again.state.latchId, after.latchId, 'latched already');
    t.match(again.output, { rising: [], changed: false, causes: [{ detail: 'thrown', sinceMs: after.nowMs + 5 }] });
    const idle = step(state, { kind: 'tick', atMs: state.nowMs });
    t.same(latchedIn(idle.state), [], state.phase);
    t.match(idle.output, { rising: [], changed: false });
    t.equal(Object.hasOwn(idle.output, 'recover'), false);
    t.equal(Object.hasOwn(idle.output, 'abandoned'), false);
  }
});

t.test('a request latches its own cause and no other, in every phase', async (t) => {
  for (const state of [boot(), recovering().state, armedWalk(REAL_SYSTEM, policy).state])
    for (const [mode, cause] of [
      ['emergency_stop', 'estop'],
      ['mechanical_lock', 'mechanical_lock'],
      ['thermal_shutdown', 'thermal_shutdown'],
      ['geofence_lock', 'geofence_lock'],
    ] as const) {
      const { state: after, output } = step(state, { kind: 'trigger', atMs: state.nowMs, mode, detail: 'asked' });
      t.same(latchedIn(after), [cause], `${state.phase} ${mode}`);
      t.match(output, { mode, rising: [cause], changed: true });
    }
});

t.test('a store that cannot be written ends a recovery and latches unknown_state, only then', async (t) => {
  const failed = (state: FailsafeState) => step(state, { kind: 'store_failed', atMs: state.nowMs, detail: 'EIO' });
  t.same(latchedIn(failed(boot()).state), []);
  t.same(latchedIn(failed(armedWalk(REAL_SYSTEM, policy).state).state), []);
  const { state, output } = failed(recovering().state);
  t.same(latchedIn(state), ['unknown_state']);
  t.equal(state.phase, 'LATCHED');
  t.ok(output.abandoned?.includes('the latch store could not be written: EIO'));
});

t.test('a recovery: refused for each reason, ended by each, opened only by what was asked for', async (t) => {
  const walk = recovering();
  const { state } = walk;
  t.equal(state.phaseSinceMs, state.nowMs);
  t.same(durableState(state), { latchId: 7, motionEpoch: 4, latched: [] });
  const stored = (latchId: number, motionEpoch: number): string =>
    step(state, { kind: 'stored', atMs: state.nowMs, latchId, motionEpoch }).state.phase;
  t.same([stored(7, 3), stored(6, 4), stored(8, 4), stored(7, 5)], Array(4).fill('RECOVERING'));
  t.equal(stored(7, 4), 'ARMED');
  const second = step(state, {
    kind: 'recover',
    atMs: state.nowMs,
    latchId: 7,
    nonce: recoverNonce(state),
    local: true,
  });
  t.match(second.output.recover, { kind: 'conflict', why: 'phase', message: 'a recovery is already under way' });
  t.equal(second.state.phase, 'RECOVERING');
  const late = (ms: number) => {
    const atMs = state.nowMs + ms;
    return step({ ...state, causes: state.causes.map((c) => fresh(c, atMs)) }, { kind: 'tick', atMs });
  };
  t.equal(late(policy.recoveryMsMax).state.phase, 'RECOVERING');
  t.match(late(policy.recoveryMsMax + 1), {
    state: { phase: 'BOOT' },
    output: { abandoned: [`the recovery took longer than ${policy.recoveryMsMax} ms`], changed: true },
  });
  for (const [change, sentence] of [
    [{ mcu: 'HOLDING' }, 'the microcontroller does not confirm the stop: HOLDING'],
    [{ standstill: false }, 'the joints do not stand still'],
  ] as const) {
    const event = { kind: 'actuator', atMs: state.nowMs, mcu: 'STOPPED', standstill: true, ...change } as const;
    t.match(step(state, event), { state: { phase: 'BOOT' }, output: { abandoned: [sentence] } });
  }
  const stopped = step(state, { kind: 'trigger', atMs: state.nowMs, mode: 'emergency_stop', detail: 'x' });
  t.ok(stopped.output.abandoned?.includes('the robot was stopped again meanwhile'));
  const armed = step(state, { kind: 'stored', atMs: state.nowMs, latchId: 7, motionEpoch: 4 });
  t.match(armed, {
    state: { motionEpoch: 4, returning: false, latchId: 7 },
    output: { gateOpen: true, action: 'NONE', mode: '', speedFactor: 1, inwardOnly: false, changed: true, causes: [] },
  });
  const needless = { kind: 'recover', atMs: state.nowMs, latchId: 7, nonce: 'x', local: true } as const;
  t.match(step(armed.state, needless).output.recover, { why: 'phase', message: /nothing to recover/ });
  t.match(step(boot(), needless), { state: { noncesUsed: 0 }, output: { recover: { why: 'nonce' } } });
  const wrong = { ...needless, latchId: 6, nonce: 'seed-0' };
  t.match(step(boot(), wrong), { state: { noncesUsed: 1 }, output: { recover: { why: 'latch_id' } } });
  t.match(step(boot(), { ...wrong, latchId: 7 }), {
    state: { noncesUsed: 1, phase: 'BOOT' },
    output: { recover: { kind: 'unmet' }, changed: false },
  });
});

/** The same cause as if all its channels had just been read. */
const fresh = (cause: CauseState, atMs: number): CauseState => ({
  ...cause,
  channels: Object.fromEntries(Object.entries(cause.channels).map(([name, channel]) => [name, { ...channel, atMs }])),
});

t.test('the counters of a channel', async (t) => {
  const { counter } = policy;
  const run = (...verdicts: Parameters<typeof stepChannel>[1][]): number => {
    let channel = stepChannel(undefined, 'pending', '', 0, counter);
    for (const verdict of verdicts) channel = stepChannel(channel, verdict, '', 1, counter);
    return channel.counter;
  };
  t.same([run(), run('bad'), run('unknown'), run('bad', 'bad'), run('bad', 'bad', 'bad')], [0, 2, 2, 4, 4]);
  t.same([run('severe'), run('severe', 'bad'), run('severe', 'clear'), run('bad', 'fair')], [4, 4, 3, 1]);
  t.same([run('clear'), run('bad', 'clear', 'clear', 'clear'), run('bad', 'pending')], [0, 0, 2]);
  const since = stepChannel(stepChannel(undefined, 'clear', '', 5, counter), 'clear', 'd', 9, counter);
  t.same(since, { counter: 0, verdict: 'clear', atMs: 9, clearSinceMs: 5, detail: 'd' });
  t.equal(stepChannel(since, 'fair', '', 10, counter).clearSinceMs, undefined);
});

t.test('a cause takes as many channels as it may, and pending counts once armed', async (t) => {
  const few = { ...policy, channelsMax: 2 };
  const empty: CauseState = { cause: 'tilt', latched: false, latchedAtMs: 0, detail: '', channels: {} };
  let cause = empty;
  for (const name of ['a', 'b', 'c']) cause = stepCause(cause, reading('tilt', 'clear', name), false, 1, few);
  t.same(Object.keys(cause.channels), ['a', 'b', OVERFLOW_CHANNEL]);
  t.equal(cause.channels[OVERFLOW_CHANNEL]?.verdict, 'unknown');
  t.equal(stepCause(cause, reading('tilt', 'clear', 'b'), false, 2, few).channels['b']?.verdict, 'clear', 'known');
  const verdictOf = (isArmed: boolean) =>
    stepCause(empty, reading('tilt', 'pending'), isArmed, 1, policy).channels['a']?.verdict;
  t.same([verdictOf(false), verdictOf(true)], ['pending', 'unknown']);
  t.equal(trippingChannel(cause, policy), undefined);
  const tripped = stepCause(cause, reading('tilt', 'severe', 'b'), false, 3, few);
  t.match(trippingChannel(tripped, policy), { counter: 4, verdict: 'severe' });
});

t.test('silence counts after the time that a reading stays fresh, for what is measured', async (t) => {
  const rule = { ...ruleOf('tilt'), freshMs: 100 };
  const cause: CauseState = stepCause(
    { cause: 'tilt', latched: false, latchedAtMs: 0, detail: '', channels: {} },
    reading('tilt', 'clear'),
    true,
    1000,
    policy,
  );
  t.equal(stepSilence(cause, rule, 1100, policy), cause);
  const silent = stepSilence(cause, rule, 1101, policy).channels['a'];
  t.match(silent, { counter: 2, verdict: 'unknown', atMs: 1000, detail: 'a: no reading for 101 ms' });
  t.equal(stepSilence(cause, { ...rule, monitored: false }, 9000, policy), cause);
});

t.test('why a cause keeps the gate closed, to the millisecond', async (t) => {
  const rule = { ...ruleOf('tilt'), freshMs: 100, clearDwellMs: 50, optional: false };
  const bare: CauseState = { cause: 'tilt', latched: false, latchedAtMs: 0, detail: '', channels: {} };
  const read = (cause: CauseState, verdict: 'clear' | 'fair' | 'bad' | 'pending' | 'unknown', atMs: number) =>
    stepCause(cause, reading('tilt', verdict), false, atMs, policy);
  t.equal(unmetOf(bare, rule, 0), 'tilt: no reading yet');
  t.equal(unmetOf(bare, { ...rule, optional: true }, 0), undefined);
  t.equal(unmetOf(bare, { ...rule, monitored: false }, 0), undefined);
  const clear = read(bare, 'clear', 1000);
  t.equal(unmetOf(clear, rule, 1100), undefined);
  t.equal(unmetOf(clear, rule, 1101), 'tilt (a): no fresh reading');
  t.equal(unmetOf(read(bare, 'pending', 1000), rule, 1000), 'tilt (a): no reading yet');
  t.equal(unmetOf(read(bare, 'fair', 1000), rule, 1000), undefined);
  t.equal(unmetOf(read(bare, 'bad', 1000), rule, 1000), 'tilt (a): not clear: tilt bad');
  t.equal(unmetOf(read(read(bare, 'bad', 990), 'clear', 1000), rule, 1000), 'tilt (a): not settled yet');
  const latched: CauseState = { ...clear, latched: true, latchedAtMs: 980 };
  t.equal(unmetOf(latched, rule, 1049), 'tilt: must stay clear for another 1 ms', 'from when it was clear');
  t.equal(unmetOf(latched, rule, 1050), undefined);
  t.equal(unmetOf({ ...latched, latchedAtMs: 1020 }, rule, 1069.5), 'tilt: must stay clear for another 1 ms');
  t.equal(unmetOf({ ...latched, latchedAtMs: 1020 }, rule, 1070), undefined, 'from when it was latched');
  t.equal(unmetOf(read({ ...latched, latched: true }, 'fair', 1000), rule, 1090), 'tilt (a): not clear: tilt fair');
  const fence = { ...rule, mayReturn: true };
  const outside = read({ ...bare, latched: true, latchedAtMs: 1000 }, 'fair', 1040);
  t.equal(unmetOf(outside, fence, 1049), 'tilt: must stay clear for another 1 ms', 'outside, from the stop');
  t.equal(unmetOf(outside, fence, 1050), undefined);
  t.equal(
    unmetOf({ ...latched, latchedAtMs: 1000 }, { ...rule, monitored: false }, 1049),
    'tilt: must stay clear for another 1 ms',
  );
});

t.test('what a state means: floor, worst, first of equals, speed', async (t) => {
  const state = armedWalk(REAL_SYSTEM, policy).state;
  const latch = (phase: FailsafeState['phase'], ...names: string[]) =>
    describe(
      { ...state, phase, causes: state.causes.map((c) => ({ ...c, latched: names.includes(c.cause), detail: 'd' })) },
      policy,
    );
  t.match(latch('ARMED', 'disk_low'), { action: 'WARN', mode: 'degraded', speedFactor: 1, gateOpen: true });
  t.match(latch('ARMED', 'battery_low'), { action: 'DERATE', speedFactor: 0.5 });
  t.match(latch('BOOT'), { action: 'HOLD', mode: '', speedFactor: 0, gateOpen: false });
  t.match(latch('LATCHED', 'disk_low'), { action: 'HOLD', mode: 'degraded' });
  t.match(latch('LATCHED', 'geofence_lock', 'thermal_shutdown'), { action: 'STOP1', mode: 'thermal_shutdown' });
  t.match(latch('LATCHED', 'tilt', 'estop', 'mcu_silent'), { action: 'STOP0', mode: 'emergency_stop' });
  t.same(
    latch('LATCHED', 'tilt', 'estop').causes.map(({ cause }) => cause),
    ['estop', 'tilt'],
  );
  t.equal(describe({ ...state, returning: true }, policy).inwardOnly, true);
  t.equal(describe({ ...state, returning: true, phase: 'LATCHED' }, policy).inwardOnly, false);
});

t.test('a boot: what was stored, what is not believed, what is not known', async (t) => {
  t.match(boot(), { phase: 'BOOT', latchId: 7, motionEpoch: 3, mcu: 'UNKNOWN', standstill: false, noncesUsed: 0 });
  t.match(boot(), { nowMs: 1000, phaseSinceMs: 1000, returning: false });
  const held = { ...EMPTY, latched: [{ cause: 'tilt', detail: 'leaned' } as const] };
  const tilted = bootState(policy, held, undefined, 5, 's');
  t.same([tilted.phase, tilted.latchId, latchedIn(tilted)], ['LATCHED', 7, ['tilt']]);
  t.match(describe(tilted, policy).causes, [{ detail: 'leaned', sinceMs: 5 }]);
  t.same(durableState(tilted), held);
  const doubted = bootState(policy, held, 'bad crc', 5, 's');
  t.same([doubted.latchId, latchedIn(doubted)], [8, ['unknown_state', 'tilt']]);
  t.equal(describe(doubted, policy).causes[0]?.detail, 'bad crc');
  const again = bootState(policy, durableState(doubted), 'bad crc', 5, 's');
  t.equal(again.latchId, 8, 'the same doubt is not a new one');
  const foreign = {
    ...EMPTY,
    latched: [{ cause: 'ghost', detail: '' } as never, { cause: 'ghoul', detail: '' } as never],
  };
  t.match(describe(bootState(policy, foreign, undefined, 5, 's'), policy).causes, [
    { cause: 'unknown_state', detail: 'causes that this version does not know: ghost, ghoul' },
  ]);
});

t.test('the checklist asks for a local reset only of what is latched and local', async (t) => {
  const state = armedWalk(REAL_SYSTEM, policy).state;
  const unmetWith = (cause: string, local: boolean): string[] =>
    unmetConditions(
      {
        ...state,
        mcu: 'STOPPED',
        standstill: true,
        causes: state.causes.map((c) => (c.cause === cause ? { ...c, latched: true, latchedAtMs: -1e6 } : c)),
      },
      local,
      policy,
    );
  t.same([unmetWith('tilt', false), unmetWith('mcu_silent', true), unmetWith('none', false)], [[], [], []]);
  t.same(unmetWith('mcu_silent', false), ['mcu_silent: must be reset at the robot']);
  t.same(unmetWith('disk_low', false), [], 'what only warns stands in no way');
  t.equal(CAUSE_RULES.length, state.causes.length);
});

t.test('a reading of a cause that the policy does not know changes nothing', async (t) => {
  const one = { ...policy, rules: [ruleOf('tilt')] };
  const state = bootState(one, EMPTY, undefined, 0, 's');
  const event = { kind: 'readings', atMs: 0, readings: [reading('estop', 'severe')] } as const;
  t.same(evaluate(state, event, one).state, state);
});

t.test('what is latched keeps its first words and its time, and the phase its beginning', async (t) => {
  const walk = armedWalk(REAL_SYSTEM, policy);
  const atMs = walk.state.nowMs;
  walk.step({ kind: 'readings', atMs, readings: [reading('tilt', 'severe')] });
  const again = { ...reading('tilt', 'severe'), detail: 'later' };
  const later = walk.step({ kind: 'readings', atMs: atMs + 9, readings: [again, reading('estop', 'severe')] });
  t.match(later.causes, [
    { cause: 'estop', sinceMs: atMs + 9 },
    { cause: 'tilt', detail: 'tilt severe', sinceMs: atMs },
  ]);
  t.match(walk.state, { phase: 'LATCHED', phaseSinceMs: atMs });
});

t.test('a stop that is asked for ends a recovery also where the cause has no dwell', async (t) => {
  const none = checkPolicy([{ ...ruleOf('geofence_lock'), clearDwellMs: 0 }], 10, 1000);
  const walk = new Walk(REAL_SYSTEM, none);
  const trigger = (): unknown =>
    walk.step({ kind: 'trigger', atMs: walk.state.nowMs, mode: 'geofence_lock', detail: 'asked' }).abandoned;
  trigger();
  walk.settle(20, 5);
  walk.recover(true);
  t.equal(walk.state.phase, 'RECOVERING');
  t.same(trigger(), ['the robot was stopped again meanwhile']);
});

t.test('the way back ends when the robot has been inside for exactly the dwell', async (t) => {
  const fence = checkPolicy([ruleOf('geofence_lock')], 10, 1000);
  const walk = armedWalk(REAL_SYSTEM, fence);
  const { nowMs } = walk.state;
  const once = walk.step({ kind: 'readings', atMs: nowMs, readings: [reading('geofence_lock', 'bad')] });
  t.match(once, { gateOpen: true, inwardOnly: false }, 'one position outside does not make it one that returns');
  walk.state = { ...walk.state, returning: true };
  const inside = (atMs: number): boolean =>
    walk.step({ kind: 'readings', atMs, readings: [reading('geofence_lock', 'clear')] }).inwardOnly;
  walk.step({ kind: 'readings', atMs: nowMs + 1, readings: [reading('geofence_lock', 'fair')] });
  t.same([inside(nowMs + 2), inside(nowMs + 11), inside(nowMs + 12)], [true, true, false]);
});
