import { ChildLine } from './child-line.ts';
import { Latencies, type LatencyData } from './latencies.ts';
import type { RobotTally, SimCredentials } from './sim-robot.ts';

/** What a process of robots is told. */
export type RobotsOrder = { readonly id: number } & (
  | ({ readonly do: 'connect'; readonly robots: readonly SimCredentials[]; readonly localAddress: string } & RobotLoad)
  | { readonly do: 'record'; readonly share: number }
  | { readonly do: 'overheat'; readonly everyMs: number; readonly flushMs: number }
  | { readonly do: 'overheated' }
  | { readonly do: 'forget' }
  | { readonly do: 'report' }
  | { readonly do: 'end' }
);
type Told = RobotsOrder extends infer Each ? (Each extends { id: number } ? Omit<Each, 'id'> : never) : never;

/** What the robots do, and to whom. */
export interface RobotLoad {
  readonly host: string;
  readonly port: number;
  readonly caPem: string;
  readonly rateHz: number;
  readonly flushMs: number;
  readonly joints: number;
  readonly isBrokerAlone?: boolean;
}

export interface RobotsReport extends Omit<RobotTally, 'ack'> {
  readonly ack: LatencyData;
  /** How late the process itself was: its own share of what it measured. */
  readonly late: LatencyData;
  /** Robots whose hello was answered on the present connection. */
  readonly greeted: number;
  /** Records that no acknowledgement covers yet. */
  readonly kept: number;
  readonly cpuMs: number;
}

export interface FleetReport extends Omit<RobotsReport, 'ack' | 'late'> {
  readonly ack: Latencies;
  readonly late: Latencies;
}

const CONNECT_PATIENCE_MS = 180_000;

/** The simulated fleet, spread over processes. */
export class Robots {
  readonly #lines: ChildLine<Told>[];
  readonly #shares: SimCredentials[][];

  constructor(robots: readonly SimCredentials[], processes: number) {
    this.#shares = Array.from({ length: processes }, (_, at) => robots.filter((_robot, i) => i % processes === at));
    this.#lines = this.#shares.map((_, at) => new ChildLine<Told>(`robots-${at + 1}`, 'robots-child.js'));
  }

  get pids(): number[] {
    return this.#lines.map((line) => line.pid);
  }

  /** Connects them all and waits until each one's hello was answered. */
  async connect(load: RobotLoad): Promise<void> {
    await this.#all((line, at) =>
      // Each process stands for a site of its own: brokers limit connections by address.
      line.ask(
        { do: 'connect', robots: this.#shares[at] ?? [], localAddress: `127.0.0.${at + 2}`, ...load },
        CONNECT_PATIENCE_MS,
      ),
    );
  }

  /** Has this share of them record; 0: none does, and what they hold is still sent. */
  async record(share: number): Promise<void> {
    await this.#all((line) => line.ask({ do: 'record', share }));
  }

  /**
   * One robot after the other takes one sample that is too hot. It waits for the next flush, as on a robot, and goes.
   *
   * @param everyMs Time between two robots of a process.
   */
  async overheat(everyMs: number, flushMs: number): Promise<void> {
    await this.#all((line) => line.ask({ do: 'overheat', everyMs, flushMs }));
  }

  /** When each robot took its hot sample. [ms since 1970] */
  async overheated(): Promise<ReadonlyMap<string, number>> {
    const each = await Promise.all(this.#lines.map((line) => line.ask<[string, number][]>({ do: 'overheated' })));
    return new Map(each.flat());
  }

  /** Begins the latencies anew: what came before was warming up. */
  async forget(): Promise<void> {
    await this.#all((line) => line.ask({ do: 'forget' }));
  }

  async report(): Promise<FleetReport> {
    const reports = await Promise.all(this.#lines.map((line) => line.ask<RobotsReport>({ do: 'report' })));
    const sum = (pick: (report: RobotsReport) => number): number =>
      reports.reduce((total, report) => total + pick(report), 0);
    const ack = new Latencies();
    const late = new Latencies();
    for (const report of reports) {
      ack.merge(report.ack);
      late.merge(report.late);
    }
    return {
      samplesMade: sum((report) => report.samplesMade),
      samplesAcknowledged: sum((report) => report.samplesAcknowledged),
      batchesSent: sum((report) => report.batchesSent),
      resends: sum((report) => report.resends),
      reconnects: sum((report) => report.reconnects),
      connected: sum((report) => report.connected),
      refused: sum((report) => report.refused),
      collisions: sum((report) => report.collisions),
      instructions: sum((report) => report.instructions),
      instructionsRefused: sum((report) => report.instructionsRefused),
      lastReason: reports.map(({ lastReason }) => lastReason).find((reason) => reason !== '') ?? '',
      greeted: sum((report) => report.greeted),
      kept: sum((report) => report.kept),
      cpuMs: sum((report) => report.cpuMs),
      ack,
      late,
    };
  }

  async end(): Promise<void> {
    await Promise.all(this.#lines.map((line) => line.end({ do: 'end' })));
  }

  async #all(work: (line: ChildLine<Told>, at: number) => Promise<unknown>): Promise<void> {
    await Promise.all(this.#lines.map(work));
  }
}
