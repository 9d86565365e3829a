import type { Field, StreamKind, StreamLayout } from '../telemetry.ts';

/** The values of a sample that are analysed, under names for people. */
export interface Signals {
  readonly names: readonly string[];
  /** Where each is in a sample's values. */
  readonly indices: Int32Array;
}

/** Past this the rest of a stream's values is left out: memory and time on a robot are bounded. */
export const SIGNALS_MAX = 256;

/** What says something of the machine. Counters, covariances and enumerations do not move like measurements. */
const ANALYSED: Readonly<Record<StreamKind, readonly string[]>> = {
  joint_state: ['position', 'velocity', 'effort', 'temperature'],
  imu: ['orientation', 'angular_velocity', 'linear_acceleration'],
  power: ['voltage', 'current', 'state_of_charge', 'draw', 'temperature', 'cell_voltage', 'cell_temperature'],
  temperature: ['temperature'],
  diagnostics: [],
  mcu: [],
};
const AXES = ['x', 'y', 'z', 'w'];

/** The signals of a layout. All of a joint's come together, so that those that belong together are judged together. */
export function signalsOf(layout: StreamLayout): Signals {
  const starts = new Map<string, { start: number; width: number }>();
  let start = 0;
  for (const field of layout.fields) {
    starts.set(field.name, { start, width: field.width });
    start += field.width;
  }
  const fields = ANALYSED[layout.kind].flatMap((name) => {
    const range = starts.get(name);
    return range && range.width > 0 ? [{ name, ...range }] : [];
  });
  const isPerName = layout.kind === 'joint_state' || layout.kind === 'temperature';
  const entries: { name: string; index: number }[] = [];
  const widest = Math.max(0, ...fields.map((field) => field.width));
  for (let i = 0; i < widest; i += 1)
    for (const field of fields)
      if (i < field.width)
        entries.push({
          name: isPerName ? `${layout.names[i] || `#${i}`}.${field.name}` : fieldName(field, i),
          index: field.start + i,
        });
  const kept = entries.slice(0, SIGNALS_MAX);
  return { names: kept.map((entry) => entry.name), indices: Int32Array.from(kept, (entry) => entry.index) };
}

const fieldName = ({ name, width }: Field, i: number): string =>
  width === 1 ? name : width <= AXES.length ? `${name}.${AXES[i]}` : `${name}[${i}]`;
