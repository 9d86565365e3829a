/** VDA 5050 connection states. `CONNECTION_BROKEN` is what the last will says; `OFFLINE` is a clean goodbye. */
export const PRESENCES = ['ONLINE', 'OFFLINE', 'CONNECTION_BROKEN'] as const;
export type Presence = (typeof PRESENCES)[number];

/** What a robot can be told to be, and is reported as, on the fleet API. */
export const OPERATIONAL_STATES = [
  'operational',
  'executing',
  'idle',
  'maintenance',
  'failsafe',
  'offline',
  'unknown',
] as const;
export type OperationalState = (typeof OPERATIONAL_STATES)[number];

/** What was said of a robot when it was registered. Capabilities keep the integrator's own structure. */
export interface RobotDescriptor {
  readonly robotId: string;
  readonly robotName: string;
  readonly robotType: string;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly firmwareVersion?: string;
  readonly capabilities: Readonly<Record<string, unknown>>;
}
