import type { DeviceIdentity } from '@outrider/shared/ids';
import type { InstructionStore, StoredInstructionKey } from '../failsafe/ports.ts';
import type { Database } from './database.ts';

/** Instruction keys and counts in PostgreSQL or PGlite. */
export class PgInstructionStore implements InstructionStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async instructionKeys(limit: number): Promise<StoredInstructionKey[]> {
    const rows = await this.#database.query<{
      serial: number;
      key_id: string;
      public_key: Uint8Array;
      private_key_pem: string;
      created_at: Date;
    }>(
      'select serial, key_id, public_key, private_key_pem, created_at from instruction_key order by serial desc limit $1',
      [limit],
    );
    return rows.map((row) => ({
      serial: row.serial,
      keyId: row.key_id,
      publicKey: new Uint8Array(row.public_key),
      sealedPrivateKeyPem: row.private_key_pem,
      createdAtMs: row.created_at.getTime(),
    }));
  }

  async addInstructionKey(key: Omit<StoredInstructionKey, 'serial'>, newerThan: number): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.query('lock table instruction_key in share row exclusive mode');
      await tx.query(
        `insert into instruction_key (key_id, public_key, private_key_pem, created_at)
         select $1::text, $2::bytea, $3::text, to_timestamp($4::float8 / 1000)
          where not exists (select 1 from instruction_key where serial > $5::bigint)`,
        [key.keyId, key.publicKey, key.sealedPrivateKeyPem, key.createdAtMs, newerThan],
      );
    });
  }

  async nextCounter(robot: DeviceIdentity, above: number): Promise<number> {
    const [row] = await this.#database.query<{ last: number }>(
      `insert into instruction_counter (tenant_id, robot_id, last) values ($1, $2, $3::bigint + 1)
       on conflict (tenant_id, robot_id) do update set last = greatest(instruction_counter.last, $3::bigint) + 1
       returning last`,
      [robot.tenantId, robot.robotId, above],
    );
    return row?.last ?? 0;
  }
}
