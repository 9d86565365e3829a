import { severity } from '../modes.ts';
import { CAUSE_RULES, type CauseId, type CauseRule, DEFAULT_POLICY, type FailsafePolicy } from '../rules.ts';
import type { DurableState, FailsafeState, Reading, Verdict } from '../state.ts';
import { allClear, armedWalk, autoRule, checkPolicy, isAside, reading, ruleOf, type System, Walk } from './system.ts';

/** What a check found. */
export interface Findings {
  /** How many cases it looked at; a check that looked at nothing proves nothing. */
  readonly cases: number;
  /** The first few faults, in words. */
  readonly faults: readonly string[];
}

const FAULTS_MAX = 5;

class Record {
  cases = 0;
  readonly faults: string[] = [];
  expect(holds: boolean, fault: () => string): void {
    if (!holds && this.faults.length < FAULTS_MAX) this.faults.push(fault());
  }
  get isFull(): boolean {
    return this.faults.length >= FAULTS_MAX;
  }
}

const RULES = CAUSE_RULES;

/** Sets of up to `sizeMax` causes, and all but up to `missingMax`; or every set there is. */
function* masks(sizeMax: number, missingMax: number, isWhole: boolean): Generator<number> {
  for (let mask = 0; mask < 1 << RULES.length; mask++) {
    let size = 0;
    for (let rest = mask; rest !== 0; rest &= rest - 1) size += 1;
    if (isWhole || size <= sizeMax || size >= RULES.length - missingMax) yield mask;
  }
}

/** The nine causes that differ most; their full product is what a table of every combination can hold. */
const NINE: readonly CauseId[] = [
  'estop',
  'agent_stuck',
  'mechanical_lock',
  'tilt',
  'thermal_shutdown',
  'battery_critical',
  'geofence_lock',
  'comm_loss',
  'battery_low',
];

const subset = (rules: readonly CauseRule[], mask: number): DurableState => ({
  latchId: 7,
  motionEpoch: 3,
  latched: rules.filter((_, i) => (mask >> i) & 1).map(({ cause }) => ({ cause, detail: 'stored' })),
});

/** Sets of latched causes, with the table in both orders: action, mode and gate. [I1, I2, I6, I9] */
export function checkCombiner(system: System, isWhole = false): Findings {
  const record = new Record();
  const forward = checkPolicy(RULES, 10, 1000);
  const backward = { ...forward, rules: [...forward.rules].reverse() };
  for (const mask of masks(4, 2, isWhole)) {
    if (record.isFull) break;
    record.cases += 1;
    const stored = subset(RULES, mask);
    const there = system.describe(system.boot(forward, stored, undefined, 0, 's'), forward);
    const back = system.describe(system.boot(backward, stored, undefined, 0, 's'), backward);
    const latched = RULES.filter((_, i) => (mask >> i) & 1);
    const worst = Math.max(severity('HOLD'), ...latched.map((rule) => severity(rule.action)));
    const top = Math.max(0, ...latched.map((rule) => severity(rule.action)));
    const named = (rule: CauseRule): boolean => severity(rule.action) === top;
    record.expect(severity(there.action) === worst, () => `I2 mask ${mask}: action ${there.action}`);
    record.expect(there.mode === (latched.find(named)?.mode ?? ''), () => `I2 mask ${mask}: mode ${there.mode}`);
    record.expect(back.mode === (latched.findLast(named)?.mode ?? ''), () => `I2 mask ${mask}: reversed mode`);
    record.expect(there.action === back.action && !there.gateOpen && !back.gateOpen, () => `I6 mask ${mask}`);
    record.expect(there.causes.length === latched.length, () => `I2 mask ${mask}: not all causes listed`);
  }
  return record;
}

/**
 * Combinations of verdicts at once, on three ages of the readings: every one of nine causes, and of the whole table
 * every pair (`isWhole`: every three). [I1, I5, I6, I8, I20]
 */
export function checkVectors(system: System, isWhole = false, nine: readonly CauseId[] = NINE): Findings {
  const record = new Record();
  product(system, record, nine.map(ruleOf), ['clear', 'bad', 'unknown']);
  const monitored = CAUSE_RULES.filter((rule) => rule.monitored);
  const verdicts = ['clear', 'bad', 'severe'] as const;
  monitored.forEach((first, i) => {
    monitored.slice(i + 1).forEach((second, j) => {
      if (!isWhole) product(system, record, [first, second], verdicts);
      else for (const third of monitored.slice(i + j + 2)) product(system, record, [first, second, third], verdicts);
    });
  });
  return record;
}

function product(system: System, record: Record, rules: readonly CauseRule[], verdicts: readonly Verdict[]): void {
  const policy = checkPolicy(rules, 10, 100);
  const start = armedWalk(system, policy).state;
  const total = verdicts.length ** rules.length;
  for (let code = 0; code < total && !record.isFull; code++) {
    const readings = rules.map(({ cause }, i) =>
      reading(cause, verdicts[Math.floor(code / verdicts.length ** i) % verdicts.length] ?? 'unknown'),
    );
    judgeVector(system, record, policy, start, readings);
  }
}

function judgeVector(
  system: System,
  record: Record,
  policy: FailsafePolicy,
  start: FailsafeState,
  readings: readonly Reading[],
): void {
  const text = (): string => readings.map(({ detail }) => detail).join(', ');
  const tripping = (...which: Verdict[]): CauseId[] =>
    readings.filter((given) => which.includes(given.verdict)).map((given) => given.cause);
  const stops = (causes: readonly CauseId[]): boolean =>
    policy.rules.some((rule) => causes.includes(rule.cause) && severity(rule.action) >= severity('HOLD'));
  const severe = tripping('severe');
  const bad = tripping('bad', 'unknown', 'severe');
  // Silence is judged only while ARMED: once anything has stopped the robot, it can only block.
  // What was bad once needs one silent tick more, the others two.
  const silent = stops(severe) ? severe : stops(bad) ? bad : readings.map(({ cause }) => cause);
  for (const ageMs of [0, 99, 101]) {
    record.cases += 1;
    const walk = new Walk(system, policy);
    walk.state = start;
    const atMs = start.nowMs + 1;
    const once = walk.step({ kind: 'readings', atMs, readings });
    record.expect(sameSet(once.rising, severe), () => `I8 ${text()}: one reading latched too much`);
    const other = system.evaluate(start, { kind: 'readings', atMs, readings: [...readings].reverse() }, policy);
    record.expect(sameSet(other.output.rising, once.rising), () => `I6 ${text()}: order of readings matters`);
    if (ageMs === 0) walk.step({ kind: 'readings', atMs: atMs + 1, readings });
    else for (const _ of [1, 2]) walk.step({ kind: 'tick', atMs: atMs + ageMs });
    const latched = walk.state.causes.filter((cause) => cause.latched).map((cause) => cause.cause);
    const expected = ageMs === 0 ? bad : ageMs === 99 ? severe : silent;
    record.expect(sameSet(latched, expected), () => `I5 ${text()} age ${ageMs}: latched ${latched}`);
    const { gateOpen, speedFactor } = system.describe(walk.state, policy);
    record.expect(gateOpen === !stops(expected), () => `I1 ${text()} age ${ageMs}: gate`);
    const isDerated = policy.rules.some((rule) => expected.includes(rule.cause) && rule.action === 'DERATE');
    const factor = !gateOpen ? 0 : isDerated ? policy.derateSpeedFactor : 1;
    record.expect(speedFactor === factor, () => `I20 ${text()} age ${ageMs}: speed ${speedFactor}`);
  }
}

/**
 * Every sequence of nine readings for every monitored cause, or those given, against the window rules.
 * [I3, I5, I7, I8]
 */
export function checkSequences(system: System, causes?: readonly CauseId[]): Findings {
  const record = new Record();
  const isAsked = (rule: CauseRule): boolean => rule.monitored && (causes?.includes(rule.cause) ?? true);
  for (const rule of CAUSE_RULES.filter(isAsked)) {
    const policy = checkPolicy([rule], 1000, 10_000);
    const start = armedWalk(system, policy);
    const visit = (state: Walk['state'], history: readonly Verdict[]): void => {
      if (history.length === 9 || record.isFull) return;
      for (const verdict of ['clear', 'bad', 'unknown'] as const) {
        record.cases += 1;
        const now = [...history, verdict];
        const event = { kind: 'readings', atMs: state.nowMs + 1, readings: [reading(rule.cause, verdict)] } as const;
        const next = system.evaluate(state, event, policy).state;
        const isFree = next.causes[0]?.latched === false;
        record.expect(
          (next.phase === 'ARMED') === (isFree || severity(rule.action) < severity('HOLD')),
          () => `I1 ${rule.cause} ${now}: ${next.phase}`,
        );
        judgeSequence(record, rule.cause, now, isFree, next.latchId - start.state.latchId);
        visit(next, now);
      }
    };
    visit(start.state, []);
  }
  return record;
}

function judgeSequence(record: Record, cause: CauseId, now: readonly Verdict[], isFree: boolean, risen: number): void {
  const bads = now.map((verdict) => (verdict === 'clear' ? 0 : 1));
  const text = (): string => `${cause} ${bads.join('')}`;
  const window = (from: number, to: number): number => bads.slice(from, to).reduce((sum: number, bad) => sum + bad, 0);
  let mustTrip = false;
  let mayTrip = false;
  for (let end = 1; end <= bads.length; end++) {
    if (end >= 2 && window(end - 2, end) === 2) mustTrip = true;
    if (window(Math.max(0, end - 5), end) >= 3) mustTrip = true;
    // Less than a third bad in every window ending here drains as fast as it fills: no trip may come of it.
    for (let from = 0; from < end; from++) if (3 * window(from, end) > end - from + 2) mayTrip = true;
  }
  record.expect(!mustTrip || !isFree, () => `I8 ${text()}: two in a row or 3 of 5, not latched`);
  record.expect(mayTrip || isFree, () => `I8 ${text()}: tripped without a reason`);
  record.expect(risen === (isFree ? 0 : 1), () => `I7 ${text()}: latch_id rose by ${risen}`);
}

/** From every set of latched causes the gate opens in bounded time, and not before the dwell. [I3, I10, I16, I17] */
export function checkRecovery(system: System, isWhole = false): Findings {
  const record = new Record();
  const policy = checkPolicy(CAUSE_RULES, 40, 1000);
  for (const mask of masks(3, 1, isWhole)) {
    if (record.isFull) break;
    record.cases += 1;
    const walk = new Walk(system, policy, subset(CAUSE_RULES, mask));
    // What only slows or warns is no matter for a recovery.
    const latched = policy.rules.filter((rule, i) => (mask >> i) & 1 && !isAside(rule));
    const dwellMs = Math.max(0, ...latched.map((rule) => rule.clearDwellMs));
    walk.settle(0, 1);
    if (dwellMs > 0) {
      walk.settle(dwellMs - 1, 10);
      const early = walk.recover(true);
      record.expect(early.recover?.kind === 'unmet', () => `I17 mask ${mask}: recovered before the dwell`);
      walk.settle(1, 10);
    }
    const isLocal = latched.some((rule) => rule.clearing === 'local');
    const remote = walk.recover(false);
    record.expect(remote.recover?.kind === (isLocal ? 'unmet' : 'accepted'), () => `I3 mask ${mask}: remote recovery`);
    if (isLocal) walk.recover(true);
    const opened = walk.store();
    record.expect(opened.gateOpen, () => `I16 mask ${mask}: not open after ${dwellMs} ms`);
    record.expect(walk.state.motionEpoch === 4, () => `I12 mask ${mask}: motion epoch ${walk.state.motionEpoch}`);
  }
  return record;
}

/** Timelines whose point is in their order. [I3–I5, I8, I12–I14, I16, I18, I21, I22] */
export function checkTimelines(system: System): Findings {
  const record = new Record();
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const expect = (holds: boolean, fault: string): void => {
    record.cases += 1;
    record.expect(holds, () => fault);
  };
  const recovering = (): Walk => {
    const walk = new Walk(system, policy);
    walk.settle(20, 5);
    walk.recover(false);
    return walk;
  };
  for (const mode of ['emergency_stop', 'mechanical_lock', 'thermal_shutdown', 'geofence_lock'] as const) {
    const walk = recovering();
    walk.step({ kind: 'trigger', atMs: walk.state.nowMs, mode, detail: 'asked' });
    expect(!walk.store().gateOpen, `I18 ${mode} during a recovery: opened`);
    expect(walk.state.phase === 'LATCHED', `I18 ${mode} during a recovery: ${walk.state.phase}`);
    const latchId = walk.state.latchId;
    walk.step({ kind: 'trigger', atMs: walk.state.nowMs, mode, detail: 'again' });
    expect(walk.state.latchId === latchId, `I7 ${mode} twice: latch_id rose`);
  }
  const late = recovering();
  late.step({ kind: 'tick', atMs: late.state.nowMs + policy.recoveryMsMax + 1 });
  expect(!late.store().gateOpen, 'I16 a recovery stayed open for ever');
  const moving = recovering();
  moving.step({ kind: 'actuator', atMs: moving.state.nowMs, mcu: 'STOPPED', standstill: false });
  expect(!moving.store().gateOpen, 'I17 moved during a recovery and opened');
  const early = recovering();
  const { latchId, motionEpoch } = early.state;
  early.step({ kind: 'stored', atMs: early.state.nowMs, latchId, motionEpoch });
  expect(early.state.phase === 'RECOVERING', 'I4 opened on an old write');
  const timeless = armedWalk(system, policy);
  timeless.step({ kind: 'tick', atMs: Number.NaN });
  expect(timeless.state.phase === 'LATCHED', 'I18 an impossible time was ignored');
  const pending = armedWalk(system, policy);
  for (let i = 1; i <= 2; i++)
    pending.step({ kind: 'readings', atMs: pending.state.nowMs + 1, readings: [reading('agent_stuck', 'pending')] });
  expect(pending.state.phase === 'LATCHED', 'I5 pending while armed was taken as good');
  // A fast good channel must not drain what a slow bad one has filled.
  const hidden = armedWalk(system, policy);
  for (let i = 0; i < 2; i++) {
    for (let n = 0; n < 50; n++)
      hidden.step({ kind: 'readings', atMs: hidden.state.nowMs + 1, readings: [reading('mechanical_lock', 'clear')] });
    hidden.step({ kind: 'readings', atMs: hidden.state.nowMs, readings: [reading('mechanical_lock', 'bad', 'slow')] });
  }
  expect(hidden.state.phase === 'LATCHED', 'I8 a fast channel hid a slow one');
  const batch = armedWalk(system, policy);
  const both = [reading('thermal_shutdown', 'severe'), reading('thermal_shutdown', 'clear')];
  batch.step({ kind: 'readings', atMs: batch.state.nowMs, readings: both });
  expect(batch.state.phase === 'LATCHED', 'I8 a good reading drained a severe one of the same batch');
  const crowded = armedWalk(system, DEFAULT_POLICY);
  for (let n = 0; n < 70; n++) {
    const readings = [reading('mechanical_lock', 'clear', `stream ${n}`)];
    crowded.step({ kind: 'readings', atMs: crowded.state.nowMs, readings });
  }
  expect(crowded.state.phase === 'LATCHED', 'I5 channels without end were believed');
  const auto = checkPolicy([autoRule('auto_hold', 'HOLD')], 5, 1000);
  const held = armedWalk(system, auto);
  const cause = auto.rules[0]?.cause ?? 'estop';
  for (let i = 0; i < 2; i++)
    held.step({ kind: 'readings', atMs: held.state.nowMs, readings: [reading(cause, 'bad')] });
  for (let i = 0; i < 20; i++) held.step({ kind: 'readings', atMs: held.state.nowMs + 1, readings: allClear(auto) });
  expect(
    held.state.causes.every((c) => !c.latched),
    'I3 an automatic cause did not let go',
  );
  expect(held.state.phase === 'LATCHED', 'I4 motion resumed by itself');
  expectAsides(system, expect);
  expectReturn(system, expect);
  return record;
}

/** What only slows or warns: it slows, it does not stand in the way of a recovery, and no recovery hides it. */
function expectAsides(system: System, expect: (holds: boolean, fault: string) => void): void {
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const slow = (): Walk => {
    const walk = new Walk(system, policy);
    walk.settle(20, 5);
    walk.step({ kind: 'readings', atMs: walk.state.nowMs, readings: [reading('battery_low', 'severe')] });
    return walk;
  };
  const walk = slow();
  expect(walk.recover(false).recover?.kind === 'accepted', 'I21 a cause that only slows blocked a recovery');
  walk.step({ kind: 'readings', atMs: walk.state.nowMs, readings: [reading('disk_low', 'severe')] });
  expect(walk.state.phase === 'RECOVERING', 'I21 a warning ended a recovery');
  const opened = walk.store();
  expect(opened.gateOpen && opened.speedFactor === policy.derateSpeedFactor, 'I21 a recovery hid what slows the robot');
  expect(opened.mode === 'degraded' && opened.causes.length === 2, 'I2 a derated robot does not say why');
  for (let ms = 0; ms < 9; ms++)
    walk.step({ kind: 'readings', atMs: walk.state.nowMs + 1, readings: allClear(policy) });
  expect(system.describe(walk.state, policy).speedFactor < 1, 'I3 it let go before its dwell');
  for (let ms = 0; ms < 9; ms++)
    walk.step({ kind: 'readings', atMs: walk.state.nowMs + 1, readings: allClear(policy) });
  const now = system.describe(walk.state, policy);
  expect(now.gateOpen && now.speedFactor === 1 && now.action === 'NONE', 'I3 what only slows did not let go');
}

/** Outside the geofence: a recovery may be accepted while standing outside, and then allows motion inwards only. */
function expectReturn(system: System, expect: (holds: boolean, fault: string) => void): void {
  const policy = checkPolicy(CAUSE_RULES, 10, 1000);
  const fence = (verdict: Verdict): Reading[] => [
    ...allClear(policy).filter(({ cause }) => cause !== 'geofence_lock'),
    reading('geofence_lock', verdict),
  ];
  const outside = (): Walk => {
    const walk = armedWalk(system, policy);
    for (let i = 0; i < 2; i++) walk.step({ kind: 'readings', atMs: walk.state.nowMs, readings: fence('bad') });
    walk.step({ kind: 'actuator', atMs: walk.state.nowMs, mcu: 'STOPPED', standstill: true });
    return walk;
  };
  const stand = (walk: Walk, forMs: number, verdict: Verdict): void => {
    for (let ms = 0; ms < forMs; ms++)
      walk.step({ kind: 'readings', atMs: walk.state.nowMs + 1, readings: fence(verdict) });
  };
  const walk = outside();
  expect(walk.state.phase === 'LATCHED', 'I1 it left its geofence and went on');
  stand(walk, 9, 'fair');
  expect(walk.recover(false).recover?.kind === 'unmet', 'I17 returned before the dwell');
  stand(walk, 1, 'fair');
  expect(walk.recover(false).recover?.kind === 'accepted', 'I22 no way back into the geofence');
  expect(walk.store().inwardOnly, 'I22 armed outside and free to move anywhere');
  stand(walk, 30, 'fair');
  stand(walk, 10, 'clear');
  expect(system.describe(walk.state, policy).inwardOnly, 'I22 free before it was inside for the dwell');
  stand(walk, 2, 'clear');
  expect(!system.describe(walk.state, policy).inwardOnly, 'I22 inside and still bound to move inwards');
  expect(walk.state.phase === 'ARMED', 'I22 stopped on its way back');
  const wrong = outside();
  stand(wrong, 11, 'fair');
  wrong.recover(false);
  wrong.store();
  stand(wrong, 1, 'severe');
  expect(wrong.state.phase === 'LATCHED' && !wrong.state.returning, 'I22 moved outwards on its way back');
  const blind = outside();
  stand(blind, 20, 'unknown');
  expect(blind.recover(false).recover?.kind === 'unmet', 'I22 returned without a position');
  const free = armedWalk(system, policy);
  expect(!system.describe(free.state, policy).inwardOnly, 'I22 bound inwards while inside');
}

function sameSet(a: readonly CauseId[], b: readonly CauseId[]): boolean {
  return a.length === b.length && a.every((cause) => b.includes(cause));
}
