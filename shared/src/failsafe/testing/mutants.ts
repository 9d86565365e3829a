import { severity } from '../modes.ts';
import { type FailsafeEvent, type FailsafeState, recoverNonce } from '../state.ts';
import { REAL_SYSTEM, type System } from './system.ts';

type Evaluate = System['evaluate'];
type Result = ReturnType<Evaluate>;

/** The real reducer with something changed before it or after it. */
function around(
  before: (state: FailsafeState, event: FailsafeEvent) => FailsafeEvent,
  after: (given: FailsafeState, result: Result, event: FailsafeEvent) => Result = (_, result) => result,
): System {
  const evaluate: Evaluate = (state, event, policy) =>
    after(state, REAL_SYSTEM.evaluate(state, before(state, event), policy), event);
  return { ...REAL_SYSTEM, evaluate };
}

const same = (_: FailsafeState, event: FailsafeEvent): FailsafeEvent => event;

const withState = (result: Result, change: Partial<FailsafeState>): Result => ({
  ...result,
  state: { ...result.state, ...change },
});

/** Mistakes that a person could make in the reducer. Each must be found by the checks. */
export const MUTANTS: Readonly<Record<string, System>> = {
  'only the last reading of a batch counts': around((_, event) =>
    event.kind === 'readings'
      ? {
          ...event,
          readings: event.readings.filter((r, i, all) => all.findLastIndex((o) => o.cause === r.cause) === i),
        }
      : event,
  ),
  'unknown is taken as clear': around((_, event) =>
    event.kind === 'readings'
      ? {
          ...event,
          readings: event.readings.map((r) => (r.verdict === 'unknown' ? { ...r, verdict: 'clear' as const } : r)),
        }
      : event,
  ),
  'severe only counts as bad': around((_, event) =>
    event.kind === 'readings'
      ? {
          ...event,
          readings: event.readings.map((r) => (r.verdict === 'severe' ? { ...r, verdict: 'bad' as const } : r)),
        }
      : event,
  ),
  'pending is taken as fair': around((_, event) =>
    event.kind === 'readings'
      ? {
          ...event,
          readings: event.readings.map((r) => (r.verdict === 'pending' ? { ...r, verdict: 'fair' as const } : r)),
        }
      : event,
  ),
  'one good reading resets the counter': around(same, (_, result) =>
    withState(result, {
      causes: result.state.causes.map((cause) => ({
        ...cause,
        channels: Object.fromEntries(
          Object.entries(cause.channels).map(([name, channel]) => [
            name,
            channel.verdict === 'clear' ? { ...channel, counter: 0 } : channel,
          ]),
        ),
      })),
    }),
  ),
  'all channels share one counter': around((_, event) =>
    event.kind === 'readings' ? { ...event, readings: event.readings.map((r) => ({ ...r, channel: 'a' })) } : event,
  ),
  'it trips one reading late': {
    ...REAL_SYSTEM,
    evaluate: (state, event, policy) =>
      REAL_SYSTEM.evaluate(state, event, { ...policy, counter: { ...policy.counter, trip: policy.counter.trip + 1 } }),
  },
  'it trips on the first bad reading': {
    ...REAL_SYSTEM,
    evaluate: (state, event, policy) =>
      REAL_SYSTEM.evaluate(state, event, { ...policy, counter: { ...policy.counter, bad: policy.counter.trip } }),
  },
  'the dwell is not waited for': {
    ...REAL_SYSTEM,
    evaluate: (state, event, policy) =>
      REAL_SYSTEM.evaluate(state, event, {
        ...policy,
        rules: policy.rules.map((rule) => ({ ...rule, clearDwellMs: 0 })),
      }),
  },
  'silence is not judged': around((state, event) =>
    event.kind === 'tick' && state.phase === 'ARMED'
      ? { kind: 'actuator', atMs: event.atMs, mcu: state.mcu, standstill: state.standstill }
      : event,
  ),
  'any latch_id recovers': around((state, event) =>
    event.kind === 'recover' ? { ...event, latchId: state.latchId } : event,
  ),
  'any nonce recovers': around((state, event) =>
    event.kind === 'recover' ? { ...event, nonce: recoverNonce(state) } : event,
  ),
  'a nonce can be used again': around(same, (given, result, event) =>
    event.kind === 'recover' ? withState(result, { noncesUsed: given.noncesUsed }) : result,
  ),
  'a remote recovery counts as local': around((_, event) =>
    event.kind === 'recover' ? { ...event, local: true } : event,
  ),
  'a recovery needs no write': around((state, event) =>
    event.kind === 'stored' ? { ...event, latchId: state.latchId, motionEpoch: state.motionEpoch + 1 } : event,
  ),
  'a stop during a recovery is forgotten': around((state, event) =>
    event.kind === 'trigger' && state.phase === 'RECOVERING' ? { kind: 'tick', atMs: event.atMs } : event,
  ),
  'a failed write is ignored': around((_, event) =>
    event.kind === 'store_failed' ? { kind: 'tick', atMs: event.atMs } : event,
  ),
  'the motion epoch is not raised': around(same, (given, result) =>
    withState(result, { motionEpoch: given.motionEpoch }),
  ),
  'latch_id rises with every bad reading': around(same, (given, result, event) =>
    event.kind === 'readings' && event.readings.some((r) => r.verdict === 'bad') && result.state.phase === 'LATCHED'
      ? withState(result, { latchId: given.latchId + 1 })
      : result,
  ),
  'a cause lets go once it is clear': around(same, (_, result) =>
    withState(result, {
      causes: result.state.causes.map((cause) => {
        const channels = Object.values(cause.channels);
        const isClear = channels.length > 0 && channels.every((c) => c.verdict === 'clear' && c.counter === 0);
        return isClear ? { ...cause, latched: false } : cause;
      }),
    }),
  ),
  'motion resumes when nothing is latched': around(same, (given, result) =>
    given.phase === 'LATCHED' && result.state.causes.every((cause) => !cause.latched)
      ? { state: { ...result.state, phase: 'ARMED' }, output: { ...result.output, gateOpen: true } }
      : result,
  ),
  'the gate stays open in LATCHED': {
    ...REAL_SYSTEM,
    evaluate: (state, event, policy) => {
      const result = REAL_SYSTEM.evaluate(state, event, policy);
      const wasOpen = state.phase === 'ARMED' && result.state.phase === 'LATCHED';
      return { ...result, output: { ...result.output, gateOpen: result.output.gateOpen || wasOpen } };
    },
  },
  'a recovery never ends': around((state, event) =>
    state.phase === 'RECOVERING' && event.kind === 'tick' ? { ...event, atMs: state.nowMs } : event,
  ),
  'movement does not matter': around((_, event) =>
    event.kind === 'actuator' ? { ...event, standstill: true } : event,
  ),
  'an impossible time is ignored': around((state, event) =>
    Number.isFinite(event.atMs) ? event : { ...event, atMs: state.nowMs },
  ),
  'the last worst cause names the mode': {
    ...REAL_SYSTEM,
    describe: (state, policy) => {
      const output = REAL_SYSTEM.describe(state, policy);
      const named = policy.rules.findLast(
        (rule, i) => state.causes[i]?.latched && severity(rule.action) === severity(output.action),
      );
      return { ...output, mode: named?.mode ?? output.mode };
    },
  },
  'a restart forgets the latches': {
    ...REAL_SYSTEM,
    boot: (policy, stored, damage, atMs, seed) =>
      REAL_SYSTEM.boot(policy, { ...stored, latched: [] }, damage, atMs, seed),
  },
  'a damaged store is taken as empty': {
    ...REAL_SYSTEM,
    boot: (policy, stored, _, atMs, seed) => REAL_SYSTEM.boot(policy, stored, undefined, atMs, seed),
  },
  'a robot boots armed': {
    ...REAL_SYSTEM,
    boot: (policy, stored, damage, atMs, seed) => {
      const state = REAL_SYSTEM.boot(policy, stored, damage, atMs, seed);
      return state.phase === 'BOOT' ? { ...state, phase: 'ARMED' } : state;
    },
  },
  'the opening is written with the old epoch': {
    ...REAL_SYSTEM,
    durable: (state) => ({ ...REAL_SYSTEM.durable(state), motionEpoch: state.motionEpoch }),
  },
};
