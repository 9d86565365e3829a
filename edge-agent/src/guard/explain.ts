import { CAUSE_RULES, type CauseId, type Clearing } from '@outrider/shared/failsafe/rules';
import { type FailsafeLayer, optionOf } from './failsafe-layers.ts';
import { failsafeLimits } from './failsafe-limits.ts';
import type { FailsafeSettings } from './failsafe-schema.ts';

/** One setting and the file that gave it. */
export interface ExplainedSetting {
  readonly option: string;
  readonly value: unknown;
  /** `default`, or the file. */
  readonly from: string;
}

/** One cause, for a person who wants to know why the robot would stop. */
export interface ExplainedCause {
  readonly cause: CauseId;
  readonly mode: string;
  readonly action: string;
  readonly action_default: string;
  readonly action_from: string;
  readonly meaning: string;
  readonly trips: string;
  readonly clears: string;
  readonly clear_dwell_ms: number;
  readonly clear_dwell_from: string;
  readonly settings: readonly ExplainedSetting[];
}

/** What trips a cause, and the options that decide it. */
type Words = readonly [options: readonly string[], trips: (settings: FailsafeSettings) => string];

const TWO_BAD = 'two readings in a row, or 3 of 5';

const WORDS: Readonly<Record<CauseId, Words>> = {
  estop: [[], () => 'the stop line is active or cannot be read, the microcontroller says it is pressed, or a request'],
  unknown_state: [[], () => 'the stored latches are missing, damaged or not writable'],
  guard_fault: [[], () => 'an unexpected error in the guard, or a stop line that does not do what it is told'],
  mcu_silent: [['mcu_silent_ms', 'boot_grace_ms'], (s) => `no valid frame for ${s.mcu_silent_ms} ms`],
  mcu_fault: [
    ['mcu_reaction_ms', 'stop_confirm_ms'],
    (s) =>
      `it restarts or stops by itself while armed, takes over ${s.mcu_reaction_ms} ms to arm or stop, or does not acknowledge a stop within ${s.stop_confirm_ms} ms`,
  ],
  source_stale: [
    ['required_streams', 'stale_factor', 'stale_min_ms', 'boot_grace_ms'],
    (s) => `a stream that is relied on is silent for ${s.stale_factor} periods, at least ${s.stale_min_ms} ms`,
  ],
  agent_stuck: [['agent_stuck_ms'], (s) => `the agent is gone, or proves no progress for ${s.agent_stuck_ms} ms`],
  mechanical_lock: [
    ['joints', 'tracking_max_rad', 'encoder.jump_max_radps', 'encoder.jump_margin_rad', 'encoder.frozen_ms'],
    (s) =>
      `a joint outside its limits (${Object.keys(s.joints).length} joints have some) or ${s.tracking_max_rad} rad from its command: ${TWO_BAD}; an encoder that jumps: at once; one frozen for ${s.encoder.frozen_ms} ms; or a request`,
  ],
  fall: [
    ['body.imu_streams', 'body.free_fall_mps2', 'body.free_fall_ms', 'body.free_fall_max_ms', 'body.impact_mps2'],
    (s) =>
      `free fall for ${s.body.free_fall_max_ms} ms, or for ${s.body.free_fall_ms} ms and then a tilt or an impact over ${s.body.impact_mps2} m/s²: at once`,
  ],
  tilt: [
    ['body.imu_streams', 'body.roll_max_deg', 'body.pitch_max_deg', 'body.upright_max_deg'],
    (s) =>
      `roll over ${s.body.roll_max_deg} or pitch over ${s.body.pitch_max_deg} degrees: ${TWO_BAD}; upright again within ${s.body.upright_max_deg}`,
  ],
  thermal_shutdown: [
    ['motor_max_c', 'motor_trip_c', 'motor_clear_c', 'motor_rise_max_cps', 'rise_window_ms', 'thermal_streams'].concat([
      'battery.max_c',
      'battery.trip_c',
      'battery.clear_c',
    ]),
    (s) =>
      `a motor over ${s.motor_max_c} C or heating up by over ${s.motor_rise_max_cps} C/s, a battery over ${s.battery.max_c} C: ${TWO_BAD}; over ${s.motor_trip_c} C or ${s.battery.trip_c} C: at once; or a request; cool again below ${s.motor_clear_c} C and ${s.battery.clear_c} C`,
  ],
  battery_critical: [
    ['battery.streams', 'battery.critical_soc', 'battery.clear_soc', 'battery.voltage_min_v'],
    (s) =>
      `charge below ${percent(s.battery.critical_soc)}${s.battery.voltage_min_v === undefined ? '' : ` or voltage below ${s.battery.voltage_min_v} V`}: ${TWO_BAD}; well again above ${percent(s.battery.clear_soc)} or while charging`,
  ],
  geofence_lock: [
    ['geofence', 'inward_speed_max_mps'],
    (s) =>
      `${s.geofence ? `outside a fence of ${s.geofence.corners.length} corners in ${s.geofence.frame}: ${TWO_BAD}; ` : 'no fence is set; '}or a request; outside it a recovery allows motion inwards only, at most ${s.inward_speed_max_mps} m/s`,
  ],
  comm_loss: [
    ['comm.policy', 'comm.lost_ms', 'comm.max_ms'],
    (s) => `${holdWords(s)}; a mission may ask for more. Motion never resumes by itself`,
  ],
  comm_degraded: [
    ['comm.policy', 'comm.lost_ms'],
    (s) =>
      s.comm.policy === 'derate' ? `the link silent for ${s.comm.lost_ms} ms` : 'only when a mission asks for it',
  ],
  source_slow: [
    ['slow_factor'],
    (s) => `a stream below ${percent(s.slow_factor)} of its declared rate, twice in a row`,
  ],
  battery_low: [
    ['battery.low_soc', 'battery.sag_ratio'],
    (s) => `charge below ${percent(s.battery.low_soc)}, or the voltage drops by ${percent(s.battery.sag_ratio)}`,
  ],
  disk_low: [['disk_min_mb'], (s) => `less than ${s.disk_min_mb} MB free where the state is`],
  clock_bad: [[], () => 'the wall clock was never set'],
};

const percent = (share: number): string => `${Math.round(share * 1000) / 10} %`;

function holdWords({ comm }: FailsafeSettings): string {
  if (comm.policy === 'hold') return `the link silent for ${comm.lost_ms} ms`;
  return comm.max_ms > 0 ? `the link silent for ${comm.lost_ms + comm.max_ms} ms` : 'never by the configuration';
}

const CLEARING: Readonly<Record<Clearing, string>> = {
  local: 'a recovery at the robot itself',
  recover: 'any matching recovery',
  auto: 'by itself',
};

/** Every cause with its present settings, and the file that gave each. The strongest layer comes last. */
export function explainFailsafe(settings: FailsafeSettings, layers: readonly FailsafeLayer[]): ExplainedCause[] {
  const { policy } = failsafeLimits(settings);
  const from = (option: string): string =>
    layers.findLast(({ section }) => optionOf(section, option) !== undefined)?.file ?? 'default';
  return policy.rules.map((rule, i): ExplainedCause => {
    const [options, trips] = WORDS[rule.cause];
    return {
      cause: rule.cause,
      mode: rule.mode,
      action: rule.action,
      action_default: CAUSE_RULES[i]?.action ?? rule.action,
      action_from: from(`actions.${rule.cause}`),
      meaning: rule.meaning,
      trips: trips(settings),
      clears: `${CLEARING[rule.clearing]}${rule.clearDwellMs > 0 ? `, once clear for ${rule.clearDwellMs / 1000} s` : ''}`,
      clear_dwell_ms: rule.clearDwellMs,
      clear_dwell_from: from(`clear_dwell_ms.${rule.cause}`),
      settings: options.map((option) => ({ option, value: optionOf(settings, option) ?? null, from: from(option) })),
    };
  });
}
