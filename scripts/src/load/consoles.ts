import { ChildLine } from './child-line.ts';
import { Latencies, type LatencyData } from './latencies.ts';

/** A request that is repeated; `{robot}` becomes a robot's id. */
export interface Asking {
  readonly name: string;
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: string;
  readonly ratePerS: number;
  /** Which robots it is about: those at even or at odd places, since a robot that was stopped takes no command. */
  readonly robots?: 'even' | 'odd';
}

/** What the process of consoles is told. */
export type ConsolesOrder = { readonly id: number } & (
  | ({ readonly do: 'begin' } & ConsoleLoad)
  | { readonly do: 'ask'; readonly askings: readonly Asking[] }
  | { readonly do: 'burst'; readonly asking: Asking; readonly count: number; readonly atOnce: number }
  | { readonly do: 'listen'; readonly streams: number; readonly frozen: number; readonly robotsEach: number }
  | { readonly do: 'watch'; readonly include: string }
  | { readonly do: 'watched' }
  | { readonly do: 'forget' }
  | { readonly do: 'report' }
  | { readonly do: 'end' }
);
type Told = ConsolesOrder extends infer Each ? (Each extends { id: number } ? Omit<Each, 'id'> : never) : never;

export interface ConsoleLoad {
  readonly baseUrl: string;
  readonly token: string;
  readonly robotIds: readonly string[];
}

/** What became of one kind of request. */
export interface AskedData {
  readonly name: string;
  readonly took: LatencyData;
  /** How many answers had which status; `0`: no answer at all. */
  readonly statuses: readonly (readonly [number, number])[];
  /** One answer that was not 2xx, for a person. */
  readonly failure: string;
}

export interface ConsolesReport {
  readonly asked: readonly AskedData[];
  readonly lag: LatencyData;
  readonly messages: number;
  readonly openStreams: number;
  readonly openFrozen: number;
  readonly endedStreams: number;
  /** Words in which streams that ended said why. */
  readonly ends: readonly string[];
  readonly cpuMs: number;
}

export interface Asked extends Omit<AskedData, 'took' | 'statuses'> {
  readonly took: Latencies;
  readonly statuses: ReadonlyMap<number, number>;
  readonly failed: number;
}

const BURST_PATIENCE_MS = 15 * 60_000;

/** Everybody who talks HTTP to the control plane, in a process of their own. */
export class Consoles {
  readonly #line = new ChildLine<Told>('consoles', 'consoles-child.js');

  get pid(): number {
    return this.#line.pid;
  }

  async begin(load: ConsoleLoad): Promise<void> {
    await this.#line.ask({ do: 'begin', ...load });
  }

  /** Repeats these requests at their rates until told otherwise. */
  async ask(askings: readonly Asking[]): Promise<void> {
    await this.#line.ask({ do: 'ask', askings });
  }

  /** Sends so many requests, so many of them at once, each when one before it was answered. */
  async burst(asking: Asking, count: number, atOnce: number): Promise<Asked> {
    return askedOf(await this.#line.ask<AskedData>({ do: 'burst', asking, count, atOnce }, BURST_PATIENCE_MS));
  }

  /** Opens live streams; the frozen ones never read. */
  async listen(streams: number, frozen: number, robotsEach: number): Promise<void> {
    await this.#line.ask({ do: 'listen', streams, frozen, robotsEach });
  }

  /** Opens one stream over all robots and keeps when each robot was first named in a message of this type. */
  async watch(include: string): Promise<void> {
    await this.#line.ask({ do: 'watch', include });
  }

  /** When that was, by robot. [ms since 1970] */
  async watched(): Promise<ReadonlyMap<string, number>> {
    return new Map(await this.#line.ask<[string, number][]>({ do: 'watched' }));
  }

  async forget(): Promise<void> {
    await this.#line.ask({ do: 'forget' });
  }

  async report(): Promise<Omit<ConsolesReport, 'asked' | 'lag'> & { asked: Asked[]; lag: Latencies }> {
    const report = await this.#line.ask<ConsolesReport>({ do: 'report' });
    return { ...report, asked: report.asked.map(askedOf), lag: Latencies.of(report.lag) };
  }

  async end(): Promise<void> {
    await this.#line.end({ do: 'end' });
  }
}

function askedOf(data: AskedData): Asked {
  const statuses = new Map(data.statuses);
  const failed = data.statuses.reduce((sum, [status, count]) => sum + (status >= 200 && status < 300 ? 0 : count), 0);
  return { ...data, took: Latencies.of(data.took), statuses, failed };
}
