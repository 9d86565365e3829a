import type { outrider } from '@outrider/shared/messages';
import type { PresenceStore } from '../telemetry/ingest-ports.ts';
import { textProblem } from '../telemetry/storable.ts';
import type { Database } from './database.ts';

const TEXT_CHARACTERS_MAX = 128;

/** Keeps presence in PostgreSQL. Times are ours: a last will was written long before it is heard. */
export class SqlPresenceStore implements PresenceStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async report(robotPk: number, report: outrider.v1.PresenceReport, nowMs: number): Promise<void> {
    const seen = report.presence === 'CONNECTION_BROKEN' ? 'robot_presence.last_seen_at' : 'excluded.last_seen_at';
    await this.#database.query(
      `insert into robot_presence (robot_pk, presence, agent_version, boot_id, changed_at, last_seen_at)
       values ($1, $2, nullif($3, ''), nullif($4, ''), to_timestamp($5::float8 / 1000), to_timestamp($5::float8 / 1000))
       on conflict (robot_pk) do update
          set presence = excluded.presence,
              agent_version = coalesce(excluded.agent_version, robot_presence.agent_version),
              boot_id = coalesce(excluded.boot_id, robot_presence.boot_id),
              changed_at = case when robot_presence.presence = excluded.presence then robot_presence.changed_at
                                else excluded.changed_at end,
              last_seen_at = ${seen}`,
      [robotPk, report.presence, storable(report.agentVersion), storable(report.bootId), nowMs],
    );
  }

  async touch(robotPks: readonly number[], nowMs: number, presenceIfNew: 'ONLINE' | 'OFFLINE'): Promise<void> {
    if (robotPks.length === 0) return;
    await this.#database.query(
      `insert into robot_presence (robot_pk, presence, changed_at, last_seen_at)
       select robot_pk, $2::text, to_timestamp($3::float8 / 1000), to_timestamp($3::float8 / 1000)
         from unnest($1::int8[]) as u (robot_pk) order by robot_pk
       on conflict (robot_pk) do update set last_seen_at = greatest(robot_presence.last_seen_at, excluded.last_seen_at)`,
      [[...new Set(robotPks)], presenceIfNew, nowMs],
    );
  }

  async breakAll(nowMs: number): Promise<void> {
    await this.#database.query(
      `update robot_presence set presence = 'CONNECTION_BROKEN', changed_at = to_timestamp($1::float8 / 1000)
        where presence = 'ONLINE'`,
      [nowMs],
    );
  }
}

const storable = (text: string): string => (textProblem(text, TEXT_CHARACTERS_MAX) === undefined ? text : '');
