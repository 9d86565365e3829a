import { DELIMITER, encodeFrame } from './frame.ts';
import { encodeMessage, type Message } from './messages.ts';

/** Numbers the frames of one direction and writes them. [FB-8] */
export class FrameWriter {
  readonly #write: (bytes: Uint8Array) => boolean;
  #sequence = 0;
  framesWritten = 0;
  /** Frames that the port would not take because the line is stuck. */
  framesRefused = 0;

  /** @param write Gives the bytes to the port; false when it did not take them. */
  constructor(write: (bytes: Uint8Array) => boolean) {
    this.#write = write;
  }

  /** A lone delimiter: ends whatever half frame the receiver has. [FB-2] */
  flushLine(): boolean {
    return this.#write(Uint8Array.of(DELIMITER));
  }

  /** @returns Whether the port took the frame. A refused frame still uses up its number, so the loss shows. */
  send(message: Message): boolean {
    const { type, payload } = encodeMessage(message);
    const line = encodeFrame({ type, sequence: this.#sequence, payload });
    this.#sequence = (this.#sequence + 1) >>> 0;
    const taken = this.#write(line);
    if (taken) this.framesWritten += 1;
    else this.framesRefused += 1;
    return taken;
  }
}
