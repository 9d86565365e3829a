import { type PowerSignals, Worst } from './classify-signals.ts';
import type { Reading } from './state.ts';

/** What a battery must have left. */
export interface PowerLimits {
  /** Streams of the batteries that the robot runs on. */
  readonly batteryStreams: readonly string[];
  /** Below: critical. Above `clearSoc` or while charging: clear. [0–1] */
  readonly criticalSoc: number;
  readonly clearSoc: number;
  /** Below: low. Let go a tenth above. [0–1] */
  readonly lowSoc: number;
  /** Below: critical; `undefined`: not judged. [V] */
  readonly voltageMinV?: number | undefined;
  /** A drop by this part of the recent voltage is a sag. [0–1] */
  readonly sagRatio: number;
  /** Battery and cell temperature: bad above `maxC`, severe above `tripC`, clear below `clearC`. [C] */
  readonly maxC: number;
  readonly tripC: number;
  readonly clearC: number;
}

/** Time constant of the voltage that a sag is measured against. [ms] */
const SAG_MEMORY_MS = 30_000;
/** A battery that is charged by more than this charges. [A] */
const CHARGING_A = -0.05;
const TEMPERATURE_MIN_C = -60;
const TEMPERATURE_MAX_C = 250;
/** More than that is no voltage of a robot. [V] */
const VOLTAGE_MAX_V = 2000;

/** What one battery has shown so far. */
export class PowerHistory {
  #usualV: number | undefined;
  #atMs = 0;
  #hadSoc = false;
  #hadVoltage = false;

  readings(stream: string, power: PowerSignals, atMs: number, limits: PowerLimits): Reading[] {
    const critical = new Worst();
    const low = new Worst();
    const { stateOfCharge, voltageV } = power;
    // Batteries that never measured a quantity say NaN for it; one that did and stops is broken.
    this.#hadSoc ||= !Number.isNaN(stateOfCharge);
    this.#hadVoltage ||= !Number.isNaN(voltageV);
    if (this.#hadSoc) addCharge(critical, low, power, limits);
    if (this.#hadVoltage || limits.voltageMinV !== undefined) this.#addVoltage(critical, low, voltageV, atMs, limits);
    const readings: Reading[] = [];
    if (this.#hadSoc || limits.voltageMinV !== undefined)
      readings.push({ cause: 'battery_critical', channel: stream, verdict: critical.verdict, detail: critical.detail });
    if (this.#hadSoc || this.#hadVoltage)
      readings.push({ cause: 'battery_low', channel: stream, verdict: low.verdict, detail: low.detail });
    if (power.temperatureC.length > 0) readings.push(heat(`${stream} battery`, power.temperatureC, limits));
    return readings;
  }

  #addVoltage(critical: Worst, low: Worst, voltageV: number, atMs: number, limits: PowerLimits): void {
    if (!(voltageV >= 0 && voltageV <= VOLTAGE_MAX_V)) {
      critical.add('unknown', `voltage ${voltageV} V`);
      low.add('unknown', `voltage ${voltageV} V`);
      return;
    }
    if (limits.voltageMinV !== undefined && voltageV < limits.voltageMinV)
      critical.add('bad', `voltage ${voltageV.toFixed(2)} V, at least ${limits.voltageMinV}`);
    const usualV = this.#usualV ?? voltageV;
    if (voltageV < usualV * (1 - limits.sagRatio))
      low.add('bad', `voltage sags from ${usualV.toFixed(2)} to ${voltageV.toFixed(2)} V`);
    const share = 1 - Math.exp(-(atMs - this.#atMs) / SAG_MEMORY_MS);
    this.#usualV = usualV + (voltageV - usualV) * Math.max(0, share);
    this.#atMs = atMs;
  }
}

function addCharge(critical: Worst, low: Worst, power: PowerSignals, limits: PowerLimits): void {
  const { stateOfCharge, currentA } = power;
  const words = `state of charge ${(stateOfCharge * 100).toFixed(1)} %`;
  if (!(stateOfCharge >= 0 && stateOfCharge <= 1)) {
    critical.add('unknown', words);
    low.add('unknown', words);
    return;
  }
  // On the charger it can only get better; nothing must keep it from getting there.
  const isCharging = currentA < CHARGING_A;
  if (stateOfCharge < limits.criticalSoc && !isCharging) critical.add('bad', words);
  else if (stateOfCharge <= limits.clearSoc && !isCharging) critical.add('fair', words);
  if (stateOfCharge < limits.lowSoc && !isCharging) low.add('bad', words);
  else if (stateOfCharge < limits.lowSoc * 1.1 && !isCharging) low.add('fair', words);
}

function heat(channel: string, temperatureC: ArrayLike<number>, limits: PowerLimits): Reading {
  const worst = new Worst();
  for (const celsius of Array.from(temperatureC)) {
    const words = `battery ${celsius.toFixed(1)} C`;
    if (!(celsius >= TEMPERATURE_MIN_C && celsius <= TEMPERATURE_MAX_C)) worst.add('unknown', words);
    else if (celsius > limits.tripC) worst.add('severe', words);
    else if (celsius > limits.maxC) worst.add('bad', words);
    else if (!(celsius < limits.clearC)) worst.add('fair', words);
  }
  return { cause: 'thermal_shutdown', channel, verdict: worst.verdict, detail: worst.detail };
}
