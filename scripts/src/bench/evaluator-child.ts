/**
 * A thousand times a second: wakes at the time, judges a joint state and lets the failsafe decide, as the guard does
 * with each sample. A futex wakes it, because Node's own timers know only whole milliseconds. Prints how late each
 * decision was there, as JSON. [µs]
 */
import { loadGuardConfig } from '@outrider/edge-agent/guard/guard-config';
import { signalsOf } from '@outrider/shared/failsafe/classify-signals';
import { evaluate } from '@outrider/shared/failsafe/evaluate';
import { gateOf, SignalJudge } from '@outrider/shared/failsafe/judge';
import { bootState } from '@outrider/shared/failsafe/state';
import { systemClock } from '@outrider/shared/time';
import { jointSamples } from './samples.ts';

const PERIOD_MS = 1;
const WARM_UP_LOOPS = 2000;
const [, , config = '', loops = '0'] = process.argv;
const { policy, signals } = await loadGuardConfig(config);
const judge = new SignalJudge(signals);
const samples = jointSamples(1000);
const stored = { latchId: 0, motionEpoch: 0, latched: [] };
let state = bootState(policy, stored, undefined, systemClock.monotonicMs(), 'bench');
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const lateUs = new Float64Array(Number(loops));
let dueMs = systemClock.monotonicMs() + PERIOD_MS;
for (let loop = -WARM_UP_LOOPS; loop < lateUs.length; loop += 1) {
  const waitMs = dueMs - systemClock.monotonicMs();
  if (waitMs > 0) Atomics.wait(sleeper, 0, 0, waitMs);
  const sample = samples[Math.abs(loop) % samples.length];
  if (!sample) break;
  const atMs = systemClock.monotonicMs();
  const readings = judge.judge(signalsOf(sample, true), atMs, 1000, gateOf(state));
  state = evaluate(state, { kind: 'readings', atMs, readings }, policy).state;
  state = evaluate(state, { kind: 'tick', atMs }, policy).state;
  if (loop >= 0) lateUs[loop] = 1000 * (systemClock.monotonicMs() - dueMs);
  dueMs += PERIOD_MS;
  // What is late by whole periods is not made up for, as cyclictest does it.
  while (dueMs < systemClock.monotonicMs()) dueMs += PERIOD_MS;
}
process.stdout.write(JSON.stringify([...lateUs]));
