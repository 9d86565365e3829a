import type { FailsafePhase } from './modes.ts';
import type { McuState, Reading } from './state.ts';

/** When silence becomes a cause. */
export interface LivenessLimits {
  /** A stream is stale after this many of its own periods. */
  readonly staleFactor: number;
  /** No stream is stale before this, however fast it is. [ms] */
  readonly staleMsMin: number;
  /** The microcontroller is silent after this. [ms] */
  readonly mcuSilentMs: number;
  /** The agent's counters may stand still for this long. [ms] */
  readonly agentStuckMs: number;
  /** What was never there yet is pending, not missing, for so long after the start. [ms] */
  readonly bootGraceMs: number;
  /** How long the microcontroller may take to arm or to stop. [ms] */
  readonly mcuReactionMs: number;
}

/** By then two punctual rounds of 20 ms would have judged the same silence. [ms] */
const CERTAIN_AFTER_MS = 40;

/** Silence grows by itself: a round that is late sees what the ones that were left out would have seen twice. */
const ofSilence = (silentMs: number, limitMs: number): 'bad' | 'severe' =>
  silentMs > limitMs + CERTAIN_AFTER_MS ? 'severe' : 'bad';

/** How long a stream of this rate may be silent. 0 Hz: its rate is unknown, one second counts as a period. [ms] */
export function staleAfterMs(declaredRateHz: number, limits: LivenessLimits): number {
  const periodMs = declaredRateHz > 0 ? 1000 / declaredRateHz : 1000;
  return Math.max(limits.staleMsMin, limits.staleFactor * periodMs);
}

/** Whether a stream that others rely on still comes, by the monotonic clock of its reception. */
export function classifyStream(
  stream: string,
  lastMs: number | undefined,
  declaredRateHz: number,
  startedMs: number,
  nowMs: number,
  limits: LivenessLimits,
): Reading {
  const base = { cause: 'source_stale', channel: stream } as const;
  if (lastMs === undefined) return { ...base, ...neverSeen(stream, startedMs, nowMs, limits) };
  const silentMs = nowMs - lastMs;
  const limitMs = staleAfterMs(declaredRateHz, limits);
  return silentMs > limitMs
    ? { ...base, verdict: ofSilence(silentMs, limitMs), detail: `${stream} silent for ${Math.round(silentMs)} ms` }
    : { ...base, verdict: 'clear', detail: '' };
}

/** Whether the microcontroller sends valid frames. */
export function classifyMcuSilence(
  lastFrameMs: number | undefined,
  startedMs: number,
  nowMs: number,
  limits: LivenessLimits,
): Reading {
  const base = { cause: 'mcu_silent', channel: 'serial' } as const;
  if (lastFrameMs === undefined) return { ...base, ...neverSeen('the microcontroller', startedMs, nowMs, limits) };
  const silentMs = nowMs - lastFrameMs;
  return silentMs > limits.mcuSilentMs
    ? {
        ...base,
        verdict: ofSilence(silentMs, limits.mcuSilentMs),
        detail: `no valid frame for ${Math.round(silentMs)} ms`,
      }
    : { ...base, verdict: 'clear', detail: '' };
}

/** What the guard knows of the microcontroller's obedience. */
export interface McuFacts {
  readonly state: McuState;
  /** It restarted since the gate opened or since its last arming. */
  readonly hasRestarted: boolean;
  /** It has confirmed ARMED since the gate opened. */
  readonly hasArmed: boolean;
  /** The guard has told it to hold, and not to let go again. */
  readonly isHoldWanted?: boolean;
}

/** Whether the microcontroller does what the guard's phase wants of it. */
export function classifyMcu(
  facts: McuFacts,
  phase: FailsafePhase,
  phaseSinceMs: number,
  nowMs: number,
  limits: LivenessLimits,
): Reading {
  const base = { cause: 'mcu_fault', channel: 'serial' } as const;
  if (facts.state === 'UNKNOWN' || facts.state === 'SILENT') {
    // Silence has its own cause, which trips by itself; while it lasts, nothing is known about obedience.
    const verdict = phase === 'ARMED' && facts.state === 'SILENT' ? 'fair' : 'pending';
    return { ...base, verdict, detail: `its state is ${facts.state}` };
  }
  const isLate = nowMs - phaseSinceMs > limits.mcuReactionMs;
  if (phase === 'ARMED') {
    if (facts.hasRestarted) return { ...base, verdict: 'severe', detail: 'it restarted while armed' };
    if (facts.state === 'ARMED') return { ...base, verdict: 'clear', detail: '' };
    if (facts.state === 'HOLDING' && facts.isHoldWanted === true) return { ...base, verdict: 'clear', detail: '' };
    if (facts.hasArmed) return { ...base, verdict: 'severe', detail: `it went to ${facts.state} by itself` };
    return isLate
      ? { ...base, verdict: 'severe', detail: `it did not arm within ${limits.mcuReactionMs} ms` }
      : { ...base, verdict: 'fair', detail: 'it is arming' };
  }
  if (facts.state === 'STOPPED') return { ...base, verdict: 'clear', detail: '' };
  return isLate
    ? { ...base, verdict: 'bad', detail: `told to stop, it is ${facts.state}` }
    : { ...base, verdict: 'fair', detail: `it is ${facts.state}, stopping` };
}

/** An emergency-stop line. `undefined`: it could not be read. */
export function classifyStopLine(channel: string, isActive: boolean | undefined): Reading {
  const base = { cause: 'estop', channel } as const;
  if (isActive === undefined) return { ...base, verdict: 'unknown', detail: `${channel} cannot be read` };
  return isActive
    ? { ...base, verdict: 'severe', detail: `${channel} is active` }
    : { ...base, verdict: 'clear', detail: '' };
}

/** What the guard knows of the agent's work. */
export interface AgentFacts {
  readonly isConnected: boolean;
  /** An agent has connected since this guard started. */
  readonly wasConnected: boolean;
  /** Its evaluator counter has moved since it connected. Until then it is still starting. */
  readonly hasProved: boolean;
  /** When its evaluator counter last moved, or it connected. */
  readonly tickMovedMs: number;
  /** Since when samples wait that it has not consumed; `undefined`: none do. */
  readonly samplesWaitSinceMs: number | undefined;
}

/** Whether the agent proves by its counters that it works. Before the first agent there is nothing to prove. */
export function classifyAgent(facts: AgentFacts, nowMs: number, limits: LivenessLimits): Reading {
  const base = { cause: 'agent_stuck', channel: 'agent' } as const;
  if (!facts.wasConnected) return { ...base, verdict: 'pending', detail: 'no agent has connected yet' };
  const tickMs = nowMs - facts.tickMovedMs;
  const stuck = (forMs: number): 'bad' | 'severe' => ofSilence(forMs, limits.agentStuckMs);
  if (!facts.isConnected) return { ...base, verdict: stuck(tickMs), detail: 'the agent is gone' };
  if (!facts.hasProved && tickMs <= limits.bootGraceMs)
    return { ...base, verdict: 'pending', detail: 'the agent has not proved its work yet' };
  if (tickMs > limits.agentStuckMs)
    return { ...base, verdict: stuck(tickMs), detail: `its tick counter stands still for ${Math.round(tickMs)} ms` };
  const waitMs = nowMs - (facts.samplesWaitSinceMs ?? nowMs);
  if (waitMs > limits.agentStuckMs)
    return { ...base, verdict: stuck(waitMs), detail: `it consumed no sample for ${Math.round(waitMs)} ms` };
  return { ...base, verdict: 'clear', detail: '' };
}

function neverSeen(
  what: string,
  startedMs: number,
  nowMs: number,
  limits: LivenessLimits,
): Pick<Reading, 'verdict' | 'detail'> {
  return nowMs - startedMs > limits.bootGraceMs
    ? { verdict: 'bad', detail: `${what} was never heard` }
    : { verdict: 'pending', detail: `waiting for ${what}` };
}
