import type { RuleStore, StoredRule } from '../alert/ports.ts';
import { storableJson } from './alert-rows.ts';
import type { Database } from './database.ts';

/** Tenants' rules in PostgreSQL or PGlite. */
export class SqlRuleStore implements RuleStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async tenantIds(): Promise<string[]> {
    const rows = await this.#database.query<{ tenant_id: string }>('select tenant_id from tenant order by tenant_id');
    return rows.map((row) => row.tenant_id);
  }

  async rules(): Promise<StoredRule[]> {
    const rows = await this.#database.query<{ tenant_id: string; rule_id: string; rule: StoredRule['rule'] }>(
      'select tenant_id, rule_id, rule from alert_rule where removed_at is null order by tenant_id, rule_id',
    );
    return rows.map((row) => ({ tenantId: row.tenant_id, ruleId: row.rule_id, rule: row.rule }));
  }

  async revision(): Promise<string> {
    const [row] = await this.#database.query<{ revision: string }>(
      // xmin changes with every write of a row, also twice in one millisecond.
      `select coalesce(md5(string_agg(tenant_id || rule_id || xmin::text, ',' order by tenant_id, rule_id)), '') as revision
         from alert_rule`,
    );
    return row?.revision ?? '';
  }

  async put({ tenantId, ruleId, rule }: StoredRule, by: string, nowMs: number): Promise<void> {
    await this.#database.query(
      `insert into alert_rule (tenant_id, rule_id, rule, created_at, updated_at, updated_by)
       values ($1, $2, $3::text::jsonb, to_timestamp($4::float8 / 1000), to_timestamp($4::float8 / 1000), $5)
       on conflict (tenant_id, rule_id) do update
          set rule = excluded.rule, updated_at = excluded.updated_at, updated_by = excluded.updated_by, removed_at = null`,
      [tenantId, ruleId, storableJson(rule), nowMs, by],
    );
  }

  async remove(tenantId: string, ruleId: string, by: string, nowMs: number): Promise<boolean> {
    const rows = await this.#database.query(
      `update alert_rule set removed_at = to_timestamp($3::float8 / 1000), updated_at = to_timestamp($3::float8 / 1000),
              updated_by = $4
        where tenant_id = $1 and rule_id = $2 and removed_at is null returning 1`,
      [tenantId, ruleId, nowMs, by],
    );
    return rows.length > 0;
  }
}
