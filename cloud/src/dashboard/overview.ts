import type { Principal } from '../identity/principal.ts';
import type { Level, ServiceLevels, Target } from './service-levels.ts';

/** Windows that an overview can look at, with their length. [ms] */
export const WINDOWS = { '1h': 3_600_000, '6h': 21_600_000, '24h': 86_400_000, '7d': 604_800_000 } as const;
export type Window = keyof typeof WINDOWS;

/** Consoles that ask within this time share an answer: a hundred open dashboards must not be a hundred times the work. */
const FRESH_MS = 1000;
const HOUR_MS = 3_600_000;
/** Hours that are over change only when a robot brings old data. */
const PAST_HOUR_FRESH_MS = 300_000;
/** This hour and the one before it still get what is on its way. */
const RECENT_HOUR_FRESH_MS = 5_000;
/** Past hours that one answer reads again; the others it takes as they were. */
const REREAD_HOURS_MAX = 2;
const KEPT_MAX = 500;
/** Hours of all tenants: a week of a hundred tenants. */
const HOURS_KEPT_MAX = 16_800;
/** How far back hours are read before anybody asks: as far as the widest window. */
const WARM_MS = WINDOWS['7d'];

export interface FleetCounts {
  readonly total: number;
  /** Connected, or heard within the last minute. */
  readonly active: number;
  readonly inFailsafe: number;
}

export interface HourEnergy {
  readonly hourMs: number;
  readonly energyJ: number;
  readonly coveredS: number;
  readonly robots: number;
}

/** Whose robots are looked at. */
export interface FleetScope {
  readonly tenantId: string;
  /** Absent: all robots of the tenant. */
  readonly robotIds?: readonly string[];
}

/** The numbers behind the overview. */
export interface OverviewStore {
  countRobots(scope: FleetScope, nowMs: number): Promise<FleetCounts>;
  countAnomalies(scope: FleetScope, fromMs: number): Promise<{ count: number; robots: number }>;
  /** Energy of each of these hours; hours without any are absent. */
  energyOf(scope: FleetScope, hoursMs: readonly number[]): Promise<HourEnergy[]>;
}

export interface Overview {
  readonly fromMs: number;
  readonly atMs: number;
  readonly robots: FleetCounts;
  readonly anomalies: { readonly count: number; readonly robots: number };
  /** By whole hours: the first one may begin before the window. */
  readonly energy: { readonly energyKwh: number; readonly coveredHours: number; readonly robots: number };
  readonly targets: readonly Target[];
  readonly slaStatus: 'met' | 'breached' | 'unknown';
}

interface Kept<T> {
  readonly value: Promise<T>;
  readonly untilMs: number;
}

/** What a fleet looks like at a glance. */
export class FleetOverview {
  readonly #store: OverviewStore;
  readonly #levels: ServiceLevels;
  readonly #decision: () => Promise<Level>;
  readonly #now: () => number;
  readonly #answers = new Map<string, Kept<Overview>>();
  readonly #hours = new Map<string, { readonly energy: HourEnergy | undefined; readonly untilMs: number }>();

  constructor(deps: {
    store: OverviewStore;
    levels: ServiceLevels;
    /** How long decisions take. */
    decision: () => Promise<Level>;
    now: () => number;
  }) {
    this.#store = deps.store;
    this.#levels = deps.levels;
    this.#decision = deps.decision;
    this.#now = deps.now;
  }

  /** Used by: GET /api/v1/dashboard/fleet/overview */
  async read(principal: Principal, window: Window): Promise<Overview> {
    const scope = {
      tenantId: principal.tenantId,
      ...(principal.robotIds ? { robotIds: [...principal.robotIds].sort() } : {}),
    };
    const key = JSON.stringify([scope, window]);
    const nowMs = this.#now();
    const kept = this.#answers.get(key);
    if (kept && kept.untilMs > nowMs) return await kept.value;
    const value = this.#read(scope, window, nowMs);
    forgetOld(this.#answers, nowMs, KEPT_MAX);
    this.#answers.set(key, { value, untilMs: nowMs + FRESH_MS });
    value.catch(() => this.#answers.delete(key));
    return await value;
  }

  /**
   * Reads the hours of a tenant that are not known or were read too long ago, one after the other and the newest first,
   * so that no answer has to sum a week of a large fleet, and what a robot brought late is seen.
   */
  async warm(tenantId: string, signal: AbortSignal): Promise<void> {
    const lastMs = hourOf(this.#now());
    for (let hourMs = lastMs; hourMs >= lastMs - WARM_MS && !signal.aborted; hourMs -= HOUR_MS) {
      const known = this.#hours.get(hourKeyOf(tenantId, hourMs));
      if (known && known.untilMs > this.#now()) continue;
      const found = await this.#store.energyOf({ tenantId }, [hourMs]);
      this.#keepHours(tenantId, [hourMs], found);
    }
  }

  async #read(scope: FleetScope, window: Window, nowMs: number): Promise<Overview> {
    const fromMs = nowMs - WINDOWS[window];
    const [robots, anomalies, hours] = await Promise.all([
      this.#store.countRobots(scope, nowMs),
      this.#store.countAnomalies(scope, fromMs),
      this.#energy(scope, fromMs, nowMs),
    ]);
    const targets = this.#levels.targets(nowMs, await this.#decision());
    const judged = targets.filter(({ isMet }) => isMet !== null);
    const sum = (pick: (hour: HourEnergy) => number): number => hours.reduce((total, hour) => total + pick(hour), 0);
    return {
      fromMs,
      atMs: nowMs,
      robots,
      anomalies,
      energy: {
        energyKwh: sum(({ energyJ }) => energyJ) / 3_600_000,
        coveredHours: sum(({ coveredS }) => coveredS) / 3600,
        robots: Math.max(0, ...hours.map((hour) => hour.robots)),
      },
      targets,
      slaStatus: judged.length === 0 ? 'unknown' : judged.every(({ isMet }) => isMet) ? 'met' : 'breached',
    };
  }

  async #energy(scope: FleetScope, fromMs: number, nowMs: number): Promise<HourEnergy[]> {
    const last = hourOf(nowMs);
    const wanted: number[] = [];
    const found: HourEnergy[] = [];
    let reread = 0;
    for (let hour = hourOf(fromMs); hour <= last; hour += HOUR_MS) {
      const known = scope.robotIds ? undefined : this.#hours.get(hourKeyOf(scope.tenantId, hour));
      const isPast = hour < last - HOUR_MS;
      const isStale = known !== undefined && known.untilMs <= nowMs && (!isPast || reread < REREAD_HOURS_MAX);
      if (isStale && isPast) reread += 1;
      if (!known || isStale) wanted.push(hour);
      else if (known.energy) found.push(known.energy);
    }
    const fresh = await this.#store.energyOf(scope, wanted);
    if (!scope.robotIds) this.#keepHours(scope.tenantId, wanted, fresh);
    return [...found, ...fresh];
  }

  /** Hours that were read and are not among the found ones are known to be without energy. */
  #keepHours(tenantId: string, hoursMs: readonly number[], found: readonly HourEnergy[]): void {
    const nowMs = this.#now();
    forgetOld(this.#hours, nowMs, HOURS_KEPT_MAX);
    for (const hourMs of hoursMs) {
      const energy = found.find((each) => each.hourMs === hourMs);
      const freshMs = hourMs >= hourOf(nowMs) - HOUR_MS ? RECENT_HOUR_FRESH_MS : PAST_HOUR_FRESH_MS;
      this.#hours.set(hourKeyOf(tenantId, hourMs), { energy, untilMs: nowMs + freshMs });
    }
  }
}

const hourOf = (atMs: number): number => Math.floor(atMs / HOUR_MS) * HOUR_MS;
const hourKeyOf = (tenantId: string, hourMs: number): string => `${tenantId}/${hourMs}`;

function forgetOld(kept: Map<string, { readonly untilMs: number }>, nowMs: number, keptMax: number): void {
  if (kept.size < keptMax) return;
  for (const [key, { untilMs }] of kept) if (untilMs <= nowMs - PAST_HOUR_FRESH_MS) kept.delete(key);
  if (kept.size >= keptMax * 4) kept.clear();
}
