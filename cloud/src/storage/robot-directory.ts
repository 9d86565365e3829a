import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import type { RobotDirectory } from '../telemetry/ingest-ports.ts';
import type { RobotRef } from '../telemetry/ports.ts';
import type { Database } from './database.ts';

/** A revocation made by another replica takes effect within this time. */
const REMEMBER_MS = 30_000;
const REMEMBERED_MAX = 100_000;

/** Finds robots by the name their certificate bears, and remembers the answer for a while. */
export class SqlRobotDirectory implements RobotDirectory {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #remembered = new Map<string, { readonly robot: RobotRef | undefined; readonly untilMs: number }>();

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  async find(device: DeviceIdentity): Promise<RobotRef | undefined> {
    const name = deviceName(device);
    const now = this.#clock.monotonicMs();
    const known = this.#remembered.get(name);
    if (known && known.untilMs > now) return known.robot;
    const [row] = await this.#database.query<{ robot_pk: number }>(
      `select robot_pk from robot r
        where tenant_id = $1 and robot_id = $2 and deregistered_at is null
          and exists (select 1 from robot_certificate c
                       where c.robot_pk = r.robot_pk and c.revoked_at is null
                         and c.expires_at > to_timestamp($3::float8 / 1000))`,
      [device.tenantId, device.robotId, this.#clock.epochMs()],
    );
    const { tenantId, robotId } = device;
    const robot = row && { robotPk: row.robot_pk, tenantId, robotId };
    if (this.#remembered.size >= REMEMBERED_MAX) this.#remembered.clear();
    this.#remembered.set(name, { robot, untilMs: now + REMEMBER_MS });
    return robot;
  }

  async findRegistered(device: DeviceIdentity): Promise<RobotRef | undefined> {
    const [row] = await this.#database.query<{ robot_pk: number }>(
      'select robot_pk from robot where tenant_id = $1 and robot_id = $2 order by robot_pk desc limit 1',
      [device.tenantId, device.robotId],
    );
    return row && { robotPk: row.robot_pk, tenantId: device.tenantId, robotId: device.robotId };
  }

  forget(device: DeviceIdentity): void {
    this.#remembered.delete(deviceName(device));
  }
}
