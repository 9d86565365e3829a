import { severity } from '../modes.ts';
import { CAUSE_RULES, type CauseId, type CauseRule, DEFAULT_POLICY } from '../rules.ts';
import type { DurableState, Verdict } from '../state.ts';
import { allClear, armedWalk, autoRule, checkPolicy, reading, type System, Walk } from './system.ts';

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

/** The shipped rows, and two that clear by themselves. */
const RULES: readonly CauseRule[] = [...CAUSE_RULES, autoRule('auto_hold', 'HOLD'), autoRule('auto_derate', 'DERATE')];

const subset = (rules: readonly CauseRule[], mask: number): DurableState => ({
  latchId: 7,
  motionEpoch: 3,
  latched: rules.filter((_, i) => (mask >> i) & 1).map(({ cause }) => ({ cause, detail: 'stored' })),
});

/** Every set of latched causes, with the table in both orders: action, mode and gate. [I1, I2, I6, I9] */
export function checkCombiner(system: System): Findings {
  const record = new Record();
  const forward = checkPolicy(RULES, 10, 1000);
  const backward = { ...forward, rules: [...forward.rules].reverse() };
  for (let mask = 0; mask < 1 << RULES.length; mask++) {
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

/** Every combination of verdicts at once, on three ages of the readings. [I1, I5, I6, I8] */
export function checkVectors(system: System): Findings {
  const record = new Record();
  const policy = checkPolicy(CAUSE_RULES, 10, 100);
  const causes = policy.rules.filter((rule) => rule.monitored).map((rule) => rule.cause);
  const verdicts = ['clear', 'bad', 'unknown', 'severe'] as const;
  const start = armedWalk(system, policy).state;
  const total = verdicts.length ** causes.length;
  for (let code = 0; code < total && !record.isFull; code++) {
    const readings = causes.map((cause, i) =>
      reading(cause, verdicts[Math.floor(code / verdicts.length ** i) % verdicts.length] ?? 'unknown'),
    );
    const tripping = (which: readonly Verdict[]): CauseId[] =>
      readings.filter((given) => which.includes(given.verdict)).map((given) => given.cause);
    for (const ageMs of [0, 99, 101]) {
      record.cases += 1;
      const walk = new Walk(system, policy);
      walk.state = start;
      const atMs = start.nowMs + 1;
      const once = walk.step({ kind: 'readings', atMs, readings });
      record.expect(
        sameSet(once.rising, tripping(['severe'])),
        () => `I8 vector ${code}: one reading latched too much`,
      );
      const other = system.evaluate(start, { kind: 'readings', atMs, readings: [...readings].reverse() }, policy);
      record.expect(sameSet(other.output.rising, once.rising), () => `I6 vector ${code}: order of readings matters`);
      if (ageMs === 0) walk.step({ kind: 'readings', atMs: atMs + 1, readings });
      else for (const extraMs of [0, 0]) walk.step({ kind: 'tick', atMs: atMs + ageMs + extraMs });
      const latched = walk.state.causes.filter((cause) => cause.latched).map((cause) => cause.cause);
      const severe = tripping(['severe']);
      const bad = tripping(['bad', 'unknown', 'severe']);
      // Silence is judged only while ARMED: once anything has tripped, it can only block.
      // What was bad once needs one silent tick more, the others two.
      const silent = severe.length > 0 ? severe : bad.length > 0 ? bad : causes;
      const expected = ageMs === 0 ? bad : ageMs === 99 ? severe : silent;
      record.expect(sameSet(latched, expected), () => `I5 vector ${code} age ${ageMs}: latched ${latched}`);
      record.expect(
        system.describe(walk.state, policy).gateOpen === (expected.length === 0),
        () => `I1 vector ${code} age ${ageMs}: gate`,
      );
    }
  }
  return record;
}

/** Every sequence of nine readings for every monitored cause against the window rules. [I3, I5, I7, I8] */
export function checkSequences(system: System): Findings {
  const record = new Record();
  const policy = checkPolicy(CAUSE_RULES, 1000, 10_000);
  for (const rule of policy.rules.filter((candidate) => candidate.monitored)) {
    const start = armedWalk(system, policy);
    const visit = (state: Walk['state'], history: readonly Verdict[]): void => {
      if (history.length === 9 || record.isFull) return;
      for (const verdict of ['clear', 'bad', 'unknown'] as const) {
        record.cases += 1;
        const now = [...history, verdict];
        const event = { kind: 'readings', atMs: state.nowMs + 1, readings: [reading(rule.cause, verdict)] } as const;
        const next = system.evaluate(state, event, policy).state;
        judgeSequence(record, rule.cause, now, next.phase === 'ARMED', next.latchId - start.state.latchId);
        visit(next, now);
      }
    };
    visit(start.state, []);
  }
  return record;
}

function judgeSequence(record: Record, cause: CauseId, now: readonly Verdict[], isArmed: boolean, risen: number): void {
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
  record.expect(!mustTrip || !isArmed, () => `I8 ${text()}: two in a row or 3 of 5, still armed`);
  record.expect(mayTrip || isArmed, () => `I8 ${text()}: tripped without a reason`);
  record.expect(risen === (isArmed ? 0 : 1), () => `I7 ${text()}: latch_id rose by ${risen}`);
}

/** From every set of latched causes the gate opens in bounded time, and not before the dwell. [I10, I16, I17] */
export function checkRecovery(system: System): Findings {
  const record = new Record();
  const policy = checkPolicy(CAUSE_RULES, 40, 1000);
  for (let mask = 0; mask < 1 << CAUSE_RULES.length && !record.isFull; mask++) {
    record.cases += 1;
    const walk = new Walk(system, policy, subset(CAUSE_RULES, mask));
    const latched = policy.rules.filter((_, i) => (mask >> i) & 1);
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

/** Timelines whose point is in their order. [I3, I4, I12, I13, I18] */
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
  return record;
}

function sameSet(a: readonly CauseId[], b: readonly CauseId[]): boolean {
  return a.length === b.length && a.every((cause) => b.includes(cause));
}
