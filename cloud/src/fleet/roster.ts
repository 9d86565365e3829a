import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import type { RobotRef } from './robot.ts';

/** How late a robot that another replica registered or took out is noticed. */
const REFRESH_MS = 15_000;
const RETRY_MS = 1_000;
const PAGE = 5_000;
const ROBOTS_MAX = 500_000;

/** Every robot of the fleet, page by page in the order of `robot_pk`. */
export interface RosterStore {
  robotsAfter(robotPk: number, limit: number): Promise<RobotRef[]>;
}

/**
 * All robots, in memory: whom a stop is for must be known while the database is away, also for robots that nobody asked
 * about lately. A fleet of 100,000 robots takes 20 MB.
 */
export class RobotRoster implements Service {
  readonly name = 'robot-roster';
  readonly #store: RosterStore;
  readonly #log: Logger;
  #robots = new Map<string, RobotRef>();
  /** What changed here while a list was being read, which does not show it. */
  #changes = new Map<string, RobotRef | undefined>();
  #hasFailed = false;

  constructor(store: RosterStore, log: Logger) {
    this.#store = store;
    this.#log = log;
  }

  get size(): number {
    return this.#robots.size;
  }

  /** How many robots each tenant has. */
  countByTenant(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    for (const { tenantId } of this.#robots.values()) counts.set(tenantId, (counts.get(tenantId) ?? 0) + 1);
    return counts;
  }

  /** Keeps the list up to date until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) await pause((await this.refresh()) ? REFRESH_MS : RETRY_MS, signal);
  }

  /** Reads the list anew. @returns Whether the database answered; when not, what is known stays. */
  async refresh(): Promise<boolean> {
    this.#changes = new Map();
    const robots = new Map<string, RobotRef>();
    try {
      for (let after = 0; robots.size < ROBOTS_MAX; ) {
        const page = await this.#store.robotsAfter(after, PAGE);
        for (const ref of page) robots.set(keyOf(ref.tenantId, ref.robotId), ref);
        after = page.at(-1)?.robotPk ?? after;
        if (page.length < PAGE) break;
      }
    } catch (error) {
      if (!this.#hasFailed) this.#log.warn({ err: error }, 'roster.refresh_failed');
      this.#hasFailed = true;
      return false;
    }
    for (const [key, ref] of this.#changes) {
      if (ref) robots.set(key, ref);
      else robots.delete(key);
    }
    this.#robots = robots;
    this.#hasFailed = false;
    return true;
  }

  find(tenantId: string, robotId: string): RobotRef | undefined {
    return this.#robots.get(keyOf(tenantId, robotId));
  }

  /** A robot that was just found or registered. */
  note(ref: RobotRef): void {
    const key = keyOf(ref.tenantId, ref.robotId);
    this.#robots.set(key, ref);
    this.#changes.set(key, ref);
  }

  /** A robot that is not there any more. */
  forget(tenantId: string, robotId: string): void {
    const key = keyOf(tenantId, robotId);
    this.#robots.delete(key);
    this.#changes.set(key, undefined);
  }
}

const keyOf = (tenantId: string, robotId: string): string => `${tenantId}.${robotId}`;
