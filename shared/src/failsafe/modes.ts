/** Failsafe modes of the API (SigmaPrompt §8) and the remote stop request. */
export const FAILSAFE_MODES = ['emergency_stop', 'mechanical_lock', 'thermal_shutdown', 'geofence_lock'] as const;
export type FailsafeMode = (typeof FAILSAFE_MODES)[number];

/** Every mode a robot can report: those that can be asked for, and those it only enters by itself. */
export const REPORTED_MODES = [
  ...FAILSAFE_MODES,
  'watchdog',
  'unknown_state',
  'tilt',
  'battery_critical',
  'comm_loss',
  'degraded',
] as const;
export type ReportedMode = (typeof REPORTED_MODES)[number];

/** What is done about a cause, from nothing to the worst. The order is the severity. */
export const FAILSAFE_ACTIONS = ['NONE', 'WARN', 'DERATE', 'HOLD', 'STOP1', 'STOP0'] as const;
export type FailsafeAction = (typeof FAILSAFE_ACTIONS)[number];

/** Place of an action in the order of severity; higher is worse. */
export const severity = (action: FailsafeAction): number => FAILSAFE_ACTIONS.indexOf(action);

/** Where the gate between commands and actuators stands. Only ARMED lets commands through. */
export const FAILSAFE_PHASES = ['BOOT', 'LATCHED', 'RECOVERING', 'ARMED'] as const;
export type FailsafePhase = (typeof FAILSAFE_PHASES)[number];
