import { fieldRange, SAMPLE_FLAGS, type Sample } from '../telemetry.ts';
import type { Reading, Verdict } from './state.ts';

/** Limits of one joint; what is left out is not limited. */
export interface JointLimits {
  readonly positionMinRad?: number | undefined;
  readonly positionMaxRad?: number | undefined;
  readonly velocityMaxRadps?: number | undefined;
  /** Torque, either direction. [N·m] */
  readonly effortMaxNm?: number | undefined;
  /** How far the measured position may be from the commanded one, where commands are known. [rad] */
  readonly trackingMaxRad?: number | undefined;
  /** Replaces `ThermalLimits.maxC` for this joint; trip and clear move with it. */
  readonly temperatureMaxC?: number | undefined;
}

/** Motor temperatures. [C] */
export interface ThermalLimits {
  /** Above: bad. */
  readonly maxC: number;
  /** Above: stop at once. */
  readonly tripC: number;
  /** Below: clear. */
  readonly clearC: number;
}

export interface SignalLimits {
  readonly joints: Readonly<Record<string, JointLimits>>;
  readonly thermal: ThermalLimits;
  /** Temperature streams whose sensors are motors; the temperature of a joint state always is. */
  readonly thermalStreams: readonly string[];
  /** Slower than this is standing still. [rad/s] */
  readonly standstillRadps: number;
  /** For joints without a `trackingMaxRad` of their own; `undefined`: not judged. [rad] */
  readonly trackingMaxRad?: number | undefined;
}

/** What a motor's sensor can read at all; anything else is a broken sensor. [C] */
const TEMPERATURE_MIN_C = -60;
const TEMPERATURE_MAX_C = 250;
/** No joint of ours gets there; anything beyond is a broken encoder. [rad, rad/s] */
const POSITION_RAD_MAX = 10_000;
const VELOCITY_RADPS_MAX = 1_000;
const EFFORT_NM_MAX = 100_000;

/** The part of a sample that the failsafe looks at. */
export interface Signals {
  readonly stream: string;
  readonly kind: string;
  readonly names: readonly string[];
  readonly positionRad: ArrayLike<number>;
  readonly velocityRadps: ArrayLike<number>;
  readonly temperatureC: ArrayLike<number>;
  readonly effortNm?: ArrayLike<number>;
  /** Commanded positions, one for each name; empty where nobody says. */
  readonly commandRad?: ArrayLike<number>;
  readonly imu?: ImuSignals | undefined;
  readonly power?: PowerSignals | undefined;
  readonly place?: PlaceSignals | undefined;
  /** From our own microcontroller: every joint must read well, not only those with limits. */
  readonly isOwn: boolean;
  /** The names do not fit the values, or the payload was not understood. */
  readonly isMalformed: boolean;
}

/** What an IMU says. Empty arrays: it does not say. */
export interface ImuSignals {
  /** x y z w. */
  readonly orientation: ArrayLike<number>;
  /** x y z; at rest it shows the floor pushing up. [m/s²] */
  readonly accelerationMps2: ArrayLike<number>;
}

/** What a power source says; NaN: it does not say. */
export interface PowerSignals {
  readonly voltageV: number;
  /** Positive while discharging. [A] */
  readonly currentA: number;
  /** 0–1. */
  readonly stateOfCharge: number;
  readonly temperatureC: ArrayLike<number>;
}

/** Where the robot is: x y in `map` [m], or latitude longitude in `wgs84` [deg]. */
export interface PlaceSignals {
  readonly frame: string;
  readonly at: ArrayLike<number>;
}

/** Takes the failsafe's part out of a sample. */
export function signalsOf(sample: Sample, isOwn: boolean): Signals {
  const field = (name: string): Float64Array => {
    const range = fieldRange(sample.layout, name);
    return range ? sample.values.subarray(range.start, range.start + range.width) : new Float64Array(0);
  };
  return {
    stream: sample.layout.stream,
    kind: sample.layout.kind,
    names: sample.layout.names,
    positionRad: field('position'),
    velocityRadps: field('velocity'),
    temperatureC: sample.layout.kind === 'power' ? [] : field('temperature'),
    effortNm: field('effort'),
    commandRad: field('position_command'),
    imu: sample.layout.kind === 'imu' ? imuOf(field) : undefined,
    power: sample.layout.kind === 'power' ? powerOf(field) : undefined,
    isOwn,
    isMalformed: (sample.flags & (SAMPLE_FLAGS.malformed | SAMPLE_FLAGS.nameCountMismatch)) !== 0,
  };
}

type FieldOf = (name: string) => Float64Array;

function imuOf(field: FieldOf): ImuSignals {
  // ROS says by a first covariance of -1 that a quantity is not measured.
  const isMeasured = (name: string): boolean => field(`${name}_covariance`)[0] !== -1;
  return {
    orientation: isMeasured('orientation') ? field('orientation') : [],
    accelerationMps2: isMeasured('linear_acceleration') ? field('linear_acceleration') : [],
  };
}

const powerOf = (field: FieldOf): PowerSignals => ({
  voltageV: field('voltage')[0] ?? Number.NaN,
  currentA: field('current')[0] ?? Number.NaN,
  stateOfCharge: field('state_of_charge')[0] ?? Number.NaN,
  // A cell without a sensor says NaN.
  temperatureC: [...field('temperature'), ...field('cell_temperature')].filter((celsius) => !Number.isNaN(celsius)),
});

/** All readings that one set of signals gives: at most one per cause. */
export function classifySignals(signals: Signals, limits: SignalLimits): Reading[] {
  const readings: Reading[] = [];
  if (signals.kind === 'joint_state') {
    const mechanical = classifyJoints(signals, limits);
    if (mechanical) readings.push(mechanical);
  }
  const isMotor = signals.kind === 'joint_state' || limits.thermalStreams.includes(signals.stream);
  if (isMotor) {
    const thermal = classifyTemperatures(signals, limits);
    if (thermal) readings.push(thermal);
  }
  return readings;
}

/** Whether all joints stand still; what cannot be read does not. */
export function isStandstill(signals: Signals, limits: SignalLimits): boolean {
  if (signals.velocityRadps.length === 0) return false;
  for (let i = 0; i < signals.velocityRadps.length; i++)
    if (!(Math.abs(signals.velocityRadps[i] ?? Number.NaN) < limits.standstillRadps)) return false;
  return true;
}

/** Collects the worst verdict and the words for it. */
export class Worst {
  verdict: Verdict = 'clear';
  detail = '';
  static readonly #order: readonly Verdict[] = ['clear', 'fair', 'bad', 'unknown', 'severe'];

  add(verdict: Verdict, detail: string): void {
    if (!this.isBelow(verdict)) return;
    this.verdict = verdict;
    this.detail = detail;
  }

  /** Asked before words are made that every joint of every sample would need. */
  isBelow(verdict: Verdict): boolean {
    return Worst.#order.indexOf(verdict) > Worst.#order.indexOf(this.verdict);
  }
}

/** Position and velocity against the joints' limits; `undefined` when the stream has no joint that matters. */
function classifyJoints(signals: Signals, limits: SignalLimits): Reading | undefined {
  const worst = new Worst();
  let isRelevant = signals.isOwn;
  const count = Math.max(signals.names.length, signals.positionRad.length, signals.velocityRadps.length);
  for (let i = 0; i < count; i++) {
    const name = signals.names[i];
    const limit = name === undefined ? undefined : limits.joints[name];
    if (!limit && !signals.isOwn) continue;
    isRelevant = true;
    addJoint(worst, name ?? `joint ${i}`, signals, i, limit, limits);
    addLoad(worst, name ?? `joint ${i}`, signals, i, limit, limits);
  }
  if (!isRelevant) return undefined;
  if (signals.isMalformed) worst.add('unknown', 'names and values do not fit each other');
  return { cause: 'mechanical_lock', channel: signals.stream, verdict: worst.verdict, detail: worst.detail };
}

function addJoint(
  worst: Worst,
  name: string,
  signals: Signals,
  i: number,
  limit: JointLimits | undefined,
  limits: SignalLimits,
): void {
  const positionRad = signals.positionRad[i];
  const velocityRadps = signals.velocityRadps[i];
  const needsPosition = limit?.positionMinRad !== undefined || limit?.positionMaxRad !== undefined;
  if (positionRad === undefined ? needsPosition : !(Math.abs(positionRad) <= POSITION_RAD_MAX))
    worst.add('unknown', `${name} position ${positionRad} rad`);
  const needsVelocity = limit?.velocityMaxRadps !== undefined;
  if (velocityRadps === undefined ? needsVelocity : !(Math.abs(velocityRadps) <= VELOCITY_RADPS_MAX))
    worst.add('unknown', `${name} velocity ${velocityRadps} rad/s`);
  // What is not there is beyond no limit.
  const atRad = positionRad ?? Number.NaN;
  if (atRad > (limit?.positionMaxRad ?? Number.POSITIVE_INFINITY))
    worst.add('bad', `${name} position ${atRad.toFixed(4)} rad, at most ${limit?.positionMaxRad}`);
  if (atRad < (limit?.positionMinRad ?? Number.NEGATIVE_INFINITY))
    worst.add('bad', `${name} position ${atRad.toFixed(4)} rad, at least ${limit?.positionMinRad}`);
  const speedRadps = Math.abs(velocityRadps ?? Number.NaN);
  if (speedRadps > (limit?.velocityMaxRadps ?? Number.POSITIVE_INFINITY))
    worst.add('bad', `${name} velocity ${velocityRadps?.toFixed(4)} rad/s, at most ${limit?.velocityMaxRadps}`);
  else if (speedRadps >= limits.standstillRadps && worst.isBelow('fair'))
    worst.add('fair', `${name} moves at ${velocityRadps?.toFixed(4)} rad/s`);
}

/** Torque, and the distance to the commanded position. */
function addLoad(
  worst: Worst,
  name: string,
  signals: Signals,
  i: number,
  limit: JointLimits | undefined,
  limits: SignalLimits,
): void {
  const effortNm = signals.effortNm?.[i] ?? Number.NaN;
  const effortMaxNm = limit?.effortMaxNm;
  // A joint without a torque limit may leave its effort out or say NaN, as many drivers do.
  if (effortMaxNm !== undefined) {
    if (!(Math.abs(effortNm) <= EFFORT_NM_MAX)) worst.add('unknown', `${name} torque ${effortNm} N·m`);
    else if (Math.abs(effortNm) > effortMaxNm)
      worst.add('bad', `${name} torque ${effortNm.toFixed(2)} N·m, at most ${effortMaxNm}`);
  }
  const commandRad = signals.commandRad?.[i];
  const trackingMaxRad = limit?.trackingMaxRad ?? limits.trackingMaxRad;
  if (commandRad === undefined || trackingMaxRad === undefined) return;
  const offRad = Math.abs((signals.positionRad[i] ?? Number.NaN) - commandRad);
  if (Number.isNaN(offRad)) worst.add('unknown', `${name} commanded to ${commandRad} rad`);
  else if (offRad > trackingMaxRad)
    worst.add('bad', `${name} is ${offRad.toFixed(4)} rad from its command, at most ${trackingMaxRad}`);
}

/** Motor temperatures against their limits; `undefined` when the stream carries none. */
function classifyTemperatures(signals: Signals, limits: SignalLimits): Reading | undefined {
  if (signals.temperatureC.length === 0) return undefined;
  const worst = new Worst();
  const { maxC } = limits.thermal;
  for (let i = 0; i < signals.temperatureC.length; i++) {
    const name = signals.names[i] ?? `sensor ${i}`;
    const celsius = signals.temperatureC[i] ?? Number.NaN;
    const shiftC = (limits.joints[name]?.temperatureMaxC ?? maxC) - maxC;
    const verdict = verdictOf(celsius, shiftC, limits.thermal);
    if (worst.isBelow(verdict)) worst.add(verdict, `${name} ${celsius.toFixed(1)} C`);
  }
  if (signals.isMalformed) worst.add('unknown', 'names and values do not fit each other');
  return { cause: 'thermal_shutdown', channel: signals.stream, verdict: worst.verdict, detail: worst.detail };
}

/** @param shiftC How much hotter than others this motor may get. */
function verdictOf(celsius: number, shiftC: number, { maxC, tripC, clearC }: ThermalLimits): Verdict {
  // A reading that cannot be true says nothing about the motor, however hot it claims to be.
  if (!(celsius >= TEMPERATURE_MIN_C && celsius <= TEMPERATURE_MAX_C)) return 'unknown';
  if (celsius > tripC + shiftC) return 'severe';
  if (celsius > maxC + shiftC) return 'bad';
  return celsius < clearC + shiftC ? 'clear' : 'fair';
}
