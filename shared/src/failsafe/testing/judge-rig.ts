import type { Signals } from '../classify-signals.ts';
import { type JudgeLimits, SignalJudge } from '../judge.ts';
import type { CauseId } from '../rules.ts';

export const LIMITS: JudgeLimits = {
  joints: {
    knee: { velocityMaxRadps: 2, effortMaxNm: 50 },
    elbow: { trackingMaxRad: 0.1 },
  },
  thermal: { maxC: 85, tripC: 95, clearC: 70 },
  thermalStreams: ['/motors'],
  standstillRadps: 0.02,
  trackingMaxRad: 0.5,
  history: { jumpRadpsMax: 50, jumpMarginRad: 0.2, frozenMs: 1000, motorRiseMaxCps: 5, riseWindowMs: 5000 },
  body: {
    imuStreams: ['mcu/imu'],
    rollMaxRad: 0.8,
    pitchMaxRad: 0.6,
    uprightMaxRad: 0.5,
    freeFallMps2: 3,
    freeFallMs: 100,
    freeFallMsMax: 300,
    impactMps2: 30,
  },
  power: {
    batteryStreams: ['mcu/power'],
    criticalSoc: 0.05,
    clearSoc: 0.15,
    lowSoc: 0.2,
    voltageMinV: 40,
    sagRatio: 0.15,
    maxC: 55,
    tripC: 65,
    clearC: 45,
  },
  host: { diskMinBytes: 256e6, slowFactor: 0.5 },
  geofence: {
    frame: 'map',
    corners: [
      [0, 0],
      [10, 0],
      [10, 10],
      [0, 10],
    ],
    marginM: 0.2,
  },
  inwardSpeedMaxMps: 0.1,
};
export const OPEN = { isOpen: true, isReturning: false };
export const CLOSED = { isOpen: false, isReturning: false };
export const RETURNING = { isOpen: true, isReturning: true };

export const joints = (change: Partial<Signals> = {}): Signals => ({
  stream: 'mcu/joint_state',
  kind: 'joint_state',
  names: ['knee', 'elbow'],
  positionRad: [0, 0],
  velocityRadps: [0, 0],
  effortNm: [0, 0],
  temperatureC: [],
  isOwn: true,
  isMalformed: false,
  ...change,
});
export const other = (stream: string, kind: string, change: Partial<Signals>): Signals => ({
  ...joints({ stream, kind, names: [], positionRad: [], velocityRadps: [], effortNm: [] }),
  ...change,
});

/** A judge that remembers, and what it says of one channel now. */
export function judgeOf(limits: JudgeLimits = LIMITS) {
  const judge = new SignalJudge(limits);
  return (
    signals: Signals,
    atMs: number,
    cause: CauseId,
    channel = signals.stream,
    gate = OPEN,
    rateHz = 50,
  ): string => {
    const found = judge.judge(signals, atMs, rateHz, gate).filter((r) => r.cause === cause && r.channel === channel);
    return found.map((reading) => reading.verdict).join() || 'none';
  };
}
