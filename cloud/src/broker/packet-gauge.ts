/** Largest CONNECT packet: names and a last will fit many times over. */
export const CONNECT_BYTES_MAX = 4096;
/** Largest packet once connected: a batch of PAYLOAD_BYTES_MAX and its topic. */
export const PACKET_BYTES_MAX = 1024 * 1024 + 1024;

const LENGTH_BYTES_MAX = 4;

/**
 * Follows the packet boundaries of an MQTT byte stream by the length in each fixed header [MQTT-2.2.3], without
 * keeping the bytes, so that an oversized packet is refused before anybody buffers it.
 */
export class PacketGauge {
  /** Whether the first packet has passed whole. */
  firstPassed = false;
  #left = 0;
  #inHeader = false;
  #length = 0;
  #lengthBytes = 0;

  /**
   * @returns How many bytes of the chunk may pass: all of them, or up to the end of the first packet; -1 when the
   * stream breaks a limit.
   */
  advance(chunk: Uint8Array): number {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const taken = Math.min(this.#left, chunk.length - at);
        this.#left -= taken;
        at += taken;
        if (this.#left === 0 && this.#packetEnds()) return at;
        continue;
      }
      const byte = chunk[at] as number;
      at += 1;
      if (!this.#inHeader) {
        this.#inHeader = true;
        this.#length = 0;
        this.#lengthBytes = 0;
        continue;
      }
      this.#length += (byte & 0x7f) * 128 ** this.#lengthBytes;
      this.#lengthBytes += 1;
      if (this.#length > (this.firstPassed ? PACKET_BYTES_MAX : CONNECT_BYTES_MAX)) return -1;
      if ((byte & 0x80) === 0) {
        this.#inHeader = false;
        this.#left = this.#length;
        if (this.#left === 0 && this.#packetEnds()) return at;
      } else if (this.#lengthBytes >= LENGTH_BYTES_MAX) return -1;
    }
    return at;
  }

  #packetEnds(): boolean {
    const isFirst = !this.firstPassed;
    this.firstPassed = true;
    return isFirst;
  }
}
