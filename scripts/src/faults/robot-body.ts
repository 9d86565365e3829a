import type { Sample, StreamLayout } from '@outrider/shared/telemetry';
import { systemClock } from '@outrider/shared/time';

const PERIOD_MS = 20;
const RATE_HZ = 50;
const JOINTS = 6;
const ARM = Array.from({ length: JOINTS }, (_, i) => `arm_${i}`);

/** Limits of the joints of this body, as edge.yaml says them. */
export const BODY_SETTINGS = {
  joints: Object.fromEntries(
    ARM.map((name) => [name, { position_min_rad: -2, position_max_rad: 2, velocity_max_radps: 3, effort_max_nm: 40 }]),
  ),
  body: { imu_streams: ['mcu/imu', 'base/imu'] },
  battery: { streams: ['mcu/power', 'pack/power'] },
} as const;

/** What is wrong with the body: by the value that it shows. */
export interface BodyFault {
  readonly joint: number;
  readonly positionRad?: number;
  readonly velocityRadps?: number;
  readonly effortNm?: number;
  readonly temperatureC?: number;
  readonly rollRad?: number;
  readonly charge?: number;
  /** The arm says nothing at all. */
  readonly isSilent?: boolean;
}

const layout = (
  stream: string,
  kind: StreamLayout['kind'],
  names: readonly string[],
  fields: Readonly<Record<string, number>>,
): StreamLayout => ({
  stream,
  kind,
  names,
  fields: Object.entries(fields).map(([name, width]) => ({ name, width })),
  tags: {},
  declaredRateHz: RATE_HZ,
});
const ARM_LAYOUT = layout('arm/joint_state', 'joint_state', ARM, {
  position: JOINTS,
  velocity: JOINTS,
  effort: JOINTS,
  temperature: JOINTS,
});
const IMU_LAYOUT = layout('base/imu', 'imu', [], { orientation: 4, angular_velocity: 3, linear_acceleration: 3 });
const PACK_LAYOUT = layout('pack/power', 'power', [], { voltage: 1, current: 1, state_of_charge: 1, draw: 1 });

/** Sensors that the agent reads itself, as it does from ROS 2: an arm, an IMU and a battery at 50 Hz. */
export class RobotBody {
  readonly #emit: (sample: Sample) => void;
  readonly #timer: NodeJS.Timeout;
  #fault: BodyFault | undefined;
  #round = 0;

  constructor(emit: (sample: Sample) => void) {
    this.#emit = emit;
    this.#timer = setInterval(() => this.#tell(), PERIOD_MS);
  }

  /** From the next sample on; `undefined`: it is well again. */
  set fault(fault: BodyFault | undefined) {
    this.#fault = fault;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tell(): void {
    this.#round += 1;
    const {
      joint = 0,
      positionRad,
      velocityRadps,
      effortNm,
      temperatureC,
      rollRad = 0,
      charge,
      isSilent,
    } = this.#fault ?? {};
    const column = (well: number, fault: number | undefined): number[] =>
      ARM.map((_, i) => (i === joint && fault !== undefined ? fault : well));
    // Encoders are never as quiet as a constant.
    const sway = 1e-4 * Math.sin(this.#round);
    if (!isSilent) {
      this.#send(ARM_LAYOUT, [
        ...column(1.9 + sway, positionRad),
        ...column(0, velocityRadps),
        ...column(5, effortNm),
        ...column(40, temperatureC),
      ]);
    }
    const upright = [Math.sin(rollRad / 2), 0, 0, Math.cos(rollRad / 2)];
    this.#send(IMU_LAYOUT, [...upright, 0, 0, 0, 0, 0, 9.81 + sway]);
    this.#send(PACK_LAYOUT, [48 + sway, 2, charge ?? 0.8, 96]);
  }

  #send(stream: StreamLayout, values: readonly number[]): void {
    const monoNs = BigInt(Math.round(systemClock.monotonicMs() * 1e6));
    const receivedNs = BigInt(systemClock.epochMs()) * 1_000_000n;
    this.#emit({
      layout: stream,
      stampNs: receivedNs,
      receivedNs,
      receivedMonoNs: monoNs,
      flags: 0,
      values: Float64Array.from(values),
    });
  }
}
