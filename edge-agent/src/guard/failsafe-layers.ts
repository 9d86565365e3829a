import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { DomainError, errorMessage, type FieldProblem } from '@outrider/shared/errors';
import { FAILSAFE_ACTIONS } from '@outrider/shared/failsafe/modes';
import { CAUSE_RULES } from '@outrider/shared/failsafe/rules';
import { parse } from 'yaml';
import { failsafeSchema } from './failsafe-schema.ts';

type Section = Readonly<Record<string, unknown>>;

/** One file's part of the failsafe settings. */
export interface FailsafeLayer {
  /** The file, for people. */
  readonly file: string;
  /** Where the options stand in it: `failsafe.` in edge.yaml, nothing in a policy file. */
  readonly prefix: string;
  readonly section: Section;
}

/** Numbers that are less safe when they are higher. */
const HIGHER_IS_LOOSER = [
  'tracking_max_rad',
  'encoder.jump_max_radps',
  'encoder.jump_margin_rad',
  'encoder.frozen_ms',
  'motor_max_c',
  'motor_trip_c',
  'motor_clear_c',
  'motor_rise_max_cps',
  'rise_window_ms',
  'body.roll_max_deg',
  'body.pitch_max_deg',
  'body.upright_max_deg',
  'body.free_fall_ms',
  'body.free_fall_max_ms',
  'body.impact_mps2',
  'battery.sag_ratio',
  'battery.max_c',
  'battery.trip_c',
  'battery.clear_c',
  'inward_speed_max_mps',
  'comm.lost_ms',
  'derate_speed_factor',
  'stale_factor',
  'stale_min_ms',
  'mcu_silent_ms',
  'agent_stuck_ms',
  'boot_grace_ms',
  'mcu_reaction_ms',
  'stop_confirm_ms',
  'standstill_radps',
] as const;
/** Numbers that are less safe when they are lower. */
const LOWER_IS_LOOSER = [
  'body.free_fall_mps2',
  'battery.critical_soc',
  'battery.clear_soc',
  'battery.low_soc',
  'disk_min_mb',
  'slow_factor',
] as const;
/** Lists from which nothing of the default may be left out. */
const LISTS = ['body.imu_streams', 'battery.streams'] as const;
/** The fence's margin has a default only where there is a fence. [m] */
const MARGIN_M_DEFAULT = 0.2;

const ACTIONS: readonly unknown[] = FAILSAFE_ACTIONS;
const DEFAULTS: Section = failsafeSchema.parse({});

/** Every file that says something about the failsafe, the strongest last. @throws DomainError `invalid`. */
export function failsafeLayers(document: unknown, path: string): FailsafeLayer[] {
  const own: FailsafeLayer = { file: path, prefix: 'failsafe.', section: sectionOf(sectionOf(document)['failsafe']) };
  const file = own.section['policy_file'];
  if (typeof file !== 'string' || file === '') return [own];
  const policyPath = resolve(dirname(path), file);
  let section: unknown;
  try {
    section = parse(readFileSync(policyPath, 'utf8'));
  } catch (cause) {
    const problems = [{ field: 'failsafe.policy_file', reason: errorMessage(cause) }];
    throw new DomainError('invalid', `failsafe.policy_file: ${policyPath}: ${errorMessage(cause)}`, {
      cause,
      problems,
    });
  }
  return [{ file: policyPath, prefix: '', section: sectionOf(section) }, own];
}

/**
 * The document with its policy file worked in, ready to be checked as one. Options of the document win over the
 * file's; an action may be raised by either and lowered by none; a limit beyond its default is only taken from a
 * file that says `accept_looser` and why.
 *
 * @throws DomainError `invalid`, whose message and problems name each option by its path.
 */
export function withPolicyFile(document: unknown, path: string): unknown {
  const layers = failsafeLayers(document, path);
  for (const layer of layers) {
    if (layer.prefix === '') checkPolicyFile(layer);
    refuse(
      layer,
      looserOptions(layer.section).map((problem) => ({ ...problem, field: layer.prefix + problem.field })),
    );
  }
  const [policy, own] = layers;
  if (!policy || !own) return document;
  refuse(own, loweredActions(policy.section, own.section));
  const { policy_file: _, ...merged } = merge(policy.section, own.section);
  const isLooser = layers.some(({ section }) => section['accept_looser'] === true);
  const reasons = layers.map(({ section }) => section['looser_reason']).filter((reason) => typeof reason === 'string');
  const failsafe = { ...merged, ...(isLooser && { accept_looser: true, looser_reason: reasons.join('; ') }) };
  return { ...sectionOf(document), failsafe };
}

/** The value of an option such as `battery.low_soc`; `undefined` when the section does not have it. */
export const optionOf = (section: unknown, option: string): unknown =>
  option.split('.').reduce<unknown>((inner, name) => sectionOf(inner)[name], section);

/** Options that are looser than their default, in a section that does not accept that. */
function looserOptions(section: Section): FieldProblem[] {
  if (section['accept_looser'] === true) return [];
  const problems: FieldProblem[] = [];
  const compare = (field: string, value: unknown, standard: unknown, isHigher: boolean): void => {
    if (typeof value !== 'number' || typeof standard !== 'number') return;
    const isLooser = isHigher ? value > standard : value < standard;
    if (isLooser) problems.push(tooLoose(field, `${value} is looser than the default ${standard}`));
  };
  for (const option of HIGHER_IS_LOOSER) compare(option, optionOf(section, option), optionOf(DEFAULTS, option), true);
  for (const option of LOWER_IS_LOOSER) compare(option, optionOf(section, option), optionOf(DEFAULTS, option), false);
  for (const option of LISTS) {
    const given = optionOf(section, option);
    const missing = [optionOf(DEFAULTS, option)].flat().filter((name) => Array.isArray(given) && !given.includes(name));
    if (missing.length > 0) problems.push(tooLoose(option, `leaves out ${missing.join(', ')}`));
  }
  compare('geofence.margin_m', optionOf(section, 'geofence.margin_m'), MARGIN_M_DEFAULT, false);
  for (const { cause, clearDwellMs } of CAUSE_RULES)
    compare(`clear_dwell_ms.${cause}`, optionOf(section, `clear_dwell_ms.${cause}`), clearDwellMs, false);
  for (const [name, joint] of Object.entries(sectionOf(section['joints']))) {
    compare(`joints.${name}.temperature_max_c`, sectionOf(joint)['temperature_max_c'], DEFAULTS['motor_max_c'], true);
    compare(
      `joints.${name}.tracking_max_rad`,
      sectionOf(joint)['tracking_max_rad'],
      DEFAULTS['tracking_max_rad'],
      true,
    );
  }
  return problems;
}

const tooLoose = (field: string, what: string): FieldProblem => ({
  field,
  reason: `${what}; tighten it, or set accept_looser: true with a looser_reason beside it`,
});

/** Actions of the robot's own section below those of its policy file. */
function loweredActions(policy: Section, own: Section): FieldProblem[] {
  const base = sectionOf(policy['actions']);
  return Object.entries(sectionOf(own['actions'])).flatMap(([cause, action]) => {
    const rank = (word: unknown): number => ACTIONS.indexOf(word);
    if (rank(action) >= rank(base[cause]) || rank(action) < 0) return [];
    return [{ field: `failsafe.actions.${cause}`, reason: `may be raised from ${base[cause]}, not lowered` }];
  });
}

function checkPolicyFile(layer: FailsafeLayer): void {
  if (layer.section['policy_file'] !== undefined)
    refuse(layer, [{ field: 'policy_file', reason: 'a policy file cannot name another' }]);
  const result = failsafeSchema.safeParse(layer.section);
  if (result.success) return;
  refuse(
    layer,
    result.error.issues.map((issue) => ({ field: issue.path.join('.') || 'the file', reason: issue.message })),
  );
}

function refuse({ file }: FailsafeLayer, problems: readonly FieldProblem[]): void {
  if (problems.length === 0) return;
  const words = problems.map(({ field, reason }) => `${field}: ${reason}`).join('; ');
  throw new DomainError('invalid', `${file}: ${words}`, { problems });
}

/** Sections within sections are merged, everything else is replaced. */
function merge(below: Section, above: Section): Record<string, unknown> {
  const names = new Set([...Object.keys(below), ...Object.keys(above)]);
  return Object.fromEntries(
    [...names].map((name) => {
      const [base, own] = [below[name], above[name]];
      // A fence is one thing: corners of one file with the frame of the other would be another fence.
      const isMerged = isSection(base) && isSection(own) && name !== 'geofence';
      return [name, isMerged ? merge(base, own) : (own ?? base)];
    }),
  );
}

const isSection = (value: unknown): value is Section =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const sectionOf = (value: unknown): Section => (isSection(value) ? value : {});
