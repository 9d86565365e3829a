import type { CauseRule, FailsafePolicy } from './rules.ts';
import type { CauseState, ChannelState, Reading, Verdict } from './state.ts';

/** Where readings go whose channel does not fit any more. It never gets credit for a good one. */
export const OVERFLOW_CHANNEL = '(too many channels)';

/** Adds one verdict to a line of evidence: a leaky counter, capped at the trip level. */
export function stepChannel(
  before: ChannelState | undefined,
  verdict: Verdict,
  detail: string,
  atMs: number,
  counting: FailsafePolicy['counter'],
): ChannelState {
  const counter = nextCounter(before?.counter ?? 0, verdict, counting);
  const clearSinceMs = verdict === 'clear' ? (before?.clearSinceMs ?? atMs) : undefined;
  return { counter, verdict, atMs, clearSinceMs, detail };
}

function nextCounter(counter: number, verdict: Verdict, counting: FailsafePolicy['counter']): number {
  switch (verdict) {
    case 'clear':
    case 'fair':
      return Math.max(0, counter - counting.good);
    case 'bad':
    case 'unknown':
      return Math.min(counting.trip, counter + counting.bad);
    case 'severe':
      return counting.trip;
    case 'pending':
      return counter;
  }
}

/** Adds one reading to a cause. While ARMED nothing may be pending any more: it is unknown. */
export function stepCause(
  cause: CauseState,
  reading: Reading,
  isArmed: boolean,
  atMs: number,
  policy: FailsafePolicy,
): CauseState {
  const fits = reading.channel in cause.channels || Object.keys(cause.channels).length < policy.channelsMax;
  const channel = fits ? reading.channel : OVERFLOW_CHANNEL;
  const verdict = !fits || (isArmed && reading.verdict === 'pending') ? 'unknown' : reading.verdict;
  const next = stepChannel(cause.channels[channel], verdict, reading.detail, atMs, policy.counter);
  return { ...cause, channels: { ...cause.channels, [channel]: next } };
}

/** Counts every channel of a monitored cause that fell silent as one unknown reading. */
export function stepSilence(cause: CauseState, rule: CauseRule, atMs: number, policy: FailsafePolicy): CauseState {
  if (!rule.monitored) return cause;
  let channels: Record<string, ChannelState> | undefined;
  for (const name in cause.channels) {
    const channel = cause.channels[name];
    if (!channel || atMs - channel.atMs <= rule.freshMs) continue;
    channels ??= { ...cause.channels };
    const detail = `${name}: no reading for ${Math.round(atMs - channel.atMs)} ms`;
    channels[name] = { ...stepChannel(channel, 'unknown', detail, atMs, policy.counter), atMs: channel.atMs };
  }
  return channels ? { ...cause, channels } : cause;
}

/** The channel that trips the cause now, if any does. */
export function trippingChannel(cause: CauseState, policy: FailsafePolicy): ChannelState | undefined {
  for (const name in cause.channels) {
    const channel = cause.channels[name];
    if (channel && channel.counter >= policy.counter.trip) return channel;
  }
  return undefined;
}

/**
 * Why a cause does not allow the gate to open, as a sentence; `undefined` when it does.
 *
 * A latched cause needs every channel clear for the whole dwell. One that is not latched needs fresh readings
 * that are not bad.
 */
export function unmetOf(cause: CauseState, rule: CauseRule, atMs: number): string | undefined {
  const channels = Object.entries(cause.channels);
  if (rule.monitored) {
    if (channels.length === 0 && !rule.optional) return `${rule.cause}: no reading yet`;
    for (const [name, channel] of channels) {
      const where = `${rule.cause} (${name})`;
      if (atMs - channel.atMs > rule.freshMs) return `${where}: no fresh reading`;
      if (channel.verdict === 'pending') return `${where}: no reading yet`;
      const isFairEnough = channel.verdict === 'fair' && (!cause.latched || rule.mayReturn);
      if (channel.verdict !== 'clear' && !isFairEnough) return `${where}: not clear: ${channel.detail}`;
      if (channel.counter > 0) return `${where}: not settled yet`;
    }
  }
  if (!cause.latched) return undefined;
  // Outside a fence nothing gets clear by waiting; there the dwell counts from the stop.
  const notClearSinceMs = rule.mayReturn ? cause.latchedAtMs : atMs;
  const clearSinceMs = channels.reduce(
    (latest, [, channel]) => Math.max(latest, channel.clearSinceMs ?? notClearSinceMs),
    cause.latchedAtMs,
  );
  const missingMs = rule.clearDwellMs - (atMs - clearSinceMs);
  return missingMs > 0 ? `${rule.cause}: must stay clear for another ${Math.ceil(missingMs)} ms` : undefined;
}
