import type { BytePort } from './port.ts';

/**
 * One end of an in-memory line. Bytes arrive in a microtask, in order, in one piece per write unless `cut` says
 * otherwise. Ships beside the real port so that whoever uses a port can be tested without one.
 */
export class FakePort implements BytePort {
  #peer: FakePort | undefined;
  #onData: (bytes: Uint8Array) => void = () => {};
  #onClose: (error?: Error) => void = () => {};
  #closed = false;
  /** Changes what this end sends, such as flipping or dropping bytes. */
  mangle: (bytes: Uint8Array) => readonly Uint8Array[] = (bytes) => [bytes];
  /** While true, writes are refused as on a line whose other end does not read. */
  stuck = false;

  /** Two ends of one line. */
  static pair(): [FakePort, FakePort] {
    const left = new FakePort();
    const right = new FakePort();
    left.#peer = right;
    right.#peer = left;
    return [left, right];
  }

  write(bytes: Uint8Array): boolean {
    if (this.#closed || this.stuck) return false;
    for (const piece of this.mangle(Uint8Array.from(bytes))) {
      queueMicrotask(() => {
        const peer = this.#peer;
        if (peer !== undefined && !peer.#closed) peer.#onData(piece);
      });
    }
    return true;
  }

  onData(listener: (bytes: Uint8Array) => void): void {
    this.#onData = listener;
  }

  onClose(listener: (error?: Error) => void): void {
    this.#onClose = listener;
  }

  close(): void {
    this.#end();
    const peer = this.#peer;
    if (peer !== undefined) peer.#end(new Error('the other end closed the line'));
  }

  #end(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    queueMicrotask(() => this.#onClose(error));
  }
}
