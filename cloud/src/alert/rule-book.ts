import { DEFAULT_RULES } from './default-rules.ts';
import type { RuleStore, SweepRule } from './ports.ts';
import type { Rule, RuleKind } from './rule.ts';

interface TenantRules {
  readonly rules: readonly Rule[];
  readonly version: number;
}

/** A tenant without a word of its own has the built-in rules. */
const BUILT_IN: TenantRules = { rules: DEFAULT_RULES, version: 0 };

/** The rules of every tenant, in memory. Rules that did not change keep their identity, and so what is under way. */
export class RuleBook {
  readonly #store: RuleStore;
  #byTenant = new Map<string, TenantRules>();
  #tenantIds: readonly string[] = [];
  #revision = '';
  #version = 0;

  constructor(store: RuleStore) {
    this.#store = store;
  }

  rulesOf(tenantId: string): TenantRules {
    return this.#byTenant.get(tenantId) ?? BUILT_IN;
  }

  get tenantIds(): readonly string[] {
    return this.#tenantIds;
  }

  /** Enabled rules of every tenant that time alone decides or ends. @param kinds Which of them. */
  sweepRules(kinds: readonly RuleKind[]): SweepRule[] {
    return this.#tenantIds.flatMap((tenantId) =>
      this.rulesOf(tenantId)
        .rules.filter(({ enabled, condition }) => enabled && kinds.includes(condition.kind))
        .map((rule) => ({ tenantId, rule })),
    );
  }

  /** Reads again when something changed, here or at another replica. @returns Tenants whose rules changed. */
  async refresh(): Promise<readonly string[]> {
    this.#tenantIds = await this.#store.tenantIds();
    const revision = await this.#store.revision();
    if (revision === this.#revision) return [];
    const stored = await this.#store.rules();
    this.#version += 1;
    const next = new Map<string, TenantRules>();
    const changed: string[] = [];
    for (const tenantId of new Set([...stored.map((row) => row.tenantId), ...this.#byTenant.keys()])) {
      const own = new Map(stored.filter((row) => row.tenantId === tenantId).map((row) => [row.ruleId, row.rule]));
      const before = this.rulesOf(tenantId);
      const merged = [
        ...DEFAULT_RULES.map((rule) => ({ ...rule, ...own.get(rule.ruleId) })),
        ...[...own].filter(([ruleId]) => !isBuiltIn(ruleId)).map(([ruleId, rule]) => ({ ruleId, ...rule })),
      ].map((rule) => keepIdentity(rule, before.rules));
      const isSame = merged.length === before.rules.length && merged.every((rule) => before.rules.includes(rule));
      next.set(tenantId, isSame ? before : { rules: merged, version: this.#version });
      if (!isSame) changed.push(tenantId);
    }
    this.#byTenant = next;
    this.#revision = revision;
    return changed;
  }
}

export const isBuiltIn = (ruleId: string): boolean => DEFAULT_RULES.some((rule) => rule.ruleId === ruleId);

function keepIdentity(rule: Rule, before: readonly Rule[]): Rule {
  const old = before.find(({ ruleId }) => ruleId === rule.ruleId);
  return old && canonical(old) === canonical(rule) ? old : rule;
}

/** JSON with sorted keys: the database gives them in an order of its own. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_key, child: unknown) =>
    typeof child === 'object' && child !== null && !Array.isArray(child)
      ? Object.fromEntries(Object.entries(child).sort(([a], [b]) => (a < b ? -1 : 1)))
      : child,
  );
