import { crc32 as zlibCrc32 } from 'node:zlib';

/** CRC-32 (IEEE 802.3, reflected, as in zlib and Ethernet) of the bytes, as an unsigned number. [FB-6] */
export const crc32 = (bytes: Uint8Array): number => zlibCrc32(bytes);
