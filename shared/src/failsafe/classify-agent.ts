import type { Reading, Verdict } from './state.ts';

/** What a lost link means. */
export const COMM_POLICIES = ['ignore', 'derate', 'hold'] as const;
export type CommPolicy = (typeof COMM_POLICIES)[number];

export interface CommLimits {
  readonly policy: CommPolicy;
  /** A link that was silent for longer is lost. [ms] */
  readonly lostMs: number;
  /** How long `derate` and `ignore` go on before they hold; 0: without end. [ms] */
  readonly maxMs: number;
}

export interface HostLimits {
  /** Below: low. Twice as much: clear. [bytes] */
  readonly diskMinBytes: number;
  /** A stream below this part of its declared rate is slow. */
  readonly slowFactor: number;
}

/** What the agent reported last. */
export interface HealthFacts {
  readonly hasLink: boolean;
  readonly isLinkUp: boolean;
  /** How long ago the other end was last heard, when it was reported. [ms] */
  readonly linkAgeMs: number;
  /** The running mission's; `undefined`: no mission asks for one. */
  readonly missionPolicy: CommPolicy | undefined;
  readonly missionMaxMs: number;
  /** NaN: not known. */
  readonly diskFreeBytes: number;
  readonly clockQuality: string;
  readonly receivedMs: number;
}

/** The stricter of two policies: a mission may ask for more than the configuration, never for less. */
export function stricterComm(limits: CommLimits, mission: CommPolicy | undefined, missionMaxMs: number): CommLimits {
  if (mission === undefined) return limits;
  const rank = (policy: CommPolicy): number => COMM_POLICIES.indexOf(policy);
  const policy = rank(mission) > rank(limits.policy) ? mission : limits.policy;
  const ends = [limits.maxMs, missionMaxMs].filter((ms) => ms > 0);
  return { ...limits, policy, maxMs: ends.length > 0 ? Math.min(...ends) : 0 };
}

/** Whether the link is there, as two causes: one that holds and one that slows. */
export function classifyComm(facts: HealthFacts, nowMs: number, configured: CommLimits): Reading[] {
  if (!facts.hasLink && facts.missionPolicy === undefined && configured.policy === 'ignore' && configured.maxMs === 0)
    return [];
  const limits = stricterComm(configured, facts.missionPolicy, facts.missionMaxMs);
  const silentMs = facts.linkAgeMs + Math.max(0, nowMs - facts.receivedMs);
  const isLost = !(silentMs <= limits.lostMs);
  const hasEnded = limits.maxMs > 0 && !(silentMs <= limits.lostMs + limits.maxMs);
  const words = `no link for ${Math.round(silentMs / 1000)} s`;
  // A link that is up again and silent for a moment: not lost, not good enough to let go.
  const good: Verdict = facts.isLinkUp ? 'clear' : 'fair';
  const reading = (cause: 'comm_loss' | 'comm_degraded', isBad: boolean, forGood: Verdict): Reading => ({
    cause,
    channel: 'link',
    verdict: isBad ? 'bad' : forGood,
    detail: isBad || forGood === 'fair' ? words : '',
  });
  const holds = (isLost && limits.policy === 'hold') || hasEnded;
  return [
    reading('comm_loss', holds, limits.policy === 'hold' ? good : 'clear'),
    reading('comm_degraded', isLost && limits.policy === 'derate', limits.policy === 'derate' ? good : 'clear'),
  ];
}

/** Disk and clock, where the agent knows them. */
export function classifyHost(facts: HealthFacts, limits: HostLimits): Reading[] {
  const readings: Reading[] = [];
  if (!Number.isNaN(facts.diskFreeBytes)) {
    const detail = `${Math.round(facts.diskFreeBytes / 1e6)} MB free`;
    const isLow = facts.diskFreeBytes < limits.diskMinBytes;
    const verdict = isLow ? 'bad' : facts.diskFreeBytes < 2 * limits.diskMinBytes ? 'fair' : 'clear';
    readings.push({ cause: 'disk_low', channel: 'state_dir', verdict, detail: verdict === 'clear' ? '' : detail });
  }
  if (facts.clockQuality !== '') {
    const verdict = facts.clockQuality === 'good' ? 'clear' : facts.clockQuality === 'unsure' ? 'fair' : 'bad';
    readings.push({
      cause: 'clock_bad',
      channel: 'clock',
      verdict,
      detail: verdict === 'clear' ? '' : `the clock is ${facts.clockQuality}`,
    });
  }
  return readings;
}

/** Shortest time over which a rate is counted, and fewest periods. [ms] */
const RATE_WINDOW_MS = 3000;
const RATE_PERIODS = 10;

/** Counts how often a stream comes. */
export class RateMeter {
  #window: { readonly sinceMs: number; count: number } | undefined;

  /** Takes in one sample. @returns A reading when a window is full and a rate was promised. */
  sample(stream: string, atMs: number, declaredRateHz: number, limits: HostLimits): Reading | undefined {
    // A slower stream would take longer to count than a reading stays fresh.
    const window = this.#window;
    if (window === undefined || !(declaredRateHz >= 1)) {
      this.#window = { sinceMs: atMs, count: 0 };
      return undefined;
    }
    window.count += 1;
    const spanMs = atMs - window.sinceMs;
    if (spanMs < Math.max(RATE_WINDOW_MS, (RATE_PERIODS * 1000) / declaredRateHz)) return undefined;
    const measuredHz = (window.count * 1000) / spanMs;
    this.#window = { sinceMs: atMs, count: 0 };
    const isSlow = measuredHz < limits.slowFactor * declaredRateHz;
    const detail = isSlow ? `${stream} comes at ${measuredHz.toFixed(1)} Hz of ${declaredRateHz}` : '';
    return { cause: 'source_slow', channel: stream, verdict: isSlow ? 'bad' : 'clear', detail };
  }
}
