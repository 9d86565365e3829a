import { errorMessage } from '@outrider/shared/errors';
import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import { LayoutCache } from './layout-cache.ts';
import { type JointNames, StreamOddities } from './oddities.ts';
import { MessageReader, ROS_TYPE_KINDS, type RosTypeName } from './ros-messages.ts';

export interface StreamDecoderOptions {
  readonly stream: string;
  readonly type: RosTypeName;
  /** [Hz], 0: no promise. */
  readonly declaredRateHz: number;
  readonly jointNames: JointNames;
  readonly velocityMaxRadps?: Readonly<Record<string, number>>;
  /** Flags that every sample gets: `replayed` for a recording. */
  readonly flags?: number;
}

/** Bytes of a malformed payload that its text quotes. */
const QUOTED_BYTES = 32;

/** Turns the CDR payloads of one topic into the samples of one stream. */
export class StreamDecoder {
  readonly #layouts: LayoutCache;
  readonly #reader: MessageReader;
  readonly #oddities: StreamOddities;
  readonly #flags: number;

  constructor(options: StreamDecoderOptions) {
    this.#layouts = new LayoutCache(options.stream, ROS_TYPE_KINDS[options.type], options.declaredRateHz);
    this.#reader = new MessageReader(options.type, this.#layouts);
    this.#oddities = new StreamOddities(options.jointNames, options.velocityMaxRadps);
    this.#flags = options.flags ?? 0;
  }

  /** Never throws: a payload that cannot be read whole becomes a sample without values, flagged `malformed`. */
  decode(payload: Uint8Array, receivedNs: bigint, receivedMonoNs: bigint): Sample {
    try {
      const { layout, stampNs, values, flags, text } = this.#reader.read(payload);
      const judged = flags | this.#flags | this.#oddities.flagsOf(layout, values, stampNs, receivedNs);
      const sample = { layout, stampNs, receivedNs, receivedMonoNs, flags: judged, values };
      return text === undefined ? sample : { ...sample, text };
    } catch (error) {
      return malformedSample(this.#layouts, describe(error, payload), this.#flags, receivedNs, receivedMonoNs);
    }
  }
}

/** A reading that was there but could not be understood. */
export function malformedSample(
  layouts: LayoutCache,
  text: string,
  flags: number,
  receivedNs: bigint,
  receivedMonoNs: bigint,
): Sample {
  return {
    layout: layouts.layout([], [], [], {}),
    stampNs: 0n,
    receivedNs,
    receivedMonoNs,
    flags: flags | SAMPLE_FLAGS.malformed | SAMPLE_FLAGS.noStamp,
    values: new Float64Array(0),
    text,
  };
}

function describe(error: unknown, payload: Uint8Array): string {
  const quoted = Buffer.from(payload.subarray(0, QUOTED_BYTES)).toString('hex');
  return `${errorMessage(error)} (${payload.length} bytes, beginning ${quoted})`;
}
