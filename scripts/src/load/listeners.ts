import { Agent, get, type IncomingMessage } from 'node:http';
import { systemClock } from '@outrider/shared/time';
import type { ConsoleLoad } from './consoles.ts';
import { Latencies } from './latencies.ts';

/** A frozen reader follows many robots, so that its queue fills within the run. */
const FROZEN_ROBOTS = 100;
const OPENING_MAX = 20;
const ENDS_KEPT = 8;
const TIMESTAMP = '"timestamp":"';
const ISO_CHARACTERS = 24;

/** Readers of the live stream, by server-sent events. */
export class Listeners {
  readonly #load: ConsoleLoad;
  readonly #agent = new Agent({ keepAlive: false });
  readonly #ends: string[] = [];
  /** When each robot was first named in a message of the type that is watched. [ms since 1970] */
  readonly watched = new Map<string, number>();
  #watchedType: string | undefined;
  lag = new Latencies();
  messages = 0;
  openStreams = 0;
  openFrozen = 0;
  endedStreams = 0;

  constructor(load: ConsoleLoad) {
    this.#load = load;
  }

  get ends(): readonly string[] {
    return this.#ends;
  }

  /** Resolves once all of them are open. @throws Error when one is refused. */
  async open(streams: number, frozen: number, robotsEach: number): Promise<void> {
    const { robotIds } = this.#load;
    const idsFrom = (start: number, count: number): string[] =>
      Array.from({ length: Math.min(count, robotIds.length) }, (_, i) => robotIds[(start + i) % robotIds.length] ?? '');
    let next = 0;
    const work = async (): Promise<void> => {
      while (next < streams) {
        const index = next;
        next += 1;
        const isFrozen = index < frozen;
        const ids = isFrozen ? idsFrom(index * FROZEN_ROBOTS, FROZEN_ROBOTS) : idsFrom(index * robotsEach, robotsEach);
        await this.#openOne(`robot_id=${ids.join(',')}`, isFrozen);
      }
    };
    await Promise.all(Array.from({ length: OPENING_MAX }, work));
  }

  /** One stream over all robots that brings only messages of this type. */
  async watch(type: string): Promise<void> {
    this.#watchedType = type;
    await this.#openOne(`include=${type}`, false);
  }

  forget(): void {
    this.lag = new Latencies();
    this.messages = 0;
  }

  #openOne(query: string, isFrozen: boolean): Promise<void> {
    const url = new URL(`/api/v1/dashboard/stream?${query}`, this.#load.baseUrl);
    const headers = { authorization: `Bearer ${this.#load.token}`, accept: 'text/event-stream' };
    return new Promise((resolve, reject) => {
      const sent = get(url, { headers, agent: this.#agent }, (reply) => {
        if (reply.statusCode !== 200) {
          reply.resume();
          reject(new Error(`a live stream was refused: ${reply.statusCode}`));
          return;
        }
        if (isFrozen) {
          this.openFrozen += 1;
          reply.pause();
          // A socket that nobody reads says nothing of its end: the error of the cut connection does.
          sent.socket?.once('close', () => {
            this.openFrozen -= 1;
          });
        } else this.#listen(reply);
        resolve();
      });
      sent.on('error', reject);
    });
  }

  #listen(reply: IncomingMessage): void {
    this.openStreams += 1;
    let rest = '';
    reply.setEncoding('utf8');
    reply.on('data', (chunk: string) => {
      rest = rest === '' ? chunk : rest + chunk;
      for (;;) {
        const end = rest.indexOf('\n\n');
        if (end < 0) return;
        this.#take(rest.slice(0, end));
        rest = rest.slice(end + 2);
      }
    });
    reply.on('error', () => undefined);
    reply.on('close', () => {
      this.openStreams -= 1;
      this.endedStreams += 1;
    });
  }

  #take(frame: string): void {
    const isTelemetry = frame.includes('event: telemetry\n');
    if (isTelemetry) {
      this.messages += 1;
      const at = frame.indexOf(TIMESTAMP) + TIMESTAMP.length;
      const takenMs = Date.parse(frame.slice(at, at + ISO_CHARACTERS));
      if (!Number.isNaN(takenMs)) this.lag.add(systemClock.epochMs() - takenMs);
    } else if (frame.includes('event: end\n') && this.#ends.length < ENDS_KEPT) this.#ends.push(frame);
    if (this.#watchedType === undefined || !frame.includes(`event: ${this.#watchedType}\n`)) return;
    const robotId = /"robot_id":"([^"]+)"/.exec(frame)?.[1];
    if (robotId !== undefined && !this.watched.has(robotId)) this.watched.set(robotId, systemClock.epochMs());
  }
}
