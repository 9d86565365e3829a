import { type FileHandle, open } from 'node:fs/promises';
import { McapIndexedReader, McapStreamReader, type McapTypes } from '@mcap/core';
import { DomainError } from '@outrider/shared/errors';
import { decompress as decompressZstd } from 'fzstd';
import { decompressLz4 } from './lz4.ts';
import { damaged, type RecordedMessage, type RecordedTopic, type Recording, type Remark } from './recording.ts';

const READ_BYTES = 1 << 20;
/** Largest chunk or record that is unpacked in memory. rosbag2 writes chunks below 1 MB, other tools up to 64. */
const RECORD_BYTES_MAX = 256 * 1024 * 1024;

const decompressHandlers: McapTypes.DecompressHandlers = {
  zstd: (data, size) => decompressZstd(data, new Uint8Array(checkedSize(size))),
  lz4: (data, size) => decompressLz4(data, checkedSize(size)),
};

/** Opens an MCAP file, by its index where it has a whole one, else as a stream that may break off. */
export async function openMcap(file: string): Promise<Recording> {
  const handle = await open(file, 'r');
  const sizeBytes = (await handle.stat()).size;
  try {
    const reader = await McapIndexedReader.Initialize({ readable: readable(handle, sizeBytes), decompressHandlers });
    if (isWholeIndex(reader)) return new IndexedMcap(file, handle, reader);
  } catch {
    // No index, or a torn one: the messages before it may still be whole, and the stream reader says where they end.
  }
  return new StreamedMcap(file, handle, sizeBytes);
}

/**
 * Whether the index covers every message. It need not: chunks may lack a message index, messages may lie outside
 * chunks, and channels need not be repeated in the summary.
 */
function isWholeIndex({ chunkIndexes, channelsById, schemasById, statistics }: McapIndexedReader): boolean {
  if (!statistics || (chunkIndexes.length === 0 && statistics.messageCount > 0n)) return false;
  const hasChannels = channelsById.size === statistics.channelCount;
  const hasSchemas = [...channelsById.values()].every(({ schemaId }) => schemaId === 0 || schemasById.has(schemaId));
  return hasChannels && hasSchemas && chunkIndexes.every((chunk) => chunk.messageIndexLength > 0n);
}

function readable(handle: FileHandle, sizeBytes: number): McapTypes.IReadable {
  return {
    size: async () => BigInt(sizeBytes),
    read: async (offset, length) => {
      if (length > RECORD_BYTES_MAX || offset + length > sizeBytes)
        throw new DomainError('invalid', `${length} bytes at ${offset} are not in the file`);
      const buffer = new Uint8Array(Number(length));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, Number(offset));
      if (bytesRead !== buffer.length)
        throw new DomainError('invalid', `the file ends at ${Number(offset) + bytesRead}`);
      return buffer;
    },
  };
}

class IndexedMcap implements Recording {
  readonly topics: readonly RecordedTopic[];
  readonly #file: string;
  readonly #handle: FileHandle;
  readonly #reader: McapIndexedReader;
  readonly #topicsById: ReadonlyMap<number, RecordedTopic>;

  constructor(file: string, handle: FileHandle, reader: McapIndexedReader) {
    this.#file = file;
    this.#handle = handle;
    this.#reader = reader;
    this.#topicsById = new Map(
      [...reader.channelsById.values()].map((channel) => [
        channel.id,
        topicOf(channel, reader.schemasById.get(channel.schemaId)),
      ]),
    );
    this.topics = [...this.#topicsById.values()];
  }

  async *messages(wants: (topic: RecordedTopic) => boolean): AsyncGenerator<RecordedMessage, void, void> {
    const topics = this.topics.filter(wants).map(({ topic }) => topic);
    if (topics.length === 0) return;
    try {
      for await (const message of this.#reader.readMessages({ topics })) {
        const topic = this.#topicsById.get(message.channelId);
        if (topic && wants(topic)) yield { topic, logTimeNs: checkedTime(message.logTime), payload: message.data };
      }
    } catch (error) {
      throw damaged(this.#file, 'inside', error);
    }
  }

  fractionRead(logTimeNs: bigint): number {
    const { messageStartTime = 0n, messageEndTime = 0n } = this.#reader.statistics ?? {};
    return messageEndTime > messageStartTime
      ? Number(logTimeNs - messageStartTime) / Number(messageEndTime - messageStartTime)
      : 1;
  }

  remark(): Remark | undefined {
    return undefined;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

class StreamedMcap implements Recording {
  readonly topics: readonly RecordedTopic[] | undefined = undefined;
  readonly #file: string;
  readonly #handle: FileHandle;
  readonly #sizeBytes: number;
  #readBytes = 0;
  #lostBytes = 0;

  constructor(file: string, handle: FileHandle, sizeBytes: number) {
    this.#file = file;
    this.#handle = handle;
    this.#sizeBytes = sizeBytes;
  }

  async *messages(wants: (topic: RecordedTopic) => boolean): AsyncGenerator<RecordedMessage, void, void> {
    const schemas = new Map<number, McapTypes.TypedMcapRecords['Schema']>();
    const topics = new Map<number, RecordedTopic>();
    for await (const record of this.#records()) {
      if (record.type === 'Schema') schemas.set(record.id, record);
      else if (record.type === 'Channel') topics.set(record.id, topicOf(record, schemas.get(record.schemaId)));
      else if (record.type === 'Message') {
        const topic = topics.get(record.channelId);
        if (topic && wants(topic)) yield { topic, logTimeNs: checkedTime(record.logTime), payload: record.data };
      }
    }
  }

  async *#records(): AsyncGenerator<McapTypes.TypedMcapRecord, void, void> {
    const reader = new McapStreamReader({ decompressHandlers });
    this.#readBytes = 0;
    for (;;) {
      const buffer = new Uint8Array(READ_BYTES);
      const { bytesRead } = await this.#handle.read(buffer, 0, READ_BYTES, this.#readBytes);
      if (bytesRead === 0 || reader.done()) break;
      this.#readBytes += bytesRead;
      try {
        reader.append(buffer.subarray(0, bytesRead));
        for (let record = reader.nextRecord(); record; record = reader.nextRecord()) yield record;
      } catch (error) {
        throw damaged(this.#file, `near byte ${this.#readBytes - reader.bytesRemaining()}`, error);
      }
      if (reader.bytesRemaining() > RECORD_BYTES_MAX)
        throw damaged(this.#file, 'inside', new RangeError(`a record claims more than ${RECORD_BYTES_MAX} bytes`));
    }
    if (!reader.done()) this.#lostBytes = Math.max(1, reader.bytesRemaining());
  }

  fractionRead(): number {
    return this.#sizeBytes > 0 ? this.#readBytes / this.#sizeBytes : 1;
  }

  remark(): Remark | undefined {
    if (this.#lostBytes === 0) return undefined;
    return {
      code: 'recording_truncated',
      message: `the file ends early, at byte ${this.#sizeBytes}; all whole records before were replayed`,
    };
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

function topicOf(
  channel: McapTypes.TypedMcapRecords['Channel'],
  schema: McapTypes.TypedMcapRecords['Schema'] | undefined,
): RecordedTopic {
  return { topic: channel.topic, type: schema?.name ?? '', encoding: channel.messageEncoding };
}

/** MCAP counts in 64 bits without a sign, we with one: that ends in 2262. */
function checkedTime(logTimeNs: bigint): bigint {
  if (BigInt.asIntN(64, logTimeNs) !== logTimeNs)
    throw new DomainError('invalid', `a message claims to be from ${logTimeNs} ns after 1970`, {
      subject: 'recording',
    });
  return logTimeNs;
}

function checkedSize(size: bigint): number {
  if (size > RECORD_BYTES_MAX) throw new RangeError(`a chunk claims ${size} bytes, more than ${RECORD_BYTES_MAX}`);
  return Number(size);
}
