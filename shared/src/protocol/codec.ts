import { crc32 } from 'node:zlib';
import { DomainError } from '../errors.ts';

const EPOCH_PATTERN = /^[0-9a-f]{16}$/;
/** Largest MQTT payload that either side sends or takes. */
export const PAYLOAD_BYTES_MAX = 1024 * 1024;
/** Where a sender cuts a batch. */
export const BATCH_BYTES_MAX = 256 * 1024;

/** CRC-32 (IEEE 802.3) of a record's body. */
export const bodyCrc = (body: Uint8Array): number => crc32(body) >>> 0;

/** Decodes any message of the wire from bytes that may be anything. @throws DomainError `invalid` */
export function decodeWire<T>(type: { decode(bytes: Uint8Array): T }, bytes: Uint8Array, what: string): T {
  if (bytes.length > PAYLOAD_BYTES_MAX)
    throw new DomainError('payload_too_large', `${what}: over ${PAYLOAD_BYTES_MAX} bytes`);
  try {
    return type.decode(bytes);
  } catch (cause) {
    throw new DomainError('invalid', `${what}: not a valid protobuf message`, { cause });
  }
}

/** Whether the text is an outbox epoch: 16 lower-case hexadecimal digits. */
export const isEpoch = (text: string): boolean => EPOCH_PATTERN.test(text);
