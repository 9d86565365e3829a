import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { McapWriter } from '@mcap/core';
import type { Sample } from '@outrider/shared/telemetry';
import { encodeSample } from './ros-encoder.ts';
import type { MessageSchema } from './ros-schemas.ts';

/** What a chunk holds at most: a file that breaks off loses no more than its last one. */
const CHUNK_BYTES = 64 * 1024;
const WRITER = 'outrider-edge';

/** Text that goes with a recording: who, when, why. */
export type RecordingFacts = Readonly<Record<string, string>>;

/**
 * Writes samples as an MCAP file of ROS 2 messages. The file has its name only once it is whole: until then it is
 * `<name>.part`, which a reader of broken-off files can read up to its last chunk.
 */
export class McapFile {
  readonly path: string;
  readonly #handle: FileHandle;
  readonly #writer: McapWriter;
  readonly #schemaIds = new Map<string, number>();
  readonly #channels = new Map<string, { readonly id: number; sequence: number }>();
  #bytes = 0;
  #messages = 0;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
    this.#writer = new McapWriter({
      chunkSize: CHUNK_BYTES,
      writable: {
        position: () => BigInt(this.#bytes),
        write: async (buffer) => {
          await handle.writeFile(buffer);
          this.#bytes += buffer.length;
        },
      },
    });
  }

  static async create(path: string): Promise<McapFile> {
    const file = new McapFile(path, await open(partOf(path), 'w', 0o600));
    await file.#writer.start({ profile: 'ros2', library: WRITER });
    return file;
  }

  /** Bytes that went to the disk so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Messages written so far. */
  get messages(): number {
    return this.#messages;
  }

  async add(sample: Sample): Promise<void> {
    const logTime = unsigned(sample.receivedNs);
    const publishTime = sample.stampNs === 0n ? logTime : unsigned(sample.stampNs);
    for (const { topic, schema, data } of encodeSample(sample)) {
      const channel = await this.#channel(topic, schema);
      await this.#writer.addMessage({ channelId: channel.id, sequence: channel.sequence, logTime, publishTime, data });
      channel.sequence = (channel.sequence + 1) >>> 0;
      this.#messages += 1;
    }
  }

  async addFacts(name: string, facts: RecordingFacts): Promise<void> {
    await this.#writer.addMetadata({ name, metadata: new Map(Object.entries(facts)) });
  }

  /** Puts on disk what was written so far, apart from the last unfinished chunk. */
  sync(): Promise<void> {
    return this.#handle.datasync();
  }

  /** Ends the file and gives it its name. It is on disk when this resolves. */
  async finish(): Promise<void> {
    await this.#writer.end();
    await this.#handle.sync();
    await this.#handle.close();
    await rename(partOf(this.path), this.path);
  }

  /** Gives up: nothing stays. */
  async discard(): Promise<void> {
    await this.#handle.close();
    await rm(partOf(this.path), { force: true });
  }

  async #channel(topic: string, schema: MessageSchema): Promise<{ readonly id: number; sequence: number }> {
    const key = `${schema.name}\n${topic}`;
    const known = this.#channels.get(key);
    if (known) return known;
    let schemaId = this.#schemaIds.get(schema.name);
    if (schemaId === undefined) {
      const data = Buffer.from(schema.text);
      schemaId = await this.#writer.registerSchema({ name: schema.name, encoding: schema.encoding, data });
      this.#schemaIds.set(schema.name, schemaId);
    }
    const { messageEncoding } = schema;
    const id = await this.#writer.registerChannel({ topic, messageEncoding, schemaId, metadata: new Map() });
    const channel = { id, sequence: 0 };
    this.#channels.set(key, channel);
    return channel;
  }
}

/** The name of a recording that is not whole yet. */
export const partOf = (path: string): string => `${path}.part`;

/** MCAP counts from 1970 on and without a sign. */
const unsigned = (ns: bigint): bigint => (ns < 0n ? 0n : ns);
