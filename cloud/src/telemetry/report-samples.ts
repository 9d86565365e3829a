import type { Field, Sample, StreamKind } from '@outrider/shared/telemetry';
import type { EpochMs } from '@outrider/shared/time';
import type { JointReading, TelemetryReport } from './ports.ts';

const NS_PER_MS = 1_000_000n;
const JOINT_FIELDS = [
  ['position', 'positionRad'],
  ['velocity', 'velocityRadps'],
  ['effort', 'effortNm'],
  ['temperature', 'temperatureC'],
] as const satisfies readonly (readonly [string, keyof JointReading])[];
const POWER_FIELDS = [
  ['voltage', 'voltageV'],
  ['current', 'currentA'],
  ['state_of_charge', 'stateOfCharge'],
  ['draw', 'drawW'],
] as const satisfies readonly (readonly [string, keyof NonNullable<TelemetryReport['power']>])[];

/** Quaternion x y z w of fixed-axis roll, pitch, yaw (REP 103). */
export function quaternionOf(rollRad: number, pitchRad: number, yawRad: number): [number, number, number, number] {
  const [sr, cr] = [Math.sin(rollRad / 2), Math.cos(rollRad / 2)];
  const [sp, cp] = [Math.sin(pitchRad / 2), Math.cos(pitchRad / 2)];
  const [sy, cy] = [Math.sin(yawRad / 2), Math.cos(yawRad / 2)];
  return [
    sr * cp * cy - cr * sp * sy,
    cr * sp * cy + sr * cp * sy,
    cr * cp * sy - sr * sp * cy,
    cr * cp * cy + sr * sp * sy,
  ];
}

/** What a report measured, a sample for each stream that it has something for. */
export function samplesOf(report: TelemetryReport, receivedAt: EpochMs): Sample[] {
  const base = { stampNs: BigInt(report.at) * NS_PER_MS, receivedNs: BigInt(receivedAt) * NS_PER_MS };
  const sampleOf = (
    kind: StreamKind,
    names: readonly string[],
    columns: readonly [string, readonly number[]][],
  ): Sample => ({
    ...base,
    receivedMonoNs: 0n,
    flags: 0,
    layout: {
      stream: `api/${kind}`,
      kind,
      names,
      fields: columns.map(([name, values]): Field => ({ name, width: values.length })),
      tags: {},
      declaredRateHz: 0,
    },
    values: Float64Array.from(columns.flatMap(([, values]) => values)),
  });
  return [
    ...jointSample(report, sampleOf),
    ...imuSample(report, sampleOf),
    ...powerSample(report, sampleOf),
    ...temperatureSample(report, sampleOf),
    ...flagSample(report, sampleOf),
  ];
}

type SampleOf = (kind: StreamKind, names: readonly string[], columns: readonly [string, readonly number[]][]) => Sample;

/** A field that no joint has is left out; one that only some have is NaN for the others, never zero. */
function jointSample({ joints = [] }: TelemetryReport, sampleOf: SampleOf): Sample[] {
  if (joints.length === 0) return [];
  const columns = JOINT_FIELDS.map(([name, key]): [string, number[]] => [
    name,
    joints.some((joint) => joint[key] !== undefined) ? joints.map((joint) => joint[key] ?? Number.NaN) : [],
  ]);
  const names = joints.map((joint) => joint.name);
  return [sampleOf('joint_state', names, columns)];
}

function imuSample({ imu }: TelemetryReport, sampleOf: SampleOf): Sample[] {
  if (!imu) return [];
  const { rollRad, pitchRad, yawRad } = imu;
  const columns: [string, readonly number[]][] = [];
  const angles = [rollRad, pitchRad, yawRad];
  if (angles.every((angle) => angle !== undefined)) {
    const [roll, pitch, yaw] = angles as [number, number, number];
    columns.push(['orientation', quaternionOf(roll, pitch, yaw)]);
  }
  // The angles as they were said: a report may have only some of them.
  if (angles.some((angle) => angle !== undefined))
    columns.push(['roll_pitch_yaw', angles.map((angle) => angle ?? Number.NaN)]);
  if (imu.angularVelocityRadps) columns.push(['angular_velocity', imu.angularVelocityRadps]);
  if (imu.linearAccelerationMps2) columns.push(['linear_acceleration', imu.linearAccelerationMps2]);
  return columns.length === 0 ? [] : [sampleOf('imu', [], columns)];
}

function powerSample({ power }: TelemetryReport, sampleOf: SampleOf): Sample[] {
  if (!power) return [];
  const columns = POWER_FIELDS.flatMap(([name, key]): [string, number[]][] => {
    const value = power[key];
    return value === undefined ? [] : [[name, [value]]];
  });
  return columns.length === 0 ? [] : [sampleOf('power', [], columns)];
}

function temperatureSample({ temperaturesC = {} }: TelemetryReport, sampleOf: SampleOf): Sample[] {
  const names = Object.keys(temperaturesC);
  if (names.length === 0) return [];
  return [sampleOf('temperature', names, [['temperature', Object.values(temperaturesC)]])];
}

function flagSample({ flags = [] }: TelemetryReport, sampleOf: SampleOf): Sample[] {
  if (flags.length === 0) return [];
  return [{ ...sampleOf('diagnostics', [], [['level', []]]), text: JSON.stringify(flags) }];
}
