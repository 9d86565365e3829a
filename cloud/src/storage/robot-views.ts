import { OPERATIONAL_STATES, PRESENCES } from '@outrider/shared/robot';
import type { Clock } from '@outrider/shared/time';
import type { Robot, RobotFilter, RobotPage } from '../fleet/robot.ts';
import type { Queryable } from './database.ts';
import { Gathered } from './gathered.ts';

/** A robot without an MQTT link of its own counts as there for this long after its last sample. */
const SEEN_WITHIN_S = 60;

interface RobotRow {
  readonly robot_pk: number;
  readonly tenant_id: string;
  readonly robot_id: string;
  readonly robot_name: string;
  readonly robot_type: string;
  readonly manufacturer: string | null;
  readonly model: string | null;
  readonly firmware_version: string | null;
  readonly capabilities: Record<string, unknown>;
  readonly registered_at: Date;
  readonly presence: string | null;
  readonly boot_id: string | null;
  readonly last_seen_at: Date | null;
  readonly status: string;
  readonly sampled_at: Date | null;
}

/** What an operator set, else the failsafe, else the link: worst first. No boot id: it never had a link. $1: since. */
const STATUS = `coalesce(r.status_override, case
  when s.value->>'phase' = 'LATCHED' then 'failsafe'
  when p.presence = 'ONLINE' then 'operational'
  when p.boot_id is not null then 'offline'
  when exists (select 1 from latest_sample l
    where l.robot_pk = r.robot_pk and l.ingested_at > to_timestamp($1::float8)) then 'operational'
  else 'unknown' end)`;
const FROM = `from robot r
  left join robot_presence p on p.robot_pk = r.robot_pk
  left join robot_shadow s on s.robot_pk = r.robot_pk and s.key = 'failsafe'`;
const COLUMNS = `r.robot_pk, r.tenant_id, r.robot_id, r.robot_name, r.robot_type, r.manufacturer, r.model,
  r.firmware_version, r.capabilities, r.registered_at, p.presence, p.boot_id, p.last_seen_at, ${STATUS} as status,
  (select max(l.ingested_at) from latest_sample l where l.robot_pk = r.robot_pk) as sampled_at`;
const FILTER = `r.deregistered_at is null and r.tenant_id = $2 and ($3::text is null or r.robot_type = $3::text)
  and ($4::text[] is null or r.robot_id = any($4::text[])) and ($5::text is null or r.capabilities ? $5::text)
  and ($6::text is null or ${STATUS} = $6::text)`;

const keyOf = (tenantId: string, robotId: string): string => `${tenantId}.${robotId}`;

/** Robots as their tenants see them. */
export class RobotViews {
  readonly #database: Queryable;
  readonly #clock: Clock;
  readonly #robots = new Gathered<string, Robot>((keys) => this.#readAll(keys));

  constructor(database: Queryable, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  read(tenantId: string, robotId: string): Promise<Robot | undefined> {
    return this.#robots.read(keyOf(tenantId, robotId));
  }

  async list(tenantId: string, filter: RobotFilter): Promise<RobotPage> {
    if (filter.robotIds?.length === 0) return { robots: [], total: 0 };
    const { type, robotIds, capability, status, limit, offset } = filter;
    const given = [tenantId, type ?? null, robotIds ? [...robotIds] : null, capability ?? null, status ?? null];
    const rows = await this.#database.query<RobotRow>(
      `select ${COLUMNS} ${FROM} where ${FILTER} order by r.robot_id limit $7 offset $8`,
      [this.#sinceS(), ...given, limit, offset],
    );
    const [row] = await this.#database.query<{ total: number }>(
      `select count(*)::int8 as total ${FROM} where ${FILTER}`,
      [this.#sinceS(), ...given],
    );
    return { robots: rows.map(robotOf), total: row?.total ?? 0 };
  }

  async #readAll(keys: readonly string[]): Promise<Map<string, Robot>> {
    const names = keys.map((key) => key.split('.', 2) as [string, string]);
    const rows = await this.#database.query<RobotRow>(
      `select ${COLUMNS} ${FROM}
         join unnest($2::text[], $3::text[]) as wanted (tenant_id, robot_id)
           on wanted.tenant_id = r.tenant_id and wanted.robot_id = r.robot_id
        where r.deregistered_at is null`,
      [this.#sinceS(), names.map(([tenantId]) => tenantId), names.map(([, robotId]) => robotId)],
    );
    return new Map(rows.map((row) => [keyOf(row.tenant_id, row.robot_id), robotOf(row)]));
  }

  #sinceS(): number {
    return this.#clock.epochMs() / 1000 - SEEN_WITHIN_S;
  }
}

function robotOf(row: RobotRow): Robot {
  const seen = [row.last_seen_at, row.sampled_at].flatMap((at) => (at === null ? [] : [at.getTime()]));
  return {
    robotPk: row.robot_pk,
    tenantId: row.tenant_id,
    robotId: row.robot_id,
    robotName: row.robot_name,
    robotType: row.robot_type,
    ...(row.manufacturer === null ? {} : { manufacturer: row.manufacturer }),
    ...(row.model === null ? {} : { model: row.model }),
    ...(row.firmware_version === null ? {} : { firmwareVersion: row.firmware_version }),
    capabilities: row.capabilities,
    status: OPERATIONAL_STATES.find((state) => state === row.status) ?? 'unknown',
    presence: row.boot_id === null ? undefined : PRESENCES.find((presence) => presence === row.presence),
    lastSeenMs: seen.length === 0 ? undefined : Math.max(...seen),
    registeredAtMs: row.registered_at.getTime(),
  };
}
