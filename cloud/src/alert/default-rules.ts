import { FLAP_DEFAULT, type Rule, type Signal } from './rule.ts';

const MOTOR: Signal = { kind: 'temperature', field: 'temperature' };
const JOINT: Signal = { kind: 'joint_state', field: 'temperature' };
const CHARGE: Signal = { kind: 'power', field: 'state_of_charge' };
const flap = FLAP_DEFAULT;
const enabled = true;

/** What every tenant starts with. Each can be changed or switched off under its id. */
export const DEFAULT_RULES: readonly Rule[] = [
  {
    ruleId: 'failsafe-latched',
    name: 'Failsafe latched',
    severity: 'critical',
    enabled,
    condition: { kind: 'failsafe' },
    flap,
  },
  {
    ruleId: 'failsafe-repeated',
    name: 'Failsafe three times in ten minutes',
    severity: 'critical',
    enabled,
    condition: { kind: 'repetition', eventType: 'failsafe.triggered.v1', count: 3, withinS: 600 },
    flap: { ...flap, clearForS: 600 },
  },
  {
    ruleId: 'command-unauthentic',
    name: 'Command that nobody had signed',
    severity: 'critical',
    enabled,
    condition: { kind: 'repetition', eventType: 'command.unauthentic.v1', count: 1, withinS: 60 },
    flap: { ...flap, clearForS: 3600 },
  },
  {
    ruleId: 'anomaly',
    name: 'Anomaly',
    severity: 'warning',
    enabled,
    condition: { kind: 'anomaly', riskLevel: 'medium' },
    flap: { ...flap, clearForS: 60 },
  },
  {
    ruleId: 'robot-offline',
    name: 'Connection lost',
    severity: 'warning',
    enabled,
    condition: { kind: 'offline', forS: 60, orderly: false },
    flap,
  },
  {
    ruleId: 'no-data',
    name: 'No telemetry',
    severity: 'warning',
    enabled,
    condition: { kind: 'no_data', forS: 300 },
    flap,
  },
  {
    ruleId: 'temperature-high',
    name: 'Temperature above 85 °C for 5 s',
    severity: 'warning',
    enabled,
    condition: { kind: 'duration', signal: MOTOR, operator: '>', value: 85, clearValue: 80, forS: 5 },
    flap,
  },
  {
    ruleId: 'temperature-critical',
    name: 'Temperature above 95 °C',
    severity: 'critical',
    enabled,
    condition: { kind: 'threshold', signal: MOTOR, operator: '>', value: 95, clearValue: 90 },
    flap,
  },
  {
    ruleId: 'joint-temperature-high',
    name: 'Joint temperature above 85 °C for 5 s',
    severity: 'warning',
    enabled,
    condition: { kind: 'duration', signal: JOINT, operator: '>', value: 85, clearValue: 80, forS: 5 },
    flap,
  },
  {
    ruleId: 'battery-low',
    name: 'Battery below 20 % for 30 s',
    severity: 'warning',
    enabled,
    condition: { kind: 'duration', signal: CHARGE, operator: '<', value: 0.2, clearValue: 0.25, forS: 30 },
    flap: { ...flap, clearForS: 30 },
  },
  {
    ruleId: 'battery-empty',
    name: 'Battery below 5 %',
    severity: 'critical',
    enabled,
    condition: { kind: 'threshold', signal: CHARGE, operator: '<', value: 0.05, clearValue: 0.08 },
    flap: { ...flap, clearForS: 30 },
  },
];
