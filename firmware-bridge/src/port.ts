/** A line of bytes to an MCU: a serial port, or the fake one. */
export interface BytePort {
  /**
   * Sends the bytes in order, without waiting.
   *
   * @returns False when the line is stuck or closed, and the bytes were dropped.
   */
  write(bytes: Uint8Array): boolean;
  /** One listener; a later one replaces it. */
  onData(listener: (bytes: Uint8Array) => void): void;
  /** Called once, with the error when the line broke, without when `close` was called. */
  onClose(listener: (error?: Error) => void): void;
  /** Closing twice is harmless. */
  close(): void;
}
