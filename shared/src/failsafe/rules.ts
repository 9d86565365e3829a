import { type FailsafeAction, type FailsafeMode, type ReportedMode, severity } from './modes.ts';

/**
 * Who may let a latched cause go.
 * - `local`: a recovery given at the robot itself.
 * - `recover`: any matching recovery.
 * - `auto`: it lets go by itself once clear for its dwell; motion still needs a recovery.
 */
export type Clearing = 'local' | 'recover' | 'auto';

/** One row of the causes table. */
export interface CauseRule {
  readonly cause: CauseId;
  /** What the robot reports while this is the worst cause. */
  readonly mode: ReportedMode;
  readonly action: FailsafeAction;
  readonly clearing: Clearing;
  /**
   * Readings of it arrive all the time, so that silence is unknown. Otherwise it is only ever set by an event,
   * and counts as clear once that is `clearDwellMs` ago.
   */
  readonly monitored: boolean;
  /**
   * A robot without any evidence of it may move: not every robot has an IMU or a position. Evidence that was there
   * once must stay.
   */
  readonly optional?: boolean;
  /** A recovery is possible while it is only `fair`; then the robot may only move back, slowly. */
  readonly mayReturn?: boolean;
  /** How long every reading must have been clear before a recovery may let go of it. [ms] */
  readonly clearDwellMs: number;
  /** Readings older than this are none. [ms] */
  readonly freshMs: number;
  /** For people: what it means when it is latched. */
  readonly meaning: string;
}

/** Ids of all causes. A new cause is an entry here, a row below and a classifier. */
export const CAUSE_IDS = [
  'estop',
  'unknown_state',
  'guard_fault',
  'mcu_silent',
  'mcu_fault',
  'source_stale',
  'agent_stuck',
  'mechanical_lock',
  'fall',
  'tilt',
  'thermal_shutdown',
  'battery_critical',
  'geofence_lock',
  'comm_loss',
  'comm_degraded',
  'source_slow',
  'battery_low',
  'disk_low',
  'clock_bad',
] as const;
export type CauseId = (typeof CAUSE_IDS)[number];

const WATCHDOG = { mode: 'watchdog', action: 'STOP0', clearing: 'local', clearDwellMs: 1000, freshMs: 500 } as const;
/** What only slows the robot or is only said: it lets go by itself. */
const DEGRADED = { mode: 'degraded', clearing: 'auto', monitored: true, optional: true, clearDwellMs: 5000 } as const;

/** The causes table. Its order decides which mode is reported among causes of equal action: the first one. */
export const CAUSE_RULES: readonly CauseRule[] = [
  {
    cause: 'estop',
    mode: 'emergency_stop',
    action: 'STOP0',
    clearing: 'local',
    monitored: true,
    clearDwellMs: 500,
    freshMs: 500,
    meaning: 'the emergency-stop line is active, the microcontroller reports it, or a stop was requested',
  },
  {
    cause: 'unknown_state',
    mode: 'unknown_state',
    action: 'STOP0',
    clearing: 'local',
    monitored: false,
    clearDwellMs: 0,
    freshMs: 500,
    meaning: 'the stored latches are missing, damaged or could not be written',
  },
  { ...WATCHDOG, cause: 'guard_fault', monitored: false, meaning: 'the guard itself met an unexpected error' },
  { ...WATCHDOG, cause: 'mcu_silent', monitored: true, meaning: 'the microcontroller sends nothing valid' },
  {
    ...WATCHDOG,
    cause: 'mcu_fault',
    monitored: true,
    meaning: 'the microcontroller restarted, stopped by itself or does not obey',
  },
  { ...WATCHDOG, cause: 'source_stale', monitored: true, meaning: 'a required stream has stopped' },
  { ...WATCHDOG, cause: 'agent_stuck', monitored: true, meaning: 'the edge agent is gone or makes no progress' },
  {
    cause: 'mechanical_lock',
    mode: 'mechanical_lock',
    action: 'STOP0',
    clearing: 'local',
    monitored: true,
    clearDwellMs: 2000,
    freshMs: 1000,
    meaning:
      'a joint is outside its position, velocity or torque limits, does not follow its command, or its encoder jumps or is frozen; or a lock was requested',
  },
  {
    cause: 'fall',
    mode: 'tilt',
    action: 'STOP0',
    clearing: 'local',
    monitored: true,
    optional: true,
    clearDwellMs: 3000,
    freshMs: 1000,
    meaning: 'the robot was in free fall, for long or until it tilted or hit something',
  },
  {
    cause: 'tilt',
    mode: 'tilt',
    action: 'STOP0',
    clearing: 'recover',
    monitored: true,
    optional: true,
    clearDwellMs: 3000,
    freshMs: 1000,
    meaning: 'the robot leans further than its roll or pitch limit',
  },
  {
    cause: 'thermal_shutdown',
    mode: 'thermal_shutdown',
    action: 'STOP1',
    clearing: 'recover',
    monitored: true,
    clearDwellMs: 30_000,
    freshMs: 2000,
    meaning: 'a motor or battery is too hot or heats up too fast, or a shutdown was requested',
  },
  {
    cause: 'battery_critical',
    mode: 'battery_critical',
    action: 'STOP1',
    clearing: 'recover',
    monitored: true,
    optional: true,
    clearDwellMs: 2000,
    freshMs: 10_000,
    meaning: 'the battery is nearly empty or its voltage below its minimum',
  },
  {
    cause: 'geofence_lock',
    mode: 'geofence_lock',
    action: 'HOLD',
    clearing: 'recover',
    monitored: true,
    optional: true,
    mayReturn: true,
    clearDwellMs: 1000,
    freshMs: 2000,
    meaning: 'the robot is outside its geofence, or a lock was requested',
  },
  {
    cause: 'comm_loss',
    mode: 'comm_loss',
    action: 'HOLD',
    clearing: 'auto',
    monitored: true,
    optional: true,
    clearDwellMs: 5000,
    freshMs: 2000,
    meaning: 'the link is lost, and the policy of configuration or mission is to hold',
  },
  {
    ...DEGRADED,
    cause: 'comm_degraded',
    mode: 'comm_loss',
    action: 'DERATE',
    freshMs: 2000,
    meaning: 'the link is lost, and the policy of configuration or mission is to slow down',
  },
  {
    ...DEGRADED,
    cause: 'source_slow',
    action: 'DERATE',
    freshMs: 30_000,
    meaning: 'a stream that is relied on comes at less than half its rate',
  },
  {
    ...DEGRADED,
    cause: 'battery_low',
    action: 'DERATE',
    freshMs: 10_000,
    meaning: 'the battery is low, or its voltage sags under load',
  },
  { ...DEGRADED, cause: 'disk_low', action: 'WARN', freshMs: 10_000, meaning: 'little space is left for records' },
  {
    ...DEGRADED,
    cause: 'clock_bad',
    action: 'WARN',
    freshMs: 10_000,
    meaning: 'the wall clock is not known to be right',
  },
];

/** Which cause a mode of the API latches: the same one that the robot's own detection would. */
export const TRIGGER_CAUSES: Readonly<Record<FailsafeMode, CauseId>> = {
  emergency_stop: 'estop',
  mechanical_lock: 'mechanical_lock',
  thermal_shutdown: 'thermal_shutdown',
  geofence_lock: 'geofence_lock',
};

/** Everything the reducer needs to know beside state and event. */
export interface FailsafePolicy {
  readonly rules: readonly CauseRule[];
  /** Leaky counter: what a bad or unknown reading adds, what a good one takes, and where it trips. */
  readonly counter: { readonly bad: number; readonly good: number; readonly trip: number };
  /** A recovery that has not opened the gate by then is given up. [ms] */
  readonly recoveryMsMax: number;
  /** Most channels that one cause listens to. Readings beyond are unknown. */
  readonly channelsMax: number;
  /** Fraction of its speed that the robot may use while a cause of DERATE is latched. */
  readonly derateSpeedFactor: number;
  /** How fast a robot outside its geofence may move back. [m/s] */
  readonly inwardSpeedMaxMps: number;
}

export const DEFAULT_POLICY: FailsafePolicy = {
  rules: CAUSE_RULES,
  counter: { bad: 2, good: 1, trip: 4 },
  recoveryMsMax: 2000,
  channelsMax: 64,
  derateSpeedFactor: 0.5,
  inwardSpeedMaxMps: 0.1,
};

/** What a robot's configuration may change: dwell times, and actions upwards. */
export interface PolicyChange {
  readonly action?: FailsafeAction;
  readonly clearDwellMs?: number;
}

/** The default policy with a robot's changes, and what is wrong with these: an action may only be raised. */
export function policyWith(changes: Readonly<Partial<Record<CauseId, PolicyChange>>>): {
  readonly policy: FailsafePolicy;
  readonly problems: readonly { readonly cause: CauseId; readonly reason: string }[];
} {
  const problems: { cause: CauseId; reason: string }[] = [];
  const rules = CAUSE_RULES.map((rule) => {
    const { action = rule.action, clearDwellMs = rule.clearDwellMs } = changes[rule.cause] ?? {};
    const isLowered = severity(action) < severity(rule.action);
    if (isLowered) problems.push({ cause: rule.cause, reason: `may be raised from ${rule.action}, not lowered` });
    return { ...rule, action: isLowered ? rule.action : action, clearDwellMs };
  });
  return { policy: { ...DEFAULT_POLICY, rules }, problems };
}
