import { type JointLimits, type SignalLimits, type Signals, Worst } from './classify-signals.ts';
import type { Reading } from './state.ts';

/** When a value that is right by itself cannot be right after the one before. */
export interface HistoryLimits {
  /** Fastest that a joint without a velocity limit can move at all. [rad/s] */
  readonly jumpRadpsMax: number;
  /** What an encoder may be off by from one sample to the next, beside motion. [rad] */
  readonly jumpMarginRad: number;
  /** A joint that says it moves must change its position within this time. [ms] */
  readonly frozenMs: number;
  /** A motor may not heat up faster than this. [C/s] */
  readonly motorRiseMaxCps: number;
  /** Over which time the rise is measured. [ms] */
  readonly riseWindowMs: number;
}

interface JointMemory {
  positionRad: number;
  /** When it last changed by even one bit, or last stood still. [ms] */
  movedMs: number;
}

interface Warmth {
  readonly atMs: number;
  readonly temperatureC: readonly number[];
}

/** What was measured before, of one stream. */
export class JointHistory {
  #names: readonly string[] = [];
  #atMs = Number.NEGATIVE_INFINITY;
  #joints: JointMemory[] = [];
  #warmth: Warmth[] = [];

  /** Readings of two channels: one for the encoders, one for the rise of temperature. */
  readings(
    signals: Signals,
    atMs: number,
    declaredRateHz: number,
    limits: SignalLimits,
    history: HistoryLimits,
  ): Reading[] {
    // Other joints under the same name of stream: nothing of before says anything about them.
    if (signals.names.length !== this.#names.length || signals.names.some((name, i) => name !== this.#names[i])) {
      this.#joints = [];
      this.#warmth = [];
      this.#names = signals.names;
    }
    const readings = [...this.#encoders(signals, atMs, declaredRateHz, limits, history)];
    const rise = this.#rise(signals, atMs, limits, history);
    if (rise) readings.push(rise);
    this.#atMs = atMs;
    return readings;
  }

  #encoders(
    signals: Signals,
    atMs: number,
    declaredRateHz: number,
    limits: SignalLimits,
    history: HistoryLimits,
  ): Reading[] {
    const worst = new Worst();
    // Samples that were held up arrive together; each still stands for its period.
    const stepMs = Math.max(atMs - this.#atMs, declaredRateHz > 0 ? 1000 / declaredRateHz : 0);
    let isRelevant = false;
    for (let i = 0; i < signals.positionRad.length; i++) {
      const name = signals.names[i] ?? `joint ${i}`;
      const limit = limits.joints[name];
      if (!limit && !signals.isOwn) continue;
      isRelevant = true;
      const positionRad = signals.positionRad[i] ?? Number.NaN;
      const before = this.#joints[i];
      const speedRadps = Math.abs(signals.velocityRadps[i] ?? 0);
      if (before) addJump(worst, name, Math.abs(positionRad - before.positionRad), stepMs, limit, history);
      const isStill = !before || before.positionRad !== positionRad || !(speedRadps > limits.standstillRadps);
      const movedMs = isStill ? atMs : before.movedMs;
      if (atMs - movedMs > history.frozenMs)
        worst.add('unknown', `${name} says ${speedRadps.toFixed(3)} rad/s and its position is frozen`);
      // What cannot be read is no place to jump from.
      if (!Number.isFinite(positionRad)) continue;
      if (before) [before.positionRad, before.movedMs] = [positionRad, movedMs];
      else this.#joints[i] = { positionRad, movedMs };
    }
    if (!isRelevant) return [];
    const channel = `${signals.stream} encoders`;
    return [{ cause: 'mechanical_lock', channel, verdict: worst.verdict, detail: worst.detail }];
  }

  #rise(signals: Signals, atMs: number, limits: SignalLimits, history: HistoryLimits): Reading | undefined {
    const isMotor = signals.kind === 'joint_state' || limits.thermalStreams.includes(signals.stream);
    if (!isMotor || signals.temperatureC.length === 0) return undefined;
    const worst = new Worst();
    while ((this.#warmth[1]?.atMs ?? atMs) <= atMs - history.riseWindowMs) this.#warmth.shift();
    const oldest = this.#warmth[0];
    // Sensors count in whole degrees: over less than the window one count would look like a fire.
    if (oldest && atMs - oldest.atMs >= history.riseWindowMs) addRise(worst, signals, oldest, atMs, history);
    // A quarter of the window is fine enough, and bounds the memory at any rate.
    const last = this.#warmth.at(-1);
    if (!last || atMs - last.atMs >= history.riseWindowMs / 4)
      this.#warmth.push({ atMs, temperatureC: Array.from(signals.temperatureC) });
    const channel = `${signals.stream} rise`;
    return { cause: 'thermal_shutdown', channel, verdict: worst.verdict, detail: worst.detail };
  }
}

function addRise(worst: Worst, signals: Signals, before: Warmth, atMs: number, history: HistoryLimits): void {
  for (let i = 0; i < signals.temperatureC.length; i++) {
    const roseC = (signals.temperatureC[i] ?? Number.NaN) - (before.temperatureC[i] ?? Number.NaN);
    const riseCps = (roseC / (atMs - before.atMs)) * 1000;
    const name = signals.names[i] ?? `sensor ${i}`;
    if (riseCps > history.motorRiseMaxCps)
      worst.add('bad', `${name} heats up by ${riseCps.toFixed(1)} C/s, at most ${history.motorRiseMaxCps}`);
  }
}

function addJump(
  worst: Worst,
  name: string,
  jumpRad: number,
  stepMs: number,
  limit: JointLimits | undefined,
  history: HistoryLimits,
): void {
  // Twice the speed: sampling and the reception's own jitter stretch a period.
  const speedRadpsMax = limit?.velocityMaxRadps === undefined ? history.jumpRadpsMax : 2 * limit.velocityMaxRadps;
  const jumpMaxRad = (speedRadpsMax * stepMs) / 1000 + history.jumpMarginRad;
  if (jumpRad > jumpMaxRad)
    worst.add('severe', `${name} jumped by ${jumpRad.toFixed(4)} rad in ${Math.round(stepMs)} ms`);
}
