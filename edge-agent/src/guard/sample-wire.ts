import { COMM_POLICIES, type HealthFacts } from '@outrider/shared/failsafe/classify-agent';
import { type Signals, signalsOf } from '@outrider/shared/failsafe/classify-signals';
import type { outrider } from '@outrider/shared/messages';
import { SAMPLE_FLAGS, type Sample, STREAM_KINDS, type StreamLayout, valueCount } from '@outrider/shared/telemetry';

type SerialSample = outrider.v1.SerialSample.$Properties;
type SignalReport = outrider.v1.SignalReport.$Properties;

/** Kind of a report that says what joints are told, and measures nothing. */
export const JOINT_COMMAND = 'joint_command';
const TIMES_BYTES = 24;

/** Packs samples for one connection: each layout goes with its first sample only. */
export class SamplePacker {
  readonly #ids = new Map<StreamLayout, number>();

  pack(sample: Sample): SerialSample {
    const times = Buffer.allocUnsafe(TIMES_BYTES);
    times.writeBigInt64LE(sample.stampNs, 0);
    times.writeBigInt64LE(sample.receivedNs, 8);
    times.writeBigInt64LE(sample.receivedMonoNs, 16);
    const values = Buffer.allocUnsafe(8 * sample.values.length);
    sample.values.forEach((value, i) => {
      values.writeDoubleLE(value, 8 * i);
    });
    const known = this.#ids.get(sample.layout);
    const layoutId = known ?? this.#ids.size + 1;
    if (known === undefined) this.#ids.set(sample.layout, layoutId);
    return {
      ...(known === undefined && { layout: layoutToWire(sample.layout) }),
      layoutId,
      times,
      flags: sample.flags,
      values,
      text: sample.text ?? '',
    };
  }
}

/** Unpacks the samples of one connection. */
export class SampleUnpacker {
  readonly #layouts = new Map<number, StreamLayout>();

  /** @returns The sample, or `undefined` when it does not fit its layout. */
  unpack(message: SerialSample): Sample | undefined {
    const id = message.layoutId ?? 0;
    const given = message.layout ? layoutFromWire(message.layout) : undefined;
    if (given) this.#layouts.set(id, given);
    const layout = this.#layouts.get(id);
    const { times, values } = message;
    if (!layout || times?.length !== TIMES_BYTES || values?.length !== 8 * valueCount(layout)) return undefined;
    const timeView = Buffer.from(times.buffer, times.byteOffset, times.length);
    const valueView = Buffer.from(values.buffer, values.byteOffset, values.length);
    return {
      layout,
      stampNs: timeView.readBigInt64LE(0),
      receivedNs: timeView.readBigInt64LE(8),
      receivedMonoNs: timeView.readBigInt64LE(16),
      flags: message.flags ?? 0,
      values: Float64Array.from({ length: valueCount(layout) }, (_, i) => valueView.readDoubleLE(8 * i)),
      ...(message.text && { text: message.text }),
    };
  }
}

const layoutToWire = (layout: StreamLayout): outrider.v1.Layout.$Properties => ({
  stream: layout.stream,
  kind: layout.kind,
  names: [...layout.names],
  fields: layout.fields.map((field) => ({ ...field })),
  tags: { ...layout.tags },
  declaredRateHz: layout.declaredRateHz,
});

function layoutFromWire(message: outrider.v1.Layout.$Properties): StreamLayout | undefined {
  const kind = STREAM_KINDS.find((candidate) => candidate === message.kind);
  if (!kind || !message.stream) return undefined;
  return {
    stream: message.stream,
    kind,
    names: message.names ?? [],
    fields: (message.fields ?? []).map(({ name, width }) => ({ name: name ?? '', width: width ?? 0 })),
    tags: message.tags ?? {},
    declaredRateHz: message.declaredRateHz ?? 0,
  };
}

/** What the guard needs of a sample of the agent's own sources; `undefined` when it is of no use to it. */
export function signalReport(sample: Sample): SignalReport | undefined {
  const { layout } = sample;
  // A recording says nothing about the robot in front of us.
  if ((sample.flags & SAMPLE_FLAGS.replayed) !== 0) return undefined;
  if (layout.kind === 'diagnostics' || layout.kind === 'mcu') return undefined;
  const { imu, power, ...signals } = signalsOf(sample, false);
  return {
    source: signals.isMalformed ? 'malformed' : 'agent',
    stream: layout.stream,
    kind: layout.kind,
    declaredRateHz: layout.declaredRateHz,
    receivedMonoNs: Number(sample.receivedMonoNs),
    names: [...layout.names],
    positionRad: Array.from(signals.positionRad),
    velocityRadps: Array.from(signals.velocityRadps),
    effortNm: Array.from(signals.effortNm ?? []),
    positionCommandRad: Array.from(signals.commandRad ?? []),
    temperatureC: Array.from(signals.temperatureC),
    ...(imu && {
      orientation: Array.from(imu.orientation),
      linearAcceleration: Array.from(imu.accelerationMps2),
    }),
    ...(power && {
      stateOfCharge: power.stateOfCharge,
      voltageV: power.voltageV,
      currentA: power.currentA,
      batteryTemperatureC: Array.from(power.temperatureC),
    }),
  };
}

/** The signals of a report, as the classifiers take them. */
export const signalsOfReport = (report: SignalReport): Signals => ({
  stream: report.stream ?? '',
  kind: report.kind ?? '',
  names: report.names ?? [],
  positionRad: report.positionRad ?? [],
  velocityRadps: report.velocityRadps ?? [],
  temperatureC: report.temperatureC ?? [],
  effortNm: report.effortNm ?? [],
  commandRad: report.positionCommandRad ?? [],
  imu:
    report.kind === 'imu'
      ? { orientation: report.orientation ?? [], accelerationMps2: report.linearAcceleration ?? [] }
      : undefined,
  power:
    report.kind === 'power'
      ? {
          stateOfCharge: report.stateOfCharge ?? 0,
          voltageV: report.voltageV ?? 0,
          currentA: report.currentA ?? 0,
          temperatureC: report.batteryTemperatureC ?? [],
        }
      : undefined,
  place: report.positionFrame ? { frame: report.positionFrame, at: report.position ?? [] } : undefined,
  isOwn: false,
  isMalformed: report.source === 'malformed',
});

/** What an agent reported of link, disk and clock, as the classifiers take it. */
export function healthOf(health: outrider.v1.AgentHealth.$Properties, receivedMs: number): HealthFacts {
  return {
    hasLink: health.hasLink ?? false,
    isLinkUp: health.linkUp ?? false,
    linkAgeMs: health.linkAgeMs ?? 0,
    missionPolicy: COMM_POLICIES.find((policy) => policy === health.commPolicy),
    missionMaxMs: health.commMaxMs ?? 0,
    diskFreeBytes: health.diskFreeBytes ?? Number.NaN,
    clockQuality: health.clockQuality ?? '',
    receivedMs,
  };
}
