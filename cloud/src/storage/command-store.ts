import { assert } from '@outrider/shared/assert';
import {
  COMMAND_KINDS,
  COMMAND_STATUSES,
  type CommandStatus,
  hasEnded,
  statusesBefore,
} from '@outrider/shared/command';
import type { DeviceIdentity } from '@outrider/shared/ids';
import { COMMAND_OUTCOMES } from '@outrider/shared/protocol/instruction';
import type { Command, CommandCursor, CommandParameters, CommandStep } from '../command/command.ts';
import type { AddressedCommand, CommandStore, NewCommand, ReportedOutcome } from '../command/ports.ts';
import type { RobotRef } from '../fleet/robot.ts';
import type { Database, Tx } from './database.ts';

interface CommandRow {
  readonly command_id: string;
  readonly robot_pk: number;
  readonly kind: string;
  readonly parameters: CommandParameters;
  readonly timeout_ms: number;
  readonly reason: string;
  readonly motion_epoch: number;
  readonly idempotency_key: string | null;
  readonly request_hash: string;
  readonly requested_by: string;
  readonly trace_id: string;
  readonly status: string;
  readonly detail: string;
  readonly progress: number;
  readonly created_at: Date;
  readonly expires_at: Date;
  readonly updated_at: Date;
  readonly sent_at: Date | null;
  readonly cancel_requested_at: Date | null;
  readonly cancel_requested_by: string | null;
  readonly history: readonly { readonly status: CommandStatus; readonly at: number; readonly detail: string }[] | null;
}

interface AddressedRow extends CommandRow {
  readonly tenant_id: string;
  readonly robot_id: string;
  readonly deregistered_at: Date | null;
}

const OPEN = `('accepted', 'delivered', 'executing')`;
const HISTORY = `(select json_agg(json_build_object('status', h.status, 'at', extract(epoch from h.at) * 1000,
  'detail', h.detail) order by array_position(array['${COMMAND_STATUSES.join("','")}'], h.status))
  from command_transition h where h.command_id = c.command_id) as history`;
const COLUMNS = `c.*, ${HISTORY}`;
const at = (place: number): string => `to_timestamp($${place}::float8 / 1000)`;

/** Commands in PostgreSQL or PGlite. */
export class SqlCommandStore implements CommandStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(robot: RobotRef, command: NewCommand): Promise<Command | undefined> {
    return await this.#database.transaction(async (tx) => {
      const rows = await tx.query(
        `insert into command (command_id, robot_pk, kind, parameters, timeout_ms, reason, motion_epoch, idempotency_key,
                              request_hash, requested_by, trace_id, status, created_at, expires_at, updated_at)
         values ($1, $2, $3, ($4::text)::jsonb, $5, $6, $7, $8, $9, $10, $11, 'accepted', ${at(12)}, ${at(13)}, ${at(12)})
         on conflict do nothing returning command_id`,
        [
          command.commandId,
          robot.robotPk,
          command.kind,
          JSON.stringify(command.parameters),
          command.timeoutMs,
          command.reason,
          command.motionEpoch,
          command.idempotencyKey ?? null,
          command.requestHash,
          command.requestedBy,
          command.traceId,
          command.createdAtMs,
          command.expiresAtMs,
        ],
      );
      if (rows.length === 0) return undefined;
      const step: CommandStep = { status: 'accepted', atMs: command.createdAtMs, detail: '' };
      await addStep(tx, command.commandId, step);
      await audit(tx, robot, command, 'command.dispatch', step);
      return await findOne(tx, 'c.command_id = $1', [command.commandId]);
    });
  }

  async find(robotPk: number, commandId: string): Promise<Command | undefined> {
    return await findOne(this.#database, 'c.robot_pk = $1 and c.command_id = $2', [robotPk, commandId]);
  }

  async findAll(commandIds: readonly string[]): Promise<Command[]> {
    if (commandIds.length === 0) return [];
    const rows = await this.#database.query<CommandRow>(
      `select ${COLUMNS} from command c where c.command_id = any($1::text[])`,
      [commandIds],
    );
    return rows.map(read);
  }

  async findOf({ tenantId, robotId }: DeviceIdentity, commandId: string): Promise<AddressedCommand | undefined> {
    const [row] = await this.#database.query<AddressedRow>(
      `select ${COLUMNS}, r.tenant_id, r.robot_id, r.deregistered_at from command c join robot r using (robot_pk)
        where c.command_id = $1 and r.tenant_id = $2 and r.robot_id = $3`,
      [commandId, tenantId, robotId],
    );
    return row && withRobot(row);
  }

  async findByKey(robotPk: number, idempotencyKey: string): Promise<Command | undefined> {
    return await findOne(this.#database, 'c.robot_pk = $1 and c.idempotency_key = $2', [robotPk, idempotencyKey]);
  }

  async list(
    robotPk: number,
    { status, before }: { readonly status?: CommandStatus | undefined; readonly before?: CommandCursor | undefined },
    limit: number,
  ): Promise<Command[]> {
    const rows = await this.#database.query<CommandRow>(
      `select ${COLUMNS} from command c
        where c.robot_pk = $1 and ($2::text is null or c.status = $2)
          and ($3::float8 is null or (c.created_at, c.command_id) < (${at(3)}, $4::text))
        order by c.created_at desc, c.command_id desc limit $5`,
      [robotPk, status ?? null, before?.createdAtMs ?? null, before?.commandId ?? null, limit],
    );
    return rows.map(read);
  }

  async advance(robot: RobotRef, commandId: string, step: CommandStep): Promise<Command | undefined> {
    return await this.#database.transaction(async (tx) => {
      const rows = await tx.query(
        `update command set status = $3, detail = $4, updated_at = ${at(5)},
                            progress = case when $3 = 'completed' then 1 else progress end
          where command_id = $1 and robot_pk = $2 and status = any($6::text[]) returning command_id`,
        [commandId, robot.robotPk, step.status, step.detail, step.atMs, statusesBefore(step.status)],
      );
      if (rows.length === 0) return undefined;
      await addStep(tx, commandId, step);
      const command = await findOne(tx, 'c.command_id = $1', [commandId]);
      if (command && hasEnded(step.status)) await audit(tx, robot, command, 'command.answer', step);
      return command;
    });
  }

  async noteProgress(commandId: string, progress: number, atMs: number): Promise<void> {
    await this.#database.query(
      `update command set progress = $2, updated_at = ${at(3)} where command_id = $1 and status = 'executing'`,
      [commandId, progress, atMs],
    );
  }

  async markSent(commandId: string, atMs: number): Promise<boolean> {
    const rows = await this.#database.query(
      `update command set sent_at = ${at(2)}
        where command_id = $1 and status = 'accepted' and cancel_requested_at is null and expires_at > ${at(2)}
    returning command_id`,
      [commandId, atMs],
    );
    return rows.length > 0;
  }

  async requestCancel(
    robot: RobotRef,
    commandId: string,
    requestedBy: string,
    atMs: number,
  ): Promise<Command | undefined> {
    return await this.#database.transaction(async (tx) => {
      const rows = await tx.query(
        `update command set cancel_requested_at = coalesce(cancel_requested_at, ${at(3)}),
                            cancel_requested_by = coalesce(cancel_requested_by, $4)
          where command_id = $1 and robot_pk = $2 and status in ${OPEN} returning command_id`,
        [commandId, robot.robotPk, atMs, requestedBy],
      );
      if (rows.length === 0) return undefined;
      const command = await findOne(tx, 'c.command_id = $1', [commandId]);
      if (command)
        await audit(tx, robot, { ...command, requestedBy }, 'command.cancel', {
          status: command.status,
          atMs,
          detail: 'requested',
        });
      return command;
    });
  }

  async open(limit: number, robotPk?: number): Promise<AddressedCommand[]> {
    const rows = await this.#database.query<AddressedRow>(
      `select ${COLUMNS}, r.tenant_id, r.robot_id, r.deregistered_at from command c join robot r using (robot_pk)
        where c.status in ${OPEN} and ($2::int8 is null or c.robot_pk = $2)
        order by c.created_at, c.command_id limit $1`,
      [limit, robotPk ?? null],
    );
    return rows.map(withRobot);
  }

  async reportedOutcomes(limit: number): Promise<ReportedOutcome[]> {
    const rows = await this.#database.query<AddressedRow & { outcome: string | null; said: string | null }>(
      `select ${COLUMNS}, r.tenant_id, r.robot_id, r.deregistered_at, e.payload->>'outcome' as outcome, e.payload->>'detail' as said
         from command c join robot r using (robot_pk)
         join robot_event e on e.robot_pk = c.robot_pk and e.type = 'command.answered.v1'
                           and e.event_id = 'evt_command_' || c.command_id
        where c.status in ${OPEN} limit $1`,
      [limit],
    );
    return rows.flatMap((row) => {
      const outcome = COMMAND_OUTCOMES.find((known) => known === row.outcome);
      return outcome ? [{ command: withRobot(row), outcome, detail: row.said ?? '' }] : [];
    });
  }
}

async function findOne(tx: Tx, where: string, values: readonly unknown[]): Promise<Command | undefined> {
  const [row] = await tx.query<CommandRow>(`select ${COLUMNS} from command c where ${where}`, values);
  return row && read(row);
}

async function addStep(tx: Tx, commandId: string, { status, atMs, detail }: CommandStep): Promise<void> {
  await tx.query(
    `insert into command_transition (command_id, status, at, detail) values ($1, $2, ${at(3)}, $4) on conflict do nothing`,
    [commandId, status, atMs, detail],
  );
}

async function audit(
  tx: Tx,
  robot: RobotRef,
  command: Pick<NewCommand, 'commandId' | 'kind' | 'parameters' | 'requestedBy' | 'reason' | 'traceId' | 'motionEpoch'>,
  action: string,
  { status, atMs, detail }: CommandStep,
): Promise<void> {
  const { commandId, kind, parameters, reason, motionEpoch } = command;
  const details = {
    command_id: commandId,
    robot_id: robot.robotId,
    command: kind,
    motion_epoch: motionEpoch,
    ...(action === 'command.dispatch' ? { parameters, reason } : { detail }),
  };
  await tx.query(
    `insert into audit_entry (tenant_id, subject, action, outcome, request_id, details, at)
     values ($1, $2, $3, $4, $5, ($6::text)::jsonb, ${at(7)})`,
    [robot.tenantId, command.requestedBy, action, status, command.traceId, JSON.stringify(details), atMs],
  );
}

const withRobot = (row: AddressedRow): AddressedCommand => ({
  command: read(row),
  robot: { robotPk: row.robot_pk, tenantId: row.tenant_id, robotId: row.robot_id },
  isRobotGone: row.deregistered_at !== null,
});

function read(row: CommandRow): Command {
  const kind = COMMAND_KINDS.find((known) => known === row.kind);
  const status = COMMAND_STATUSES.find((known) => known === row.status);
  assert(kind && status, `command ${row.command_id} is of a kind or status that nobody knows`);
  return {
    commandId: row.command_id,
    robotPk: row.robot_pk,
    kind,
    parameters: row.parameters,
    timeoutMs: row.timeout_ms,
    reason: row.reason,
    motionEpoch: row.motion_epoch,
    idempotencyKey: row.idempotency_key ?? undefined,
    requestHash: row.request_hash,
    requestedBy: row.requested_by,
    traceId: row.trace_id,
    status,
    detail: row.detail,
    progress: row.progress,
    createdAtMs: row.created_at.getTime(),
    expiresAtMs: row.expires_at.getTime(),
    updatedAtMs: row.updated_at.getTime(),
    sentAtMs: row.sent_at?.getTime(),
    cancelRequestedAtMs: row.cancel_requested_at?.getTime(),
    cancelRequestedBy: row.cancel_requested_by ?? undefined,
    history: (row.history ?? []).map((step) => ({ status: step.status, atMs: Number(step.at), detail: step.detail })),
  };
}
