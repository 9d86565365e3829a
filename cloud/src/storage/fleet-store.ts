import type { DeviceIdentity } from '@outrider/shared/ids';
import type { RobotDescriptor } from '@outrider/shared/robot';
import type { Clock } from '@outrider/shared/time';
import { and, desc, eq, gt, isNull, sql } from 'drizzle-orm';
import type { AuditStore } from '../failsafe/audit-queue.ts';
import type { PendingStop, PendingStopStore } from '../failsafe/ports.ts';
import type { AuditEntry, AuditTrail, FleetStore } from '../fleet/ports.ts';
import type { Robot, RobotFilter, RobotPage, RobotRef } from '../fleet/robot.ts';
import type { RosterStore } from '../fleet/roster.ts';
import type { Database, Orm } from './database.ts';
import { RobotViews } from './robot-views.ts';
import { auditEntry, robot, robotApiKey } from './schema.ts';

/** Robots and the audit trail in PostgreSQL or PGlite. */
export class PgFleetStore implements FleetStore, AuditTrail, AuditStore, RosterStore, PendingStopStore {
  readonly #orm: Orm;
  readonly #views: RobotViews;

  constructor(database: Pick<Database, 'orm' | 'query'>, clock: Clock) {
    this.#orm = database.orm;
    this.#views = new RobotViews(database, clock);
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
    return await this.#views.read(tenantId, robotId);
  }

  async listRobots(tenantId: string, filter: RobotFilter): Promise<RobotPage> {
    return await this.#views.list(tenantId, filter);
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
}
