import type { FleetCounts, FleetScope, HourEnergy, OverviewStore } from '../dashboard/overview.ts';
import type { Queryable } from './database.ts';

/** A robot without an MQTT link of its own counts as active for this long after it was heard. */
const HEARD_WITHIN_MS = 60_000;

/** Reads a fleet's numbers in SQL that sums where the rows are. */
export class SqlOverviewStore implements OverviewStore {
  readonly #database: Queryable;

  constructor(database: Queryable) {
    this.#database = database;
  }

  async countRobots({ tenantId, robotIds }: FleetScope, nowMs: number): Promise<FleetCounts> {
    const [row] = await this.#database.query<{ total: number; active: number; in_failsafe: number }>(
      `select count(*)::int8 as total,
              (count(*) filter (where p.presence = 'ONLINE' or p.last_seen_at > to_timestamp($3::float8 / 1000)))::int8
                as active,
              (count(*) filter (where s.value->>'phase' = 'LATCHED'))::int8 as in_failsafe
         from robot r
         left join robot_presence p using (robot_pk)
         left join robot_shadow s on s.robot_pk = r.robot_pk and s.key = 'failsafe'
        where r.tenant_id = $1 and r.deregistered_at is null and ($2::text[] is null or r.robot_id = any($2::text[]))`,
      [tenantId, robotIds ? [...robotIds] : null, nowMs - HEARD_WITHIN_MS],
    );
    return { total: row?.total ?? 0, active: row?.active ?? 0, inFailsafe: row?.in_failsafe ?? 0 };
  }

  async countAnomalies({ tenantId, robotIds }: FleetScope, fromMs: number): Promise<{ count: number; robots: number }> {
    const [row] = await this.#database.query<{ count: number; robots: number }>(
      `select count(*)::int8 as count, count(distinct subject_id)::int8 as robots from bus_event
        where tenant_id = $1 and type = 'anomaly.detected.v1' and occurred_at >= to_timestamp($3::float8 / 1000)
          and ($2::text[] is null or subject_id = any($2::text[]))`,
      [tenantId, robotIds ? [...robotIds] : null, fromMs],
    );
    return { count: row?.count ?? 0, robots: row?.robots ?? 0 };
  }

  async energyOf({ tenantId, robotIds }: FleetScope, hoursMs: readonly number[]): Promise<HourEnergy[]> {
    if (hoursMs.length === 0) return [];
    const rows = await this.#database.query<{ hour: Date; energy_j: number; covered_s: number; robots: number }>(
      // Two streams of one robot may measure the same battery, so the larger one counts.
      `select hour, sum(energy_j)::float8 as energy_j, sum(covered_s)::float8 as covered_s, count(*)::int8 as robots
         from (select hour, robot_pk, max(energy_j) as energy_j, max(covered_s) as covered_s
                 from robot_energy_hour join robot r using (robot_pk)
                where hour = any($3::timestamptz[])
                  and r.tenant_id = $1 and ($2::text[] is null or r.robot_id = any($2::text[]))
                group by hour, robot_pk) as per_robot
        group by hour`,
      [tenantId, robotIds ? [...robotIds] : null, hoursMs.map((hourMs) => new Date(hourMs).toISOString())],
    );
    return rows.map((row) => ({
      hourMs: row.hour.getTime(),
      energyJ: row.energy_j,
      coveredS: row.covered_s,
      robots: row.robots,
    }));
  }
}
