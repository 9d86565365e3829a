import { Agent, type IncomingMessage, request } from 'node:http';
import { systemClock } from '@outrider/shared/time';
import type { AskedData, Asking, ConsoleLoad } from './consoles.ts';
import { Latencies } from './latencies.ts';

const ANSWER_PATIENCE_MS = 30_000;
const CONNECTIONS_MAX = 64;
const FAILURE_CHARACTERS_MAX = 300;

/** What came of one kind of request so far. */
class Tally {
  readonly #name: string;
  readonly #statuses = new Map<number, number>();
  #took = new Latencies();
  #failure = '';

  constructor(name: string) {
    this.#name = name;
  }

  add(tookMs: number, status: number, text: () => string): void {
    this.#took.add(tookMs);
    this.#statuses.set(status, (this.#statuses.get(status) ?? 0) + 1);
    if (status < 200 || status > 299) this.#failure = `${status} ${text()}`.slice(0, FAILURE_CHARACTERS_MAX);
  }

  toData(): AskedData {
    return { name: this.#name, took: this.#took.toData(), statuses: [...this.#statuses], failure: this.#failure };
  }
}

/** Sends requests and measures how long their answers take, to their last byte. */
export class Asker {
  readonly #load: ConsoleLoad;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS_MAX });
  readonly #timers: NodeJS.Timeout[] = [];
  #tallies = new Map<string, Tally>();
  #next = 0;

  constructor(load: ConsoleLoad) {
    this.#load = load;
  }

  /** Repeats each at its rate, whatever the answers do: a slow server does not get fewer questions. */
  repeat(askings: readonly Asking[]): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    for (const asking of askings) {
      const periodMs = 1000 / asking.ratePerS;
      let dueMs = systemClock.monotonicMs() + Math.random() * periodMs;
      const tick = (): void => {
        const nowMs = systemClock.monotonicMs();
        for (; dueMs <= nowMs; dueMs += periodMs) void this.#once(asking, dueMs, this.#tally(asking.name));
      };
      this.#timers.push(setInterval(tick, 5));
    }
  }

  /** @returns What came of these requests alone. */
  async burst(asking: Asking, count: number, atOnce: number): Promise<AskedData> {
    const tally = new Tally(asking.name);
    let left = count;
    const work = async (): Promise<void> => {
      while (left > 0) {
        left -= 1;
        await this.#once(asking, systemClock.monotonicMs(), tally);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, work));
    return tally.toData();
  }

  forget(): void {
    this.#tallies = new Map();
  }

  get asked(): AskedData[] {
    return [...this.#tallies.values()].map((tally) => tally.toData());
  }

  #indexFor({ robots }: Asking): number {
    const { length } = this.#load.robotIds;
    if (robots === undefined || length < 2) return this.#next % length;
    const pairs = Math.floor(length / 2);
    return 2 * (this.#next % pairs) + (robots === 'odd' ? 1 : 0);
  }

  #tally(name: string): Tally {
    const known = this.#tallies.get(name) ?? new Tally(name);
    this.#tallies.set(name, known);
    return known;
  }

  #once(asking: Asking, dueMs: number, tally: Tally): Promise<void> {
    const { baseUrl, token, robotIds } = this.#load;
    this.#next += 1;
    const robotId = robotIds[this.#indexFor(asking)] ?? '';
    const nonce = `${process.pid}-${this.#next}`;
    const path = asking.path.replaceAll('{robot}', robotId);
    const body = asking.body?.replaceAll('{robot}', robotId).replaceAll('{nonce}', nonce);
    return new Promise((resolve) => {
      let isOver = false;
      const done = (status: number, text: () => string): void => {
        if (isOver) return;
        isOver = true;
        tally.add(systemClock.monotonicMs() - dueMs, status, text);
        resolve();
      };
      const headers = {
        authorization: `Bearer ${token}`,
        'idempotency-key': nonce,
        ...(body === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      };
      const send = (isSecond: boolean): void => {
        const sent = request(
          new URL(path, baseUrl),
          { method: asking.method, agent: this.#agent, headers, timeout: ANSWER_PATIENCE_MS },
          (reply) => readAll(reply, (text) => done(reply.statusCode ?? 0, () => text)),
        );
        sent.on('timeout', () => sent.destroy(new Error(`no answer within ${ANSWER_PATIENCE_MS / 1000} s`)));
        sent.on('error', (error) => {
          // The server closed an idle connection in the moment of its use: any client asks again on a new one.
          const wasIdle = sent.reusedSocket && 'code' in error && error.code === 'ECONNRESET';
          if (wasIdle && !isSecond) send(true);
          else done(0, () => error.message);
        });
        sent.end(body);
      };
      send(false);
    });
  }
}

function readAll(reply: IncomingMessage, done: (text: string) => void): void {
  const isGood = (reply.statusCode ?? 0) < 300;
  const parts: Buffer[] = [];
  reply.on('data', (part: Buffer) => {
    if (!isGood) parts.push(part);
  });
  reply.on('end', () => done(Buffer.concat(parts).toString()));
  reply.on('error', (error) => done(error.message));
}
