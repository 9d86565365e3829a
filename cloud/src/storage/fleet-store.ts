import type { DeviceIdentity } from '@outrider/shared/ids';
import { OPERATIONAL_STATES, PRESENCES, type RobotDescriptor } from '@outrider/shared/robot';
import type { Clock } from '@outrider/shared/time';
import { and, count, desc, eq, gt, inArray, isNull, type SQL, sql } from 'drizzle-orm';
import type { AuditStore } from '../failsafe/audit-queue.ts';
import type { PendingStop, PendingStopStore } from '../failsafe/ports.ts';
import type { AuditEntry, AuditTrail, FleetStore } from '../fleet/ports.ts';
import type { Robot, RobotFilter, RobotPage, RobotRef } from '../fleet/robot.ts';
import type { RosterStore } from '../fleet/roster.ts';
import type { Orm } from './database.ts';
import { auditEntry, latestSample, robot, robotApiKey, robotPresence, robotShadow } from './schema.ts';

/** A robot without an MQTT link of its own counts as there for this long after its last sample. */
const SEEN_WITHIN_S = 60;

/** Robots and the audit trail in PostgreSQL or PGlite. */
export class PgFleetStore implements FleetStore, AuditTrail, AuditStore, RosterStore, PendingStopStore {
  readonly #orm: Orm;
  readonly #clock: Clock;

  constructor(orm: Orm, clock: Clock) {
    this.#orm = orm;
    this.#clock = clock;
  }

  async addRobot(
    tenantId: string,
    descriptor: RobotDescriptor,
    apiKeyHash: string,
    atMs: number,
  ): Promise<RobotRef | undefined> {
    return this.#orm.transaction(async (tx) => {
      const [row] = await tx
        .insert(robot)
        .values({
          tenantId,
          robotId: descriptor.robotId,
          robotName: descriptor.robotName,
          robotType: descriptor.robotType,
          manufacturer: descriptor.manufacturer ?? null,
          model: descriptor.model ?? null,
          firmwareVersion: descriptor.firmwareVersion ?? null,
          capabilities: descriptor.capabilities,
          registeredAt: new Date(atMs),
        })
        .onConflictDoNothing()
        .returning({ robotPk: robot.robotPk });
      if (!row) return undefined;
      await tx.insert(robotApiKey).values({ keyHash: apiKeyHash, robotPk: row.robotPk });
      return { robotPk: row.robotPk, tenantId, robotId: descriptor.robotId };
    });
  }

  async findRobot(tenantId: string, robotId: string): Promise<RobotRef | undefined> {
    const [row] = await this.#orm
      .select({ robotPk: robot.robotPk, tenantId: robot.tenantId, robotId: robot.robotId })
      .from(robot)
      .where(and(eq(robot.tenantId, tenantId), eq(robot.robotId, robotId), isNull(robot.deregisteredAt)))
      .limit(1);
    return row;
  }

  async readRobot(tenantId: string, robotId: string): Promise<Robot | undefined> {
    const [found] = await this.#select(and(eq(robot.tenantId, tenantId), eq(robot.robotId, robotId)), 1, 0);
    return found;
  }

  async listRobots(tenantId: string, filter: RobotFilter): Promise<RobotPage> {
    if (filter.robotIds?.length === 0) return { robots: [], total: 0 };
    const where = and(
      eq(robot.tenantId, tenantId),
      filter.type === undefined ? undefined : eq(robot.robotType, filter.type),
      filter.robotIds === undefined ? undefined : inArray(robot.robotId, [...filter.robotIds]),
      filter.capability === undefined ? undefined : sql`${robot.capabilities} ? ${filter.capability}`,
      filter.status === undefined ? undefined : sql`${this.#status()} = ${filter.status}`,
    );
    const robots = await this.#select(where, filter.limit, filter.offset);
    const [row] = await this.#orm
      .select({ total: count() })
      .from(robot)
      .leftJoin(robotPresence, eq(robotPresence.robotPk, robot.robotPk))
      .leftJoin(robotShadow, and(eq(robotShadow.robotPk, robot.robotPk), eq(robotShadow.key, 'failsafe')))
      .where(and(where, isNull(robot.deregisteredAt)));
    return { robots, total: row?.total ?? 0 };
  }

  async removeRobot(robotPk: number, atMs: number): Promise<void> {
    await this.#orm.transaction(async (tx) => {
      const at = new Date(atMs);
      await tx.update(robot).set({ deregisteredAt: at }).where(eq(robot.robotPk, robotPk));
      await tx
        .update(robotApiKey)
        .set({ revokedAt: at })
        .where(and(eq(robotApiKey.robotPk, robotPk), isNull(robotApiKey.revokedAt)));
    });
  }

  async append(entry: AuditEntry): Promise<void> {
    await this.appendAll([entry]);
  }

  async appendAll(entries: readonly AuditEntry[]): Promise<void> {
    await this.#orm.insert(auditEntry).values(
      entries.map((entry) => ({
        tenantId: entry.tenantId ?? null,
        subject: entry.subject ?? null,
        action: entry.action,
        outcome: entry.outcome,
        requestId: entry.requestId,
        details: entry.details,
        durationMs: entry.durationMs ?? null,
        at: new Date(entry.atMs),
      })),
    );
  }

  async robotsAfter(robotPk: number, limit: number): Promise<RobotRef[]> {
    return this.#orm
      .select({ robotPk: robot.robotPk, tenantId: robot.tenantId, robotId: robot.robotId })
      .from(robot)
      .where(and(gt(robot.robotPk, robotPk), isNull(robot.deregisteredAt)))
      .orderBy(robot.robotPk)
      .limit(limit);
  }

  async unansweredStops(limit: number): Promise<PendingStop[]> {
    const answered = sql`(select 1 from audit_entry a where a.action = 'failsafe.answer'
      and a.details->>'command_id' = ${auditEntry.details}->>'command_id')`;
    const registered = sql`(select 1 from ${robot} r where r.tenant_id = ${auditEntry.tenantId}
      and r.robot_id = ${auditEntry.details}->>'robot_id' and r.deregistered_at is null
      and r.registered_at <= ${auditEntry.at})`;
    const rows = await this.#orm
      .select({ details: auditEntry.details })
      .from(auditEntry)
      .where(
        and(
          eq(auditEntry.action, 'failsafe.trigger'),
          eq(auditEntry.outcome, 'pending'),
          sql`not exists ${answered}`,
          sql`exists ${registered}`,
        ),
      )
      .orderBy(desc(auditEntry.auditId))
      .limit(limit);
    return rows.map((row) => (row.details as { stop: PendingStop }).stop).reverse();
  }

  async registeredSince({ tenantId, robotId }: DeviceIdentity): Promise<number | undefined> {
    const [row] = await this.#orm
      .select({ registeredAt: robot.registeredAt })
      .from(robot)
      .where(and(eq(robot.tenantId, tenantId), eq(robot.robotId, robotId), isNull(robot.deregisteredAt)))
      .limit(1);
    return row?.registeredAt.getTime();
  }

  async #select(where: SQL | undefined, limit: number, offset: number): Promise<Robot[]> {
    const rows = await this.#orm
      .select({ robot, presence: robotPresence, status: this.#status(), seen: this.#sampleSeen() })
      .from(robot)
      .leftJoin(robotPresence, eq(robotPresence.robotPk, robot.robotPk))
      .leftJoin(robotShadow, and(eq(robotShadow.robotPk, robot.robotPk), eq(robotShadow.key, 'failsafe')))
      .where(and(where, isNull(robot.deregisteredAt)))
      .orderBy(robot.robotId)
      .limit(limit)
      .offset(offset);
    return rows.map((row) => {
      const seen = [row.presence?.lastSeenAt.getTime(), row.seen === null ? undefined : Number(row.seen)];
      const known = seen.filter((at) => at !== undefined);
      return {
        robotPk: row.robot.robotPk,
        tenantId: row.robot.tenantId,
        robotId: row.robot.robotId,
        robotName: row.robot.robotName,
        robotType: row.robot.robotType,
        ...(row.robot.manufacturer === null ? {} : { manufacturer: row.robot.manufacturer }),
        ...(row.robot.model === null ? {} : { model: row.robot.model }),
        ...(row.robot.firmwareVersion === null ? {} : { firmwareVersion: row.robot.firmwareVersion }),
        capabilities: row.robot.capabilities as Record<string, unknown>,
        status: OPERATIONAL_STATES.find((state) => state === row.status) ?? 'unknown',
        presence:
          row.presence?.bootId == null ? undefined : PRESENCES.find((presence) => presence === row.presence?.presence),
        lastSeenMs: known.length === 0 ? undefined : Math.max(...known),
        registeredAtMs: row.robot.registeredAt.getTime(),
      };
    });
  }

  /** When the robot's newest sample came in. [ms since 1970] */
  #sampleSeen(): SQL<string | null> {
    return sql`(select extract(epoch from max(${latestSample.ingestedAt})) * 1000 from ${latestSample}
      where ${latestSample.robotPk} = ${robot.robotPk})`;
  }

  /** What an operator set, else the failsafe, else the link: worst first. No boot id: it never had a link. */
  #status(): SQL<string> {
    const sinceS = this.#clock.epochMs() / 1000 - SEEN_WITHIN_S;
    return sql`coalesce(${robot.statusOverride}, case
      when ${robotShadow.value}->>'phase' = 'LATCHED' then 'failsafe'
      when ${robotPresence.presence} = 'ONLINE' then 'operational'
      when ${robotPresence.bootId} is not null then 'offline'
      when exists (select 1 from ${latestSample} where ${latestSample.robotPk} = ${robot.robotPk}
        and ${latestSample.ingestedAt} > to_timestamp(${sinceS}::double precision)) then 'operational'
      else 'unknown' end)`;
  }
}
