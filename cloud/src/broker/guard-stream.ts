import { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { PacketGauge } from './packet-gauge.ts';

/**
 * Stands between a TLS socket and the MQTT broker: refuses oversized packets before they are buffered, and holds
 * everything after CONNECT back until the client was admitted.
 */
export class GuardStream extends Duplex {
  readonly #socket: TLSSocket;
  readonly #gauge = new PacketGauge();
  readonly #onRefused: (reason: string) => void;
  #held: Buffer | undefined;
  #isAdmitted = false;

  constructor(socket: TLSSocket, onRefused: (reason: string) => void) {
    super();
    this.#socket = socket;
    this.#onRefused = onRefused;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('end', () => this.push(null));
    socket.on('close', () => this.destroy());
    // The broker ends a session on any error of its stream; the socket's own message is for our log only.
    socket.on('error', () => this.destroy());
    socket.pause();
  }

  /** Lets the bytes after CONNECT through: the client is who it says. */
  admit(): void {
    if (this.#isAdmitted) return;
    this.#isAdmitted = true;
    const held = this.#held;
    this.#held = undefined;
    if (held) this.#take(held);
    if (!this.readableEnded) this.#socket.resume();
  }

  /** CONNECT has passed and is being judged. */
  get #isWaiting(): boolean {
    return this.#gauge.firstPassed && !this.#isAdmitted;
  }

  override _read(): void {
    if (!this.#isWaiting) this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    const isFull = !this.#socket.destroyed && !this.#socket.write(chunk);
    if (isFull) this.#socket.once('drain', callback);
    else callback();
  }

  override _writev(chunks: { chunk: Buffer }[], callback: (error?: Error | null) => void): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'utf8', callback);
  }

  override _final(callback: () => void): void {
    this.#socket.end(callback);
  }

  override _destroy(_error: Error | null, callback: (error?: Error | null) => void): void {
    this.#held = undefined;
    this.#socket.destroy();
    callback(null);
  }

  #take(chunk: Buffer): void {
    if (this.destroyed || chunk.length === 0) return;
    if (this.#isWaiting) {
      this.#held = this.#held ? Buffer.concat([this.#held, chunk]) : chunk;
      return;
    }
    const passing = this.#gauge.advance(chunk);
    if (passing < 0) {
      this.#onRefused(this.#gauge.firstPassed ? 'packet_too_large' : 'connect_too_large');
      this.destroy();
      return;
    }
    const rest = chunk.subarray(passing);
    const hasRoom = this.push(chunk.subarray(0, passing));
    if (!hasRoom || this.#isWaiting) this.#socket.pause();
    if (rest.length > 0) this.#take(rest);
  }
}
