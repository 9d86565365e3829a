import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from './random.ts';

const FAULTS = ['cut', 'stall', 'stall', 'split', 'hole'] as const;

interface Line {
  readonly near: Socket;
  readonly far: Socket;
  isHole: boolean;
  splitUntilMs: number;
}

/** A TCP proxy that cuts, stalls, splits and swallows, as its owner says when. */
export class TcpProxy {
  readonly counts: Record<(typeof FAULTS)[number], number> = { cut: 0, stall: 0, split: 0, hole: 0 };
  readonly #server: Server;
  readonly #lines = new Set<Line>();
  readonly #random: Random;
  readonly #nowMs: () => number;

  private constructor(server: Server, target: { host: string; port: number }, random: Random, nowMs: () => number) {
    this.#server = server;
    this.#random = random;
    this.#nowMs = nowMs;
    server.on('connection', (near) => this.#accept(near, connect(target)));
  }

  static async start(target: { host: string; port: number }, random: Random, nowMs: () => number): Promise<TcpProxy> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
    return new TcpProxy(server, target, random, nowMs);
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Whether anything is connected through it. */
  get isUsed(): boolean {
    return this.#lines.size > 0;
  }

  /** Does one of the four things to every connection that is open now. */
  async hurt(): Promise<void> {
    const fault = this.#random.pick(FAULTS);
    const lines = [...this.#lines];
    if (lines.length === 0) return;
    this.counts[fault] += 1;
    if (fault === 'cut') for (const line of lines) this.#cut(line);
    if (fault === 'split') for (const line of lines) line.splitUntilMs = this.#nowMs() + this.#random.int(100, 1500);
    if (fault === 'stall') {
      for (const { near, far } of lines) for (const socket of [near, far]) socket.pause();
      await sleep(this.#random.int(50, 450));
      for (const { near, far } of lines) for (const socket of [near, far]) socket.resume();
    }
    if (fault === 'hole') {
      for (const line of lines) line.isHole = true;
      await sleep(this.#random.int(200, 1500));
      for (const line of lines) this.#cut(line);
    }
  }

  async close(): Promise<void> {
    for (const line of this.#lines) this.#cut(line);
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(near: Socket, far: Socket): void {
    const line: Line = { near, far, isHole: false, splitUntilMs: 0 };
    this.#lines.add(line);
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      socket.on('error', () => this.#cut(line));
      socket.on('close', () => this.#cut(line));
    }
    near.on('data', (bytes: Buffer) => this.#pass(line, far, bytes));
    far.on('data', (bytes: Buffer) => this.#pass(line, near, bytes));
  }

  #pass(line: Line, to: Socket, bytes: Buffer): void {
    if (line.isHole || to.destroyed) return;
    if (this.#nowMs() >= line.splitUntilMs) {
      to.write(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; ) {
      const end = at + this.#random.int(1, 400);
      to.write(bytes.subarray(at, end));
      at = end;
    }
  }

  #cut(line: Line): void {
    this.#lines.delete(line);
    line.near.destroy();
    line.far.destroy();
  }
}
