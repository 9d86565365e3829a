import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import { CsvPlayback } from './csv-playback.ts';
import { JointNames } from './oddities.ts';
import type { CsvMapping, ReplayTopic } from './options.ts';
import { type RecordedTopic, type Recording, type Remark, recordingFormat, refuse } from './recording.ts';
import { openDb3 } from './recording-db3.ts';
import { openMcap } from './recording-mcap.ts';
import { ROS_TYPE_NAMES, rosTypeName } from './ros-messages.ts';
import { StreamDecoder } from './stream-decoder.ts';

/** A file as the samples that it holds, in an order that is the same each time. */
export interface Playback {
  /** From the first sample on. `receivedMonoNs` is 0: nothing was received yet. */
  samples(): AsyncGenerator<Sample, void, void>;
  /** How much has been read, 0 to 1. */
  fractionRead(logTimeNs: bigint): number;
  /** Known once all samples were read. */
  remark(): Remark | undefined;
  close(): Promise<void>;
}

export interface PlaybackOptions {
  readonly file: string;
  /** Which topics, and what they are called here. Absent: every topic of a known type, under its own name. */
  readonly topics?: readonly ReplayTopic[];
  /** Needed for a CSV file. */
  readonly columns?: CsvMapping;
  readonly velocityMaxRadps?: Readonly<Record<string, number>>;
  /** Where a private copy of a write-ahead-log `.db3` may lie for a moment. */
  readonly scratchDir?: string;
}

/** What the cloud takes as the name of a stream. */
const STREAM_NAME = /^\P{Cc}{1,256}$/u;

/** @throws DomainError `not_found` or `invalid` that says what is wrong with the file or the mapping. */
export async function openPlayback(options: PlaybackOptions): Promise<Playback> {
  const { file, columns } = options;
  const format = await recordingFormat(file);
  if (format === 'csv') {
    if (!columns) throw refuse(file, 'is a CSV file: say in `columns` which column is what');
    return new CsvPlayback(file, columns, options.velocityMaxRadps);
  }
  if (format === 'ulog') {
    // Loaded when needed: no robot that runs reads PX4 logs.
    const { openULog } = await import('./ulog-playback.ts');
    return openULog(file, options.topics);
  }
  const recording = format === 'mcap' ? await openMcap(file) : await openDb3(file, options.scratchDir);
  try {
    return new RosPlayback(recording, options);
  } catch (error) {
    await recording.close();
    throw error;
  }
}

/** A rosbag2 file through the readers that live messages go through too. */
class RosPlayback implements Playback {
  readonly #recording: Recording;
  readonly #options: PlaybackOptions;

  constructor(recording: Recording, options: PlaybackOptions) {
    this.#recording = recording;
    this.#options = options;
    if (recording.topics) this.#check(recording.topics);
  }

  async *samples(): AsyncGenerator<Sample, void, void> {
    const seen = new Map<string, RecordedTopic>();
    const decoders = new Map<RecordedTopic, StreamDecoder | undefined>();
    const jointNames = new JointNames();
    const decoderOf = (topic: RecordedTopic): StreamDecoder | undefined => {
      if (!decoders.has(topic)) {
        seen.set(topic.topic, topic);
        decoders.set(topic, this.#decoder(topic, jointNames));
      }
      return decoders.get(topic);
    };
    for await (const { topic, logTimeNs, payload } of this.#recording.messages((topic) => !!decoderOf(topic))) {
      const sample = decoderOf(topic)?.decode(payload, logTimeNs, 0n);
      if (sample) yield sample;
    }
    if (!this.#recording.topics) this.#check([...seen.values()]);
  }

  fractionRead(logTimeNs: bigint): number {
    return this.#recording.fractionRead(logTimeNs);
  }

  remark(): Remark | undefined {
    return this.#recording.remark();
  }

  close(): Promise<void> {
    return this.#recording.close();
  }

  #decoder(topic: RecordedTopic, jointNames: JointNames): StreamDecoder | undefined {
    const type = rosTypeName(topic.type);
    const wanted = this.#options.topics?.find((mapping) => mapping.topic === topic.topic);
    if (!type || topic.encoding !== 'cdr' || (this.#options.topics && !wanted)) return undefined;
    const stream = wanted?.stream ?? topic.topic;
    if (!STREAM_NAME.test(stream))
      throw refuse(this.#options.file, `has a topic ${JSON.stringify(stream)}; rename it in \`topics\``);
    return new StreamDecoder({
      stream,
      type,
      declaredRateHz: wanted?.rateHz ?? 0,
      jointNames,
      flags: SAMPLE_FLAGS.replayed,
      ...(this.#options.velocityMaxRadps ? { velocityMaxRadps: this.#options.velocityMaxRadps } : {}),
    });
  }

  /** Says what cannot be replayed before anything is. */
  #check(topics: readonly RecordedTopic[]): void {
    const { file } = this.#options;
    const found =
      topics
        .map(({ topic, type, encoding }) => `${topic} (${type}${encoding === 'cdr' ? '' : `, ${encoding}`})`)
        .join(', ') || 'none at all';
    for (const { topic: name, type } of this.#options.topics ?? []) {
      const topic = topics.find((one) => one.topic === name);
      if (!topic) throw refuse(file, `has no topic ${name}; it has ${found}`);
      const recorded = rosTypeName(topic.type);
      if (!recorded || topic.encoding !== 'cdr' || (type && type !== recorded))
        throw refuse(
          file,
          `has ${topic.type} in ${topic.encoding} on ${name}, not ${type ?? ROS_TYPE_NAMES.join(' or ')}`,
        );
    }
    if (!topics.some(({ type, encoding }) => rosTypeName(type) && encoding === 'cdr'))
      throw refuse(file, `has no topic that becomes telemetry (${ROS_TYPE_NAMES.join(', ')}); it has ${found}`);
  }
}
