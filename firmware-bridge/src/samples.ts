import { SAMPLE_FLAGS, type Sample, type StreamKind, type StreamLayout } from '@outrider/shared/telemetry';
import type { McuClock } from './mcu-clock.ts';
import type { McuHello, Message, MessageOf, TelemetryStream } from './messages.ts';
import { MCU_STATES, STOP_REASONS } from './messages.ts';

type TelemetryMessage = Extract<Message, { kind: TelemetryStream }>;

/** Streams of the MCU, by the message that carries them. */
export const MCU_STREAMS: Readonly<Record<TelemetryStream, string>> = {
  joints: 'mcu/joint_state',
  imu: 'mcu/imu',
  power: 'mcu/power',
  temperature: 'mcu/temperature',
  status: 'mcu/status',
};

const KINDS: Readonly<Record<TelemetryStream, StreamKind>> = {
  joints: 'joint_state',
  imu: 'imu',
  power: 'power',
  temperature: 'temperature',
  status: 'mcu',
};

/**
 * Fields of `mcu/status`, each of width 1. `state` and `stop_reason` are the indices in MCU_STATES and STOP_REASONS;
 * `lease_age` is NaN before the first heartbeat.
 */
export const STATUS_FIELDS = [
  'flags',
  'state',
  'stop_reason',
  'uptime',
  'lease_age',
  'motion_epoch',
  'rx_frames_ok',
  'rx_crc_bad',
  'rx_cobs_bad',
  'rx_oversize',
  'rx_malformed',
  'rx_lost',
  'heartbeats_stale',
  'tx_dropped',
] as const;

const LEASE_AGE_NEVER = 0xffffffff;

/** What a sensor can say at most. Outside is flagged, never changed. */
const PHYSICAL = {
  positionRad: 1000,
  velocityRadps: 1000,
  torqueNm: 10_000,
  temperatureMinC: -60,
  temperatureMaxC: 250,
  angularVelocityRadps: 100,
  linearAccelerationMps2: 1000,
  quaternionNormError: 0.01,
  voltageMaxV: 1000,
  currentMaxA: 2000,
  drawMaxW: 100_000,
} as const;

export const isTelemetry = (message: Message): message is TelemetryMessage => message.kind in MCU_STREAMS;

/** Turns telemetry messages into samples. One per handshake, because the names come from the HELLO. */
export class SampleMapper {
  readonly #layouts: Map<TelemetryStream, StreamLayout>;
  readonly #clock: McuClock;
  readonly #lastMcuUs = new Map<TelemetryStream, number>();
  readonly #namesChanged: Set<TelemetryStream>;

  /** @param before The layouts' names of the handshake before, to flag streams whose names are others now. */
  constructor(hello: McuHello, clock: McuClock, before?: McuHello) {
    this.#clock = clock;
    this.#layouts = layoutsOf(hello);
    this.#namesChanged = new Set();
    if (before !== undefined && !sameNames(before.jointNames, hello.jointNames)) this.#namesChanged.add('joints');
    if (before !== undefined && !sameNames(before.sensorNames, hello.sensorNames))
      this.#namesChanged.add('temperature');
  }

  /** Notes a rate that the MCU has accepted. */
  rateChanged(stream: TelemetryStream, rateHz: number): void {
    const layout = this.#layouts.get(stream);
    if (layout !== undefined) this.#layouts.set(stream, { ...layout, declaredRateHz: rateHz });
  }

  /** @returns The sample, `undefined` when the message has not the joints or sensors that the HELLO named. */
  toSample(message: TelemetryMessage): Sample | undefined {
    const layout = this.#layouts.get(message.kind);
    const values = valuesOf(message);
    if (layout === undefined || values.length !== layout.fields.reduce((sum, field) => sum + field.width, 0)) {
      return undefined;
    }
    const stampNs = this.#clock.stampNs(message.mcuUs);
    return {
      layout,
      stampNs,
      ...this.#clock.now(),
      flags: this.#timeFlags(message, stampNs) | valueFlags(message, values),
      values,
    };
  }

  #timeFlags(message: TelemetryMessage, stampNs: bigint): number {
    const last = this.#lastMcuUs.get(message.kind);
    this.#lastMcuUs.set(message.kind, message.mcuUs);
    let flags = stampNs === 0n ? SAMPLE_FLAGS.noStamp : 0;
    if (last !== undefined && message.mcuUs < last) flags |= SAMPLE_FLAGS.stampBackwards;
    if (this.#namesChanged.delete(message.kind)) flags |= SAMPLE_FLAGS.namesChanged;
    return flags;
  }
}

function layoutsOf(hello: McuHello): Map<TelemetryStream, StreamLayout> {
  const joints = hello.jointNames.length;
  const layout = (
    stream: TelemetryStream,
    declaredRateHz: number,
    fields: readonly (readonly [string, number])[],
    names: readonly string[] = [],
    tags: Readonly<Record<string, string>> = {},
  ): [TelemetryStream, StreamLayout] => [
    stream,
    {
      stream: MCU_STREAMS[stream],
      kind: KINDS[stream],
      names,
      fields: fields.map(([name, width]) => ({ name, width })),
      tags,
      declaredRateHz,
    },
  ];
  return new Map([
    layout(
      'joints',
      hello.jointsHz,
      [
        ['position', joints],
        ['velocity', joints],
        ['effort', joints],
        ['temperature', joints],
      ],
      hello.jointNames,
    ),
    layout('imu', hello.imuHz, [
      ['orientation', 4],
      ['angular_velocity', 3],
      ['linear_acceleration', 3],
    ]),
    layout('power', hello.powerHz, [
      ['voltage', 1],
      ['current', 1],
      ['state_of_charge', 1],
      ['draw', 1],
    ]),
    layout('temperature', hello.temperatureHz, [['temperature', hello.sensorNames.length]], hello.sensorNames),
    layout(
      'status',
      hello.statusHz,
      STATUS_FIELDS.map((name) => [name, 1] as const),
      [],
      { firmware: hello.firmware, boot_nonce: hello.bootNonce.toString(16).padStart(8, '0') },
    ),
  ]);
}

function valuesOf(message: TelemetryMessage): Float64Array {
  switch (message.kind) {
    case 'joints':
      return concat(message.positionRad, message.velocityRadps, message.torqueNm, message.temperatureC);
    case 'imu':
      return concat(message.orientation, message.angularVelocityRadps, message.linearAccelerationMps2);
    case 'power':
      return Float64Array.of(message.voltageV, message.currentA, message.stateOfCharge, message.drawW);
    case 'temperature':
      return message.temperatureC;
    case 'status':
      return Float64Array.of(
        message.flags,
        MCU_STATES.indexOf(message.state),
        STOP_REASONS.indexOf(message.stopReason),
        message.uptimeMs / 1000,
        message.leaseAgeMs === LEASE_AGE_NEVER ? Number.NaN : message.leaseAgeMs / 1000,
        message.motionEpoch,
        message.rxFramesOk,
        message.rxCrcBad,
        message.rxCobsBad,
        message.rxOversize,
        message.rxMalformed,
        message.rxLost,
        message.heartbeatsStale,
        message.txDropped,
      );
  }
}

function valueFlags(message: TelemetryMessage, values: Float64Array): number {
  // The status has one value that is NaN on purpose.
  if (message.kind === 'status') return 0;
  let flags = 0;
  if (values.some((value) => !Number.isFinite(value))) flags |= SAMPLE_FLAGS.nonFinite;
  if (isOutOfRange(message)) flags |= SAMPLE_FLAGS.outOfRange;
  return flags;
}

// NaN compares false everywhere here: it is `nonFinite`, not out of range.
function isOutOfRange(message: Exclude<TelemetryMessage, MessageOf<'status'>>): boolean {
  switch (message.kind) {
    case 'joints':
      return (
        beyond(message.positionRad, PHYSICAL.positionRad) ||
        beyond(message.velocityRadps, PHYSICAL.velocityRadps) ||
        beyond(message.torqueNm, PHYSICAL.torqueNm) ||
        message.temperatureC.some(isNoTemperature)
      );
    case 'imu':
      return (
        Math.abs(Math.hypot(...message.orientation) - 1) > PHYSICAL.quaternionNormError ||
        beyond(message.angularVelocityRadps, PHYSICAL.angularVelocityRadps) ||
        beyond(message.linearAccelerationMps2, PHYSICAL.linearAccelerationMps2)
      );
    case 'power':
      return (
        message.voltageV < 0 ||
        message.voltageV > PHYSICAL.voltageMaxV ||
        Math.abs(message.currentA) > PHYSICAL.currentMaxA ||
        message.stateOfCharge < 0 ||
        message.stateOfCharge > 1 ||
        Math.abs(message.drawW) > PHYSICAL.drawMaxW
      );
    case 'temperature':
      return message.temperatureC.some(isNoTemperature);
  }
}

const beyond = (values: Float64Array, limit: number): boolean => values.some((value) => Math.abs(value) > limit);
const isNoTemperature = (value: number): boolean =>
  value < PHYSICAL.temperatureMinC || value > PHYSICAL.temperatureMaxC;

const sameNames = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((name, i) => name === b[i]);

function concat(...columns: readonly Float64Array[]): Float64Array {
  const out = new Float64Array(columns.reduce((sum, column) => sum + column.length, 0));
  let at = 0;
  for (const column of columns) {
    out.set(column, at);
    at += column.length;
  }
  return out;
}
