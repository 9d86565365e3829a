import { type ImuSignals, Worst } from './classify-signals.ts';
import type { Reading } from './state.ts';

/** How far a robot may lean, and when it falls. */
export interface BodyLimits {
  /** Streams whose IMU is fixed to the body, z up when the robot stands. */
  readonly imuStreams: readonly string[];
  /** Beyond: bad, either direction. [rad] */
  readonly rollMaxRad: number;
  readonly pitchMaxRad: number;
  /** Within both: upright, clear. [rad] */
  readonly uprightMaxRad: number;
  /** Less acceleration than this is free fall. [m/s²] */
  readonly freeFallMps2: number;
  /** Free fall of this length is a fall when tilt or impact follows. [ms] */
  readonly freeFallMs: number;
  /** Free fall of this length is a fall by itself. [ms] */
  readonly freeFallMsMax: number;
  /** More acceleration than this is an impact. [m/s²] */
  readonly impactMps2: number;
}

/** How long after free fall a tilt or an impact still belongs to it. [ms] */
const AFTERMATH_MS = 1000;
/** An orientation whose length is further from 1 is no orientation. */
const QUATERNION_ERROR_MAX = 0.05;
/** No IMU of ours can measure more. [m/s²] */
const ACCELERATION_MPS2_MAX = 2000;

/** Roll and pitch of an orientation x y z w, about x forward and y left; `undefined` when it is none. [rad] */
export function rollPitchOf(q: ArrayLike<number>): { readonly rollRad: number; readonly pitchRad: number } | undefined {
  const [x = Number.NaN, y = Number.NaN, z = Number.NaN, w = Number.NaN] = Array.from(q);
  const length = Math.hypot(x, y, z, w);
  if (!(Math.abs(length - 1) <= QUATERNION_ERROR_MAX)) return undefined;
  const n = length * length;
  const rollRad = Math.atan2((2 * (w * x + y * z)) / n, 1 - (2 * (x * x + y * y)) / n);
  const pitchRad = Math.asin(Math.max(-1, Math.min(1, (2 * (w * y - z * x)) / n)));
  return { rollRad, pitchRad };
}

/** What one IMU has shown so far. */
export class BodyHistory {
  #fallingSinceMs: number | undefined;
  #fellUntilMs = Number.NEGATIVE_INFINITY;

  readings(stream: string, imu: ImuSignals, atMs: number, limits: BodyLimits): Reading[] {
    const readings: Reading[] = [];
    let isTilted = false;
    if (imu.orientation.length > 0) {
      const tilt = new Worst();
      isTilted = addTilt(tilt, imu, limits);
      readings.push({ cause: 'tilt', channel: stream, verdict: tilt.verdict, detail: tilt.detail });
    }
    if (imu.accelerationMps2.length > 0) {
      const fall = new Worst();
      this.#addFall(fall, imu, isTilted, atMs, limits);
      readings.push({ cause: 'fall', channel: stream, verdict: fall.verdict, detail: fall.detail });
    }
    return readings;
  }

  #addFall(worst: Worst, imu: ImuSignals, isTilted: boolean, atMs: number, limits: BodyLimits): void {
    const [x = Number.NaN, y = Number.NaN, z = Number.NaN] = Array.from(imu.accelerationMps2);
    const feltMps2 = Math.hypot(x, y, z);
    if (!(feltMps2 <= ACCELERATION_MPS2_MAX)) {
      worst.add('unknown', `acceleration ${feltMps2} m/s²`);
      return;
    }
    if (feltMps2 < limits.freeFallMps2) this.#fallingSinceMs ??= atMs;
    else this.#fallingSinceMs = undefined;
    const fellMs = atMs - (this.#fallingSinceMs ?? atMs);
    if (fellMs >= limits.freeFallMs) this.#fellUntilMs = atMs + AFTERMATH_MS;
    if (fellMs >= limits.freeFallMsMax) worst.add('severe', `free fall for ${Math.round(fellMs)} ms`);
    else if (atMs <= this.#fellUntilMs && isTilted) worst.add('severe', 'free fall, then tilted');
    else if (atMs <= this.#fellUntilMs && feltMps2 > limits.impactMps2)
      worst.add('severe', `free fall, then an impact of ${feltMps2.toFixed(0)} m/s²`);
    else if (atMs <= this.#fellUntilMs) worst.add('fair', 'free fall a moment ago');
  }
}

/** @returns Whether it leans beyond a limit. */
function addTilt(worst: Worst, imu: ImuSignals, limits: BodyLimits): boolean {
  const angles = rollPitchOf(imu.orientation);
  if (!angles) {
    worst.add('unknown', `orientation ${Array.from(imu.orientation).join(' ')} is none`);
    return false;
  }
  const rollRad = Math.abs(angles.rollRad);
  const pitchRad = Math.abs(angles.pitchRad);
  if (rollRad > limits.rollMaxRad)
    worst.add('bad', `roll ${angles.rollRad.toFixed(3)} rad, at most ${limits.rollMaxRad}`);
  else if (pitchRad > limits.pitchMaxRad)
    worst.add('bad', `pitch ${angles.pitchRad.toFixed(3)} rad, at most ${limits.pitchMaxRad}`);
  else if (!(Math.max(rollRad, pitchRad) < limits.uprightMaxRad))
    worst.add('fair', `roll ${angles.rollRad.toFixed(3)} rad, pitch ${angles.pitchRad.toFixed(3)} rad`);
  return worst.verdict === 'bad';
}
