import { z } from '@hono/zod-openapi';
import { EVENT_TYPES, OWN_EVENT_TYPES } from '@outrider/shared/events';
import { REPORTED_MODES } from '@outrider/shared/failsafe/modes';
import { STREAM_KINDS } from '@outrider/shared/telemetry';
import { ALERT_CHANGES } from '../../alert/alert.ts';
import { type Condition, FLAP_DEFAULT, OPERATORS, RULE_KINDS, type Rule, SEVERITIES } from '../../alert/rule.ts';
import { RobotId } from './schemas.ts';

const ALERTS_AT_ONCE_MAX = 100;
const DAY_S = 86_400;

const time = z.iso.datetime();
const AlertId = z.string().min(1).max(64);

export const AlertView = z
  .object({
    alert_id: z.string(),
    robot_id: z.string(),
    rule_id: z.string(),
    kind: z.enum(RULE_KINDS),
    severity: z.enum(SEVERITIES),
    title: z.string(),
    status: z.enum(['active', 'cleared']),
    raised_at: time,
    last_at: time,
    cleared_at: time.nullable(),
    cleared_by: z.string().nullable(),
    acknowledged: z.boolean(),
    acknowledged_at: time.nullable(),
    acknowledged_by: z.string().nullable(),
    acknowledged_notes: z.string().nullable(),
    occurrences: z.int(),
    flapping: z.boolean(),
    backfilled: z.boolean().openapi({ description: 'It was old when it became known: the robot had been away' }),
    value: z.number().nullable(),
    details: z.record(z.string(), z.unknown()),
    trace_id: z.string(),
    stored_at: time,
    updated_at: time,
  })
  .openapi('Alert');

export const AlertList = z
  .object({ alerts: z.array(AlertView), next_cursor: z.string().nullable() })
  .openapi('AlertList');

export const AlertWithHistory = z
  .object({
    alert: AlertView,
    history: z.array(
      z.object({
        change: z.enum(ALERT_CHANGES),
        at: time,
        stored_at: time,
        actor: z.string().nullable(),
        notes: z.string().nullable(),
        details: z.record(z.string(), z.unknown()),
      }),
    ),
  })
  .openapi('AlertWithHistory');

export const AlertPath = z.object({ alert_id: z.string() });

export const AlertActionRequest = z
  .strictObject({
    alert_id: AlertId.optional(),
    alert_ids: z.array(AlertId).min(1).max(ALERTS_AT_ONCE_MAX).optional(),
    notes: z.string().max(2_000).optional(),
  })
  .refine((body) => (body.alert_id === undefined) !== (body.alert_ids === undefined), {
    path: ['alert_id'],
    message: 'or alert_ids must be given, and not both',
  })
  .openapi('AlertActionRequest');

export const AlertActionReply = z
  .object({ alerts: z.array(AlertView), actor: z.string(), notes: z.string().nullable(), at: time })
  .openapi('AlertActionReply');

const Signal = z.strictObject({
  kind: z.enum(STREAM_KINDS),
  field: z.string().min(1).max(64),
  name: z.string().min(1).max(128).optional(),
  stream: z.string().min(1).max(256).optional(),
});
const comparison = {
  signal: Signal,
  operator: z.enum(OPERATORS),
  value: z.number(),
  clear_value: z.number().optional(),
};
const ComparisonFields = z.strictObject(comparison);
const seconds = z.number().min(0).max(DAY_S);

const ConditionWire = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('threshold'), ...comparison }),
  z.strictObject({ kind: z.literal('duration'), ...comparison, for_s: seconds }),
  z.strictObject({
    kind: z.literal('repetition'),
    count: z.int().min(1).max(1_000),
    within_s: z.number().min(1).max(DAY_S),
    event_type: z.enum([...EVENT_TYPES, ...OWN_EVENT_TYPES]).optional(),
    comparison: ComparisonFields.optional(),
  }),
  z.strictObject({
    kind: z.literal('no_data'),
    for_s: z.number().min(1).max(DAY_S),
    stream_kind: z.enum(STREAM_KINDS).optional(),
  }),
  z.strictObject({ kind: z.literal('anomaly'), risk_level: z.enum(['medium', 'high', 'critical']) }),
  z.strictObject({ kind: z.literal('failsafe'), modes: z.array(z.enum(REPORTED_MODES)).min(1).optional() }),
  z.strictObject({ kind: z.literal('offline'), for_s: seconds, orderly: z.boolean().default(false) }),
]);
type ConditionWire = z.output<typeof ConditionWire>;

const FlapWire = z.strictObject({
  clear_for_s: seconds.default(FLAP_DEFAULT.clearForS),
  raises: z.int().min(1).max(100).default(FLAP_DEFAULT.raises),
  window_s: z.number().min(1).max(DAY_S).default(FLAP_DEFAULT.windowS),
});

const ruleFields = {
  name: z.string().min(1).max(128),
  severity: z.enum(SEVERITIES),
  enabled: z.boolean(),
  robot_ids: z.array(RobotId).min(1).max(1_000).nullable(),
  condition: ConditionWire,
  flap: FlapWire,
};

/** A condition must be one that can be judged. */
const soundCondition = (body: { condition?: ConditionWire | undefined }): boolean =>
  body.condition?.kind !== 'repetition' ||
  (body.condition.event_type === undefined) !== (body.condition.comparison === undefined);
const UNSOUND = { path: ['condition'], message: 'needs either event_type or comparison' };

export const AlertRuleRequest = z
  .strictObject({
    ...ruleFields,
    enabled: ruleFields.enabled.default(true),
    robot_ids: ruleFields.robot_ids.default(null),
    flap: FlapWire.default({
      clear_for_s: FLAP_DEFAULT.clearForS,
      raises: FLAP_DEFAULT.raises,
      window_s: FLAP_DEFAULT.windowS,
    }),
  })
  .refine(soundCondition, UNSOUND)
  .openapi('AlertRuleRequest');

export const AlertRulePatch = z
  .strictObject({
    name: ruleFields.name.optional(),
    severity: ruleFields.severity.optional(),
    enabled: ruleFields.enabled.optional(),
    robot_ids: ruleFields.robot_ids.optional(),
    condition: ConditionWire.optional(),
    flap: FlapWire.optional(),
  })
  .refine(soundCondition, UNSOUND)
  .openapi('AlertRulePatch');

export const AlertRuleView = z
  .object({ rule_id: z.string(), built_in: z.boolean(), ...ruleFields })
  .openapi('AlertRule');

export const AlertRuleList = z.object({ rules: z.array(AlertRuleView) }).openapi('AlertRuleList');
export const AlertRulePath = z.object({ rule_id: z.string() });

type ComparisonWire = z.output<typeof ComparisonFields>;
const comparisonOf = ({ signal, operator, value, clear_value }: ComparisonWire) => ({
  signal,
  operator,
  value,
  ...(clear_value === undefined ? {} : { clearValue: clear_value }),
});

export function decodeCondition(wire: ConditionWire): Condition {
  switch (wire.kind) {
    case 'threshold':
      return { kind: wire.kind, ...comparisonOf(wire) };
    case 'duration':
      return { kind: wire.kind, ...comparisonOf(wire), forS: wire.for_s };
    case 'repetition':
      return {
        kind: wire.kind,
        count: wire.count,
        withinS: wire.within_s,
        ...(wire.event_type === undefined ? {} : { eventType: wire.event_type }),
        ...(wire.comparison === undefined ? {} : { comparison: comparisonOf(wire.comparison) }),
      };
    case 'no_data':
      return {
        kind: wire.kind,
        forS: wire.for_s,
        ...(wire.stream_kind === undefined ? {} : { streamKind: wire.stream_kind }),
      };
    case 'anomaly':
      return { kind: wire.kind, riskLevel: wire.risk_level };
    case 'failsafe':
      return { kind: wire.kind, ...(wire.modes === undefined ? {} : { modes: wire.modes }) };
    case 'offline':
      return { kind: wire.kind, forS: wire.for_s, orderly: wire.orderly };
  }
}

const encodeComparison = ({ signal, operator, value, clearValue }: Extract<Condition, { kind: 'threshold' }>) => ({
  signal,
  operator,
  value,
  ...(clearValue === undefined ? {} : { clear_value: clearValue }),
});

function encodeCondition(condition: Condition): Record<string, unknown> {
  switch (condition.kind) {
    case 'threshold':
      return { kind: condition.kind, ...encodeComparison(condition) };
    case 'duration':
      return { kind: condition.kind, ...encodeComparison({ ...condition, kind: 'threshold' }), for_s: condition.forS };
    case 'repetition':
      return {
        kind: condition.kind,
        count: condition.count,
        within_s: condition.withinS,
        ...(condition.eventType === undefined ? {} : { event_type: condition.eventType }),
        ...(condition.comparison === undefined
          ? {}
          : { comparison: encodeComparison({ kind: 'threshold', ...condition.comparison }) }),
      };
    case 'no_data':
      return {
        kind: condition.kind,
        for_s: condition.forS,
        ...(condition.streamKind === undefined ? {} : { stream_kind: condition.streamKind }),
      };
    case 'anomaly':
      return { kind: condition.kind, risk_level: condition.riskLevel };
    case 'failsafe':
      return { kind: condition.kind, ...(condition.modes === undefined ? {} : { modes: condition.modes }) };
    case 'offline':
      return { kind: condition.kind, for_s: condition.forS, orderly: condition.orderly };
  }
}

/** A rule as callers read and write it. */
export const encodeRule = ({ rule, isBuiltIn }: { rule: Rule; isBuiltIn: boolean }) => ({
  rule_id: rule.ruleId,
  built_in: isBuiltIn,
  name: rule.name,
  severity: rule.severity,
  enabled: rule.enabled,
  robot_ids: rule.robotIds ?? null,
  condition: encodeCondition(rule.condition),
  flap: { clear_for_s: rule.flap.clearForS, raises: rule.flap.raises, window_s: rule.flap.windowS },
});

export const decodeFlap = (wire: z.output<typeof FlapWire>): Rule['flap'] => ({
  clearForS: wire.clear_for_s,
  raises: wire.raises,
  windowS: wire.window_s,
});
