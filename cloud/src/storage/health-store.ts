import { DomainError } from '@outrider/shared/errors';
import { encodeModel } from '@outrider/shared/health/model-codec';
import type { RobotModel } from '@outrider/shared/health/robot-analyser';
import { encodeVerdict, type HealthVerdict } from '@outrider/shared/health/verdict';
import { newId } from '@outrider/shared/ids';
import type { NewEvent } from '../events/ports.ts';
import { type CloudVerdict, EDGE_KEY, type HealthStore, type KnownHealth } from '../health/ports.ts';
import { readModel } from '../health/stored-model.ts';
import type { Database, Tx } from './database.ts';
import { insertBusEvents } from './event-store.ts';

/** Where the control plane's verdicts lie, beside what the robots say of themselves. */
const KEY = 'cloud_health';

/** Keeps models and verdicts in PostgreSQL. */
export class SqlHealthStore implements HealthStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async load(robotPk: number): Promise<KnownHealth> {
    const [row] = await this.#database.query<{ body: Uint8Array | null; judged_at: Date | null }>(
      `select m.body, s.ingested_at as judged_at from (select $1::int8 as robot_pk) as r
         left join health_model m using (robot_pk)
         left join robot_shadow s on s.robot_pk = r.robot_pk and s.key = $2`,
      [robotPk, EDGE_KEY],
    );
    return { model: row?.body ?? undefined, edgeJudgedMs: row?.judged_at?.getTime() };
  }

  async saveModel(
    robotPk: number,
    merge: (stored: Uint8Array | undefined) => Uint8Array,
    nowMs: number,
  ): Promise<void> {
    await this.#database.transaction(async (tx) => {
      // The robot's row is there also before the first model, so that replicas wait for each other.
      await tx.query('select 1 from robot where robot_pk = $1 for update', [robotPk]);
      const rows = await tx.query<{ body: Uint8Array }>('select body from health_model where robot_pk = $1', [robotPk]);
      await tx.query(
        `insert into health_model (robot_pk, body, learnt_at) values ($1, $2, to_timestamp($3::float8 / 1000))
         on conflict (robot_pk) do update set body = excluded.body, learnt_at = excluded.learnt_at`,
        [robotPk, merge(rows[0]?.body), nowMs],
      );
    });
  }

  /**
   * Puts trained streams in the place of what was learnt of them; the others stay.
   *
   * @throws DomainError `not_found` when the tenant has no such robot.
   */
  async putModel(tenantId: string, robotId: string, trained: RobotModel, nowMs: number): Promise<void> {
    const rows = await this.#database.query<{ robot_pk: number }>(
      'select robot_pk from robot where tenant_id = $1 and robot_id = $2',
      [tenantId, robotId],
    );
    const robotPk = rows[0]?.robot_pk;
    if (robotPk === undefined) throw new DomainError('not_found', `tenant ${tenantId} has no robot ${robotId}`);
    const merge = (stored: Uint8Array | undefined): Uint8Array =>
      encodeModel(new Map([...(stored ? readModel(stored) : []), ...trained]));
    await this.saveModel(robotPk, merge, nowMs);
  }

  async report(verdicts: readonly CloudVerdict[], nowMs: number): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const alarmed = await this.#alarmed(tx, verdicts);
      const events = verdicts.flatMap(({ robot, raised }): NewEvent[] =>
        raised && !alarmed.has(robot.robotPk)
          ? [{ ...anomalyEvent(raised), tenantId: robot.tenantId, robotId: robot.robotId }]
          : [],
      );
      await tx.query(
        `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
         select robot_pk, $5, to_timestamp(at_ms / 1000), to_timestamp($4::float8 / 1000), value::jsonb
           from unnest($1::int8[], $2::float8[], $3::text[]) as u (robot_pk, at_ms, value) order by robot_pk
         on conflict (robot_pk, key) do update
            set at = excluded.at, ingested_at = excluded.ingested_at, value = excluded.value`,
        [
          verdicts.map(({ robot }) => robot.robotPk),
          verdicts.map(({ verdict }) => verdict.updatedAtMs),
          verdicts.map(({ verdict }) => JSON.stringify(encodeVerdict(verdict))),
          nowMs,
          KEY,
        ],
      );
      await insertBusEvents(tx, events, nowMs);
    });
  }

  /** Robots whose alarm another replica has stored already. Their rows stay locked until this one is done. */
  async #alarmed(tx: Tx, verdicts: readonly CloudVerdict[]): Promise<Set<number>> {
    const raised = verdicts.filter((said) => said.raised).map(({ robot }) => robot.robotPk);
    if (raised.length === 0) return new Set();
    const rows = await tx.query<{ robot_pk: number; since: string | null }>(
      `select robot_pk, value ->> 'alarm_since_ms' as since from robot_shadow
        where robot_pk = any ($1::int8[]) and key = $2 order by robot_pk for update`,
      [raised, KEY],
    );
    return new Set(rows.filter(({ since }) => since !== null).map(({ robot_pk }) => robot_pk));
  }
}

function anomalyEvent(verdict: HealthVerdict): Pick<NewEvent, 'type' | 'occurredAtMs' | 'traceId' | 'payload'> {
  return {
    type: 'anomaly.detected.v1',
    occurredAtMs: verdict.alarmSinceMs ?? verdict.updatedAtMs,
    traceId: newId('anomaly'),
    payload: {
      anomaly_score: verdict.anomalyScore ?? 0,
      risk_level: verdict.riskLevel === 'unknown' ? 'medium' : verdict.riskLevel,
      signals: verdict.signals.map(({ signal, score, sinceMs }) => ({
        signal,
        score,
        since: new Date(sinceMs).toISOString(),
      })),
    },
  };
}
