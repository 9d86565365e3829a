import type { Sample, StreamLayout } from '@outrider/shared/telemetry';

const JOINTS = 30;
const PERIOD_NS = 20_000_000n;

/** What a 30-joint robot's serial line delivers at 50 Hz: 32-bit floats, smooth motion, noise in the last digits. */
export function jointSamples(count: number, seed = 1): Sample[] {
  const names = Array.from({ length: JOINTS }, (_, i) => `joint_${i}`);
  const layout: StreamLayout = {
    stream: 'mcu/joint_state',
    kind: 'joint_state',
    names,
    fields: ['position', 'velocity', 'effort', 'temperature'].map((name) => ({ name, width: JOINTS })),
    tags: {},
    declaredRateHz: 50,
  };
  let state = seed;
  const noise = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  return Array.from({ length: count }, (_, row): Sample => {
    const values = new Float64Array(4 * JOINTS);
    for (let joint = 0; joint < JOINTS; joint += 1) {
      const phase = row / 50 + joint;
      values[joint] = Math.fround(Math.sin(phase) + 1e-4 * noise());
      values[JOINTS + joint] = Math.fround(Math.cos(phase) + 1e-3 * noise());
      values[2 * JOINTS + joint] = Math.fround(5 * Math.sin(phase) + 0.05 * noise());
      values[3 * JOINTS + joint] = Math.fround(40 + Math.round(10 * noise()) / 10);
    }
    const at = 1_700_000_000_000_000_000n + BigInt(row) * PERIOD_NS;
    return { layout, stampNs: at, receivedNs: at + 150_000n, receivedMonoNs: at, flags: 0, values };
  });
}

/** The same sample as an integrator would write it by hand. */
export function sampleAsJson(sample: Sample): string {
  const value = (field: number, joint: number): number => sample.values[field * JOINTS + joint] as number;
  return JSON.stringify({
    stream: sample.layout.stream,
    stamp_ns: String(sample.stampNs),
    received_ns: String(sample.receivedNs),
    received_mono_ns: String(sample.receivedMonoNs),
    joint_state: sample.layout.names.map((name, joint) => ({
      name,
      position: value(0, joint),
      velocity: value(1, joint),
      effort: value(2, joint),
      temperature: value(3, joint),
    })),
  });
}
