import { FAILSAFE_MODES } from '../modes.ts';
import type { FailsafePolicy } from '../rules.ts';
import { CAUSE_RULES, type CauseId, type CauseRule, DEFAULT_POLICY, TRIGGER_CAUSES } from '../rules.ts';
import { type DurableState, type FailsafeEvent, type FailsafeState, recoverNonce, type Verdict } from '../state.ts';
import type { Findings } from './checks.ts';
import { brokenByRestart, brokenInvariants } from './invariants.ts';
import { checkPolicy, EMPTY, reading, ruleOf, type System } from './system.ts';

/** The failsafe, what its disk holds, and the highest motion epoch that was ever given to an opening. */
interface World {
  readonly state: FailsafeState;
  readonly disk: DurableState;
  readonly opened: number;
}

type Move = (world: World) => { readonly world: World; readonly broken: readonly string[] } | undefined;

export interface Exploration extends Findings {
  readonly states: number;
  readonly transitions: number;
}

/** One representative of each kind of cause: who clears it, whether it is measured, what it does. */
export const CAUSE_KINDS: readonly CauseRule[] = [
  ruleOf('mechanical_lock'),
  ruleOf('unknown_state'),
  ruleOf('thermal_shutdown'),
  ruleOf('geofence_lock'),
  ruleOf('comm_loss'),
  ruleOf('battery_low'),
  ruleOf('tilt'),
];

export interface ExploreOptions {
  readonly faultsMax?: number;
  readonly counter?: FailsafePolicy['counter'];
}

/**
 * One bad reading trips. A counter knows its own channel alone, and singles and pairs go through all its values; of
 * three causes it is how their latches meet that matters, and with five values each there is no end of states.
 */
const AT_ONCE: FailsafePolicy['counter'] = { bad: 1, good: 1, trip: 1 };

/** Explores a set of kinds: up to two with the real counters, three with such as trip at once. */
export const exploreSet = (system: System, rules: readonly CauseRule[], freshMs: number): Exploration =>
  explore(system, rules, freshMs, rules.length > 2 ? { counter: AT_ONCE } : {});

/**
 * Walks every state that the causes of `rules` can reach, by every event, with crashes at any point and writes
 * that arrive at any time. Each step is held against the invariants; at the end each state must still be able to
 * reach an open gate. [I1–I5, I7, I9, I10, I12, I13, I15, I17–I22, I25]
 */
export function explore(
  system: System,
  rules: readonly CauseRule[],
  freshMs: number,
  { faultsMax = 5, counter = DEFAULT_POLICY.counter }: ExploreOptions = {},
): Exploration {
  const policy = { ...checkPolicy(rules, 1, freshMs), counter };
  const moves = movesOf(system, policy, freshMs < 100 || counter === AT_ONCE);
  const start: World = {
    state: system.boot(policy, EMPTY, undefined, 0, 'seed'),
    disk: EMPTY,
    opened: EMPTY.motionEpoch,
  };
  const index = new Map<string, number>([[keyOf(start, policy, freshMs), 0]]);
  const worlds: World[] = [start];
  const incoming: number[][] = [[]];
  const faults: string[] = [];
  let transitions = 0;
  for (let i = 0; i < worlds.length && faults.length < faultsMax; i++) {
    const world = worlds[i];
    if (!world) break;
    for (const move of moves) {
      const result = move(world);
      if (!result) continue;
      transitions += 1;
      for (const fault of result.broken) if (faults.length < faultsMax) faults.push(fault);
      const key = keyOf(result.world, policy, freshMs);
      let next = index.get(key);
      if (next === undefined) {
        next = worlds.length;
        index.set(key, next);
        worlds.push(result.world);
        incoming.push([]);
      }
      incoming[next]?.push(i);
    }
  }
  const dead = faults.length > 0 ? 0 : countDead(worlds, incoming);
  if (dead > 0) faults.push(`I10 ${dead} of ${worlds.length} states can never open the gate again`);
  return { states: worlds.length, transitions, cases: transitions, faults };
}

function countDead(worlds: readonly World[], incoming: readonly number[][]): number {
  const alive = new Uint8Array(worlds.length);
  const queue = worlds.flatMap((world, i) => (world.state.phase === 'ARMED' ? [i] : []));
  for (const i of queue) alive[i] = 1;
  for (let i = queue.pop(); i !== undefined; i = queue.pop())
    for (const from of incoming[i] ?? [])
      if (!alive[from]) {
        alive[from] = 1;
        queue.push(from);
      }
  return alive.reduce((sum, isAlive) => sum + (isAlive ? 0 : 1), 0);
}

/** Right, old and new latch_id; fresh and used nonce; at the robot and from afar. */
const RECOVERIES = [
  { offset: 0, isFresh: true, local: true },
  { offset: 0, isFresh: true, local: false },
  { offset: 0, isFresh: false, local: true },
  { offset: -1, isFresh: true, local: true },
  { offset: 1, isFresh: true, local: true },
] as const;

/** Everything that can happen to a world of these causes. Time passes by ticks of 1 ms only. */
function movesOf(system: System, policy: FailsafePolicy, isFew: boolean): Move[] {
  const events: ((state: FailsafeState) => FailsafeEvent)[] = [
    (state) => ({ kind: 'tick', atMs: state.nowMs + 1 }),
    (state) => ({ kind: 'actuator', atMs: state.nowMs, mcu: 'STOPPED', standstill: true }),
    (state) => ({ kind: 'actuator', atMs: state.nowMs, mcu: 'ARMED', standstill: false }),
  ];
  for (const rule of policy.rules.filter((candidate) => candidate.monitored))
    for (const verdict of verdictsOf(rule, isFew))
      events.push((state) => ({ kind: 'readings', atMs: state.nowMs, readings: [reading(rule.cause, verdict)] }));
  const has = (cause: CauseId): boolean => policy.rules.some((rule) => rule.cause === cause);
  for (const mode of FAILSAFE_MODES.filter((candidate) => has(TRIGGER_CAUSES[candidate])))
    events.push((state) => ({ kind: 'trigger', atMs: state.nowMs, mode, detail: 'asked' }));
  for (const { offset, isFresh, local } of RECOVERIES)
    events.push((state) => ({
      kind: 'recover',
      atMs: state.nowMs,
      latchId: state.latchId + offset,
      nonce: isFresh ? recoverNonce(state) : `${state.nonceSeed}-${state.noncesUsed - 1}`,
      local,
    }));
  const steps = events.map(
    (make): Move =>
      (world) =>
        take(system, policy, world, make(world.state)),
  );
  const write: Move = (world) => {
    const disk = system.durable(world.state);
    const { latchId, motionEpoch } = disk;
    const event: FailsafeEvent = { kind: 'stored', atMs: world.state.nowMs, latchId, motionEpoch };
    return take(system, policy, { ...world, disk }, event);
  };
  // The power fails between a write and the news of it.
  const torn: Move = (world) => restart(system, policy, { ...world, disk: system.durable(world.state) }, undefined);
  const crash: Move = (world) => restart(system, policy, world, undefined);
  const moves = [...steps, write, torn, crash];
  if (has('unknown_state')) {
    moves.push((world) => restart(system, policy, world, 'damaged'));
    moves.push((world) =>
      take(system, policy, world, { kind: 'store_failed', atMs: world.state.nowMs, detail: 'disk full' }),
    );
  }
  return moves;
}

/** Unknown and bad count the same, so that one of them is enough beside a third verdict. */
function verdictsOf(rule: CauseRule, isFew: boolean): readonly Verdict[] {
  if (rule.mayReturn) return ['clear', 'fair', 'bad'];
  return isFew ? ['clear', 'bad'] : ['clear', 'bad', 'unknown'];
}

const CLEARNESS: Readonly<Record<string, number>> = { clear: 2, fair: 1 };

function take(system: System, policy: FailsafePolicy, world: World, event: FailsafeEvent): ReturnType<Move> {
  const { state, output } = system.evaluate(world.state, event, policy);
  const broken = brokenInvariants({ before: world.state, event, after: state, output }, policy);
  const isOpening = world.state.phase !== 'ARMED' && state.phase === 'ARMED';
  if (isOpening && state.motionEpoch <= world.opened) broken.push('I12 a motion epoch was given twice');
  if (isOpening && world.disk.motionEpoch < state.motionEpoch) broken.push('I12 opened before it was on disk');
  return { world: { ...world, state, opened: isOpening ? state.motionEpoch : world.opened }, broken };
}

function restart(system: System, policy: FailsafePolicy, world: World, damage: string | undefined): ReturnType<Move> {
  const state = system.boot(policy, world.disk, damage, world.state.nowMs, 'seed');
  const broken = brokenByRestart(world.disk, state);
  if (damage !== undefined && state.phase !== 'LATCHED') broken.push('I9 booted on a damaged store');
  return { world: { ...world, state }, broken };
}

/** Two worlds with the same key behave the same: times and counters only matter as differences, up to a bound. */
function keyOf({ state, disk, opened }: World, policy: FailsafePolicy, freshMs: number): string {
  const ageOf = (sinceMs: number | undefined, boundMs: number): number =>
    sinceMs === undefined ? -1 : Math.min(state.nowMs - sinceMs, boundMs);
  const causes = state.causes.map((cause, i) => {
    const dwellMs = policy.rules[i]?.clearDwellMs ?? 0;
    const channel = cause.channels['a'];
    const isStored = disk.latched.some((held) => held.cause === cause.cause);
    const evidence = channel
      ? `${channel.counter},${CLEARNESS[channel.verdict] ?? 0},${ageOf(channel.clearSinceMs, dwellMs)},${freshMs < 100 ? ageOf(channel.atMs, freshMs + 1) : 0}`
      : '-';
    return `${cause.latched ? ageOf(cause.latchedAtMs, dwellMs) : '-'};${evidence};${isStored ? 1 : 0}`;
  });
  const recoveringMs = state.phase === 'RECOVERING' ? ageOf(state.phaseSinceMs, policy.recoveryMsMax + 1) : 0;
  const ahead = [state.latchId - disk.latchId, state.motionEpoch - disk.motionEpoch, state.motionEpoch - opened];
  const counters = ahead.map((difference) => Math.min(2, difference)).join();
  const isStill = state.mcu === 'STOPPED' && state.standstill;
  return `${state.phase}${state.returning ? 'r' : ''}|${causes.join('|')}|${isStill}|${recoveringMs}|${counters}`;
}

/** All sets of three kinds. */
export function kindTriples(): CauseRule[][] {
  return CAUSE_KINDS.flatMap((first, i) =>
    CAUSE_KINDS.slice(i + 1).flatMap((second, j) =>
      CAUSE_KINDS.slice(i + j + 2).map((third) => [first, second, third]),
    ),
  );
}

/** All single kinds, and all pairs of kinds. */
export function kindSets(): CauseRule[][] {
  const singles = CAUSE_KINDS.map((rule) => [rule]);
  const pairs = CAUSE_KINDS.flatMap((rule, i) => CAUSE_KINDS.slice(i + 1).map((other) => [rule, other]));
  return [...singles, ...pairs];
}

/** A pair of two measured kinds can have 200,000 states: for every test run there is one of them. */
export const isLarge = (causes: readonly CauseRule[]): boolean =>
  causes.length > 1 &&
  causes.every((rule) => rule.monitored) &&
  causes.some((rule) => rule.clearing === 'auto' || rule.optional === true);

/** A seeded random walk over the whole table. [all step invariants, purity] */
export function randomWalk(system: System, seed: number, events: number): Exploration & { readonly openings: number } {
  const policy = checkPolicy(CAUSE_RULES, 1, 1_000_000);
  const moves = movesOf(system, policy, false);
  const likely = moves.slice(0, 2);
  const random = mulberry32(seed);
  const faults: string[] = [];
  let openings = 0;
  let world: World = { state: system.boot(policy, EMPTY, undefined, 0, 'seed'), disk: EMPTY, opened: 3 };
  for (let i = 0; i < events && faults.length === 0; i++) {
    const calm = Math.floor(i / 40) % 2 === 1;
    const before = world.state.phase;
    const move = calm && random() < 0.9 ? (likely[Math.floor(random() * 2)] ?? heal) : pick(moves, random);
    for (const next of calm && random() < 0.5 ? [heal, recoverNow, writeNow] : [move]) {
      const result = next(world);
      if (!result) continue;
      world = result.world;
      faults.push(...result.broken.map((fault) => `seed ${seed} event ${i}: ${fault}`));
    }
    if (before !== 'ARMED' && world.state.phase === 'ARMED') openings += 1;
  }
  return { states: 0, transitions: events, cases: events, faults, openings };

  function heal(given: World): ReturnType<Move> {
    const readings = policy.rules.filter((rule) => rule.monitored).map((rule) => reading(rule.cause, 'clear'));
    return take(system, policy, given, { kind: 'readings', atMs: given.state.nowMs, readings });
  }
  function recoverNow(given: World): ReturnType<Move> {
    const { latchId, nowMs: atMs } = given.state;
    const nonce = recoverNonce(given.state);
    return take(system, policy, given, { kind: 'recover', atMs, latchId, nonce, local: true });
  }
  function writeNow(given: World): ReturnType<Move> {
    const disk = system.durable(given.state);
    const { latchId, motionEpoch } = disk;
    return take(system, policy, { ...given, disk }, { kind: 'stored', atMs: given.state.nowMs, latchId, motionEpoch });
  }
}

const pick = <T>(items: readonly T[], random: () => number): T => {
  const item = items[Math.floor(random() * items.length)];
  if (item === undefined) throw new Error('nothing to pick from');
  return item;
};

/** A small seeded generator, so that a failing walk can be walked again. */
export function mulberry32(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
