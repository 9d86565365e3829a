import { type HostLimits, RateMeter } from './classify-agent.ts';
import { BodyHistory, type BodyLimits } from './classify-body.ts';
import { type HistoryLimits, JointHistory } from './classify-history.ts';
import { type Gate, type Geofence, PlaceHistory } from './classify-place.ts';
import { PowerHistory, type PowerLimits } from './classify-power.ts';
import { classifySignals, type SignalLimits, type Signals } from './classify-signals.ts';
import type { FailsafeState, Reading } from './state.ts';

/** Everything that signals are held against. */
export interface JudgeLimits extends SignalLimits {
  readonly history: HistoryLimits;
  readonly body: BodyLimits;
  readonly power: PowerLimits;
  readonly host: HostLimits;
  /** `undefined`: there is no fence. */
  readonly geofence: Geofence | undefined;
  readonly inwardSpeedMaxMps: number;
}

/** Streams that are remembered at most; the reducer has the same bound per cause. */
const STREAMS_MAX = 64;

interface StreamHistory {
  readonly joints: JointHistory;
  readonly body: BodyHistory;
  readonly power: PowerHistory;
  readonly place: PlaceHistory;
  readonly rate: RateMeter;
}

/**
 * What signals say about each cause, with what was measured before. The same signals at the same times always give
 * the same readings; there is no clock in here.
 */
export class SignalJudge {
  readonly #limits: JudgeLimits;
  readonly #streams = new Map<string, StreamHistory>();

  constructor(limits: JudgeLimits) {
    this.#limits = limits;
  }

  /** Readings of one set of signals, in the order in which they were received. */
  judge(signals: Signals, atMs: number, declaredRateHz: number, gate: Gate): Reading[] {
    const limits = this.#limits;
    const readings = classifySignals(signals, limits);
    const history = this.#historyOf(signals.stream);
    if (!history) return readings;
    const { stream, imu, power, place } = signals;
    readings.push(...history.joints.readings(signals, atMs, declaredRateHz, limits, limits.history));
    if (imu && limits.body.imuStreams.includes(stream))
      readings.push(...history.body.readings(stream, imu, atMs, limits.body));
    if (power && limits.power.batteryStreams.includes(stream))
      readings.push(...history.power.readings(stream, power, atMs, limits.power));
    if (place && limits.geofence)
      readings.push(history.place.reading(stream, place, atMs, limits.geofence, gate, limits.inwardSpeedMaxMps));
    if (readings.length === 0) return readings;
    const rate = history.rate.sample(stream, atMs, declaredRateHz, limits.host);
    if (rate) readings.push(rate);
    return readings;
  }

  #historyOf(stream: string): StreamHistory | undefined {
    const known = this.#streams.get(stream);
    if (known || this.#streams.size >= STREAMS_MAX) return known;
    const fresh = {
      joints: new JointHistory(),
      body: new BodyHistory(),
      power: new PowerHistory(),
      place: new PlaceHistory(),
      rate: new RateMeter(),
    };
    this.#streams.set(stream, fresh);
    return fresh;
  }
}

/** What the judge must know of the failsafe. */
export const gateOf = (state: Pick<FailsafeState, 'phase' | 'returning'>): Gate => ({
  isOpen: state.phase === 'ARMED',
  isReturning: state.returning,
});
