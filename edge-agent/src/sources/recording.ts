import { open, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { DomainError, errorMessage } from '@outrider/shared/errors';

/** A topic as a recording describes it. */
export interface RecordedTopic {
  readonly topic: string;
  /** As recorded, in today's spelling or Dashing's. */
  readonly type: string;
  /** `cdr` for everything that ROS 2 records. */
  readonly encoding: string;
}

export interface RecordedMessage {
  readonly topic: RecordedTopic;
  /** When the recorder received it. [ns since 1970] */
  readonly logTimeNs: bigint;
  /** Valid until the next message is asked for. */
  readonly payload: Uint8Array;
}

/** Something the reader of a recording should know that did not stop the replay. */
export interface Remark {
  readonly code: string;
  readonly message: string;
}

/** A rosbag2 file. Its messages come in the same order each time it is read. */
export interface Recording {
  /** All topics, when the file says them up front. */
  readonly topics: readonly RecordedTopic[] | undefined;
  /**
   * Messages of the topics that `wants` accepts, by log time where the file has an index, else as written.
   *
   * @throws DomainError `invalid` where the file is damaged.
   */
  messages(wants: (topic: RecordedTopic) => boolean): AsyncGenerator<RecordedMessage, void, void>;
  /** How much has been read, 0 to 1. */
  fractionRead(logTimeNs: bigint): number;
  /** Known once all messages were read. */
  remark(): Remark | undefined;
  close(): Promise<void>;
}

export type RecordingFormat = 'mcap' | 'db3' | 'csv' | 'ulog';

/** Tells a file's format by its first bytes, and by its name only for CSV, which has no mark. */
export async function recordingFormat(file: string): Promise<RecordingFormat> {
  const head = await firstBytes(file);
  const text = head.toString('latin1');
  if (text.startsWith('\x89MCAP')) return 'mcap';
  if (text.startsWith('SQLite format 3\0')) return 'db3';
  if (text.startsWith('ULog\x01\x12\x35')) return 'ulog';
  if (text.startsWith('#ROSBAG V')) throw refuse(file, 'is a ROS 1 bag; convert it with `rosbags-convert`');
  if (text.startsWith('\x28\xb5\x2f\xfd')) throw refuse(file, 'is compressed as a whole; unpack it with `zstd -d`');
  if (file.toLowerCase().endsWith('.csv')) return 'csv';
  throw refuse(file, 'is neither MCAP, nor a rosbag2 .db3, nor a PX4 .ulg, nor a .csv file');
}

async function firstBytes(file: string): Promise<Buffer> {
  try {
    if ((await stat(file)).isDirectory()) throw refuse(file, 'is a folder; name the .mcap or .db3 file inside it');
    const handle = await open(file, 'r');
    try {
      const buffer = Buffer.alloc(16);
      const { bytesRead } = await handle.read(buffer, 0, 16, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof DomainError) throw error;
    throw new DomainError('not_found', `${file}: cannot be read: ${errorMessage(error)}`, {
      cause: error,
      subject: 'recording',
    });
  }
}

/** A recording that can never be replayed as asked. */
export const refuse = (file: string, reason: string, cause?: unknown): DomainError =>
  new DomainError('invalid', `${basename(file)} ${reason}`, { cause, subject: 'recording' });

/** A recording that broke off in the middle of something. */
export const damaged = (file: string, where: string, cause: unknown): DomainError =>
  refuse(file, `is damaged ${where}: ${errorMessage(cause)}`, cause);
