import { fieldRange, type Sample, sampleFlagNames } from '@outrider/shared/telemetry';

/** A number as JSON has it; JSON has no NaN, no infinities and no negative zero, which become texts. */
export const jsonNumber = (value: number): number | string => {
  if (Object.is(value, -0)) return '-0';
  return Number.isFinite(value) ? value : String(value);
};

/** A sample's values by field; a field of width 1 is one value. */
export function valuesByField({ layout, values }: Sample): Record<string, unknown> {
  const fields = layout.fields.map(({ name, width }): [string, unknown] => {
    const start = fieldRange(layout, name)?.start ?? 0;
    const readings = Array.from(values.subarray(start, start + width), jsonNumber);
    return [name, width === 1 && layout.names.length !== 1 ? readings[0] : readings];
  });
  return Object.fromEntries(fields);
}

/** A sample as `outrider-edge tail --json` prints it. */
export interface SampleJson {
  readonly stream: string;
  readonly kind: string;
  /** ISO 8601, UTC. */
  readonly received_at: string;
  /** ns since 1970, as text: JSON numbers cannot hold it. */
  readonly stamp_ns: string;
  readonly flags: readonly string[];
  readonly names?: readonly string[];
  readonly values: Readonly<Record<string, unknown>>;
  readonly text?: string;
}

export function sampleJson(sample: Sample): SampleJson {
  const { layout, receivedNs, stampNs, flags, text } = sample;
  return {
    stream: layout.stream,
    kind: layout.kind,
    received_at: isoOfNs(receivedNs),
    stamp_ns: String(stampNs),
    flags: sampleFlagNames(flags),
    ...(layout.names.length > 0 && { names: layout.names }),
    values: valuesByField(sample),
    ...(text !== undefined && { text }),
  };
}

/** Renders ns since 1970 with milliseconds. What no calendar has stays a number. */
export function isoOfNs(ns: bigint): string {
  const date = new Date(Number(ns / 1_000_000n));
  return Number.isNaN(date.getTime()) ? `${ns} ns` : date.toISOString();
}
