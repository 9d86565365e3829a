import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import {
  AlertRuleList,
  AlertRulePatch,
  AlertRulePath,
  AlertRuleRequest,
  AlertRuleView,
  decodeCondition,
  decodeFlap,
  encodeRule,
} from './alert-schemas.ts';
import { sigmaErrors } from './responses.ts';

const READ = ['alert:read', 'telemetry:read'] as const;
const WRITE = ['alert:write'] as const;
const shared = { tag: 'SigmaPrompt', throttle: 'tier' } as const;

/** /api/v1/alerts/rules: what is watched for. The built-in rules are listed, changed and switched off like any other. */
export function registerAlertRules(router: Router, core: Core): void {
  router.add(
    {
      ...shared,
      method: 'get',
      path: '/api/v1/alerts/rules',
      operationId: 'listAlertRules',
      summary: 'The rules of the tenant, built-in ones included',
      access: READ,
      responses: { 200: { description: 'Rules', schema: AlertRuleList }, ...sigmaErrors([400, 401, 403, 429, 503]) },
    },
    async ({ principal }, c) => c.json({ rules: (await core.alerts.listRules(principal)).map(encodeRule) }),
  );
  router.add(
    {
      ...shared,
      method: 'post',
      path: '/api/v1/alerts/rules',
      operationId: 'createAlertRule',
      summary: 'Add a rule of the tenant',
      access: WRITE,
      body: AlertRuleRequest,
      responses: {
        201: { description: 'The rule', schema: AlertRuleView },
        ...sigmaErrors([400, 401, 403, 409, 413, 429, 503]),
      },
    },
    async ({ principal, body }, c) => {
      const { name, severity, enabled, robot_ids, condition, flap } = body;
      const draft = {
        name,
        severity,
        enabled,
        ...(robot_ids === null ? {} : { robotIds: robot_ids }),
        condition: decodeCondition(condition),
        flap: decodeFlap(flap),
      };
      return c.json(encodeRule(await core.alerts.createRule(principal, draft, c.get('requestId'))), 201);
    },
  );
  router.add(
    {
      ...shared,
      method: 'get',
      path: '/api/v1/alerts/rules/{rule_id}',
      operationId: 'getAlertRule',
      summary: 'One rule',
      access: READ,
      params: AlertRulePath,
      responses: {
        200: { description: 'The rule', schema: AlertRuleView },
        ...sigmaErrors([400, 401, 403, 404, 429, 503]),
      },
    },
    async ({ principal, params }, c) => c.json(encodeRule(await core.alerts.readRule(principal, params.rule_id))),
  );
  router.add(
    {
      ...shared,
      method: 'patch',
      path: '/api/v1/alerts/rules/{rule_id}',
      operationId: 'changeAlertRule',
      summary: 'Change a rule, or switch it off; a built-in one gets a form of the tenant’s own',
      access: WRITE,
      params: AlertRulePath,
      body: AlertRulePatch,
      responses: {
        200: { description: 'The rule', schema: AlertRuleView },
        ...sigmaErrors([400, 401, 403, 404, 413, 429, 503]),
      },
    },
    async ({ principal, params, body }, c) => {
      const changed = await core.alerts.changeRule(
        principal,
        params.rule_id,
        (before) => ({
          name: body.name ?? before.name,
          severity: body.severity ?? before.severity,
          enabled: body.enabled ?? before.enabled,
          robotIds: body.robot_ids === undefined ? before.robotIds : (body.robot_ids ?? undefined),
          condition: body.condition === undefined ? before.condition : decodeCondition(body.condition),
          flap: body.flap === undefined ? before.flap : decodeFlap(body.flap),
        }),
        c.get('requestId'),
      );
      return c.json(encodeRule(changed));
    },
  );
  router.add(
    {
      ...shared,
      method: 'delete',
      path: '/api/v1/alerts/rules/{rule_id}',
      operationId: 'removeAlertRule',
      summary: 'Remove a rule; a built-in one goes back to how it was',
      access: WRITE,
      params: AlertRulePath,
      responses: { 204: { description: 'Removed' }, ...sigmaErrors([400, 401, 403, 404, 429, 503]) },
    },
    async ({ principal, params }, c) => {
      await core.alerts.removeRule(principal, params.rule_id, c.get('requestId'));
      return c.body(null, 204);
    },
  );
}
