import t from 'tap';
import type { Sample, StreamLayout } from '../telemetry.ts';
import { calibrate } from './calibrate.ts';
import { decodeModel, encodeModel } from './model-codec.ts';
import { type AnalyserSettings, DEFAULT_ANALYSER, RobotAnalyser, type RobotModel } from './robot-analyser.ts';
import { finish, fitShape } from './stream-model.ts';
import { StreamScorer } from './stream-scorer.ts';
import { trainClassifier } from './supervised.ts';
import { decodeVerdict, encodeVerdict } from './verdict.ts';
import { SignalWindows } from './windows.ts';

const JOINTS = ['base', 'shoulder', 'elbow', 'wrist'];
/** Of the joints, not in step with each other or with the windows. [rad/s] */
const PACES = [0.71, 1.63, 2.23, 2.87];
const RATE_HZ = 10;
const START_MS = Date.UTC(2026, 0, 11);
const SETTINGS: AnalyserSettings = {
  ...DEFAULT_ANALYSER,
  windows: { hopMs: 1000, hops: 5 },
  fitWindows: 300,
  calibrateWindows: 300,
  falseAlarmsPerHour: 1,
};

/** A small repeatable random generator: normal deviates. */
function noiseOf(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

const layoutOf = (stream: string): StreamLayout => ({
  stream,
  kind: 'joint_state',
  names: JOINTS,
  fields: ['position', 'velocity', 'effort'].map((name) => ({ name, width: JOINTS.length })),
  tags: {},
  declaredRateHz: RATE_HZ,
});
const MEASURED = layoutOf('/joint_states');
const ORDERED = layoutOf('/joint_commands');

/** An arm that swings its joints, each at its own pace, with an effort that follows what it does. */
class Arm {
  readonly #noise: () => number;
  at = 0;

  constructor(seed: number) {
    this.#noise = noiseOf(seed);
  }

  /** The next reading, in the layout's order: positions, velocities, efforts. */
  next(): { measured: Float64Array; ordered: Float64Array } {
    const seconds = this.at / RATE_HZ;
    this.at += 1;
    const measured = new Float64Array(12);
    const ordered = new Float64Array(12);
    JOINTS.forEach((_, joint) => {
      const pace = PACES[joint] as number;
      const position = Math.sin(pace * seconds);
      const velocity = pace * Math.cos(pace * seconds);
      ordered[joint] = position;
      ordered[4 + joint] = velocity;
      measured[joint] = position + 0.01 * this.#noise();
      measured[4 + joint] = velocity + 0.02 * this.#noise();
      measured[8 + joint] = 2 * position + 0.8 * velocity + 0.1 * this.#noise();
      ordered[8 + joint] = Number.NaN;
    });
    return { measured, ordered };
  }
}

function sampleOf(layout: StreamLayout, values: Float64Array, tick: number): Sample {
  const ns = BigInt(START_MS) * 1_000_000n + BigInt(tick) * BigInt(1e9 / RATE_HZ);
  return { layout, stampNs: ns, receivedNs: ns, receivedMonoNs: ns, flags: 0, values };
}

type Fault = (values: Float64Array, ticksSince: number) => void;

/** Lets the arm work for a while. @returns Seconds until an alarm began, or undefined. */
function work(
  analyser: RobotAnalyser,
  arm: Arm,
  seconds: number,
  fault?: Fault,
  withOrders = false,
): number | undefined {
  let raisedAfterS: number | undefined;
  for (let i = 0; i < seconds * RATE_HZ; i += 1) {
    const { measured, ordered } = arm.next();
    fault?.(measured, i);
    if (withOrders) analyser.observe(sampleOf(ORDERED, ordered, arm.at));
    analyser.observe(sampleOf(MEASURED, measured, arm.at));
    if (analyser.takeRaised()) raisedAfterS ??= i / RATE_HZ;
  }
  return raisedAfterS;
}

let known: RobotModel | undefined;
/** What an arm without orders has learnt, learnt once. */
function learnt(): RobotModel {
  if (known) return known;
  const analyser = new RobotAnalyser(SETTINGS);
  work(analyser, new Arm(1), 640);
  known = analyser.model();
  return known;
}

t.test('learning takes normal windows only, says how far it is, and gives no score before', async (t) => {
  const analyser = new RobotAnalyser(SETTINGS);
  const arm = new Arm(1);
  analyser.mayLearn = false;
  work(analyser, arm, 60);
  t.match(analyser.verdict(), { state: 'learning', progress: 0, anomalyScore: null, riskLevel: 'unknown' });
  analyser.mayLearn = true;
  work(analyser, arm, 300);
  t.equal(Math.round(analyser.verdict().progress * 10), 5);
  t.ok(analyser.learningBytes > 0);
  work(analyser, arm, 340);
  t.match(analyser.verdict(), { state: 'watching', progress: 1, riskLevel: 'low' });
  t.equal(analyser.learningBytes, 0);
});

const FAULTS: Record<string, { fault: Fault; blames: RegExp; withinS: number }> = {
  'a position that is stuck': {
    fault: (values) => {
      values[1] = 0.3;
    },
    blames: /shoulder/,
    withinS: 30,
  },
  'a reading that is off by half its range': {
    fault: (values) => {
      values[10] = (values[10] as number) + 3;
    },
    blames: /elbow\.effort/,
    withinS: 10,
  },
  'an effort that creeps away': {
    fault: (values, ticks) => {
      values[8] = (values[8] as number) + Math.min(3, ticks * 0.002);
    },
    blames: /base\.effort/,
    withinS: 140,
  },
  'a velocity that becomes noisy': {
    fault: (values, ticks) => {
      values[7] = (values[7] as number) + (ticks % 2 === 0 ? 1.5 : -1.5);
    },
    blames: /wrist\.velocity/,
    withinS: 15,
  },
  'an effort that no longer follows the motion, within its usual range': {
    fault: (values) => {
      values[9] = -(values[9] as number);
    },
    blames: /shoulder/,
    withinS: 60,
  },
  'an arm that stands still while its efforts hold': {
    fault: (values) => {
      for (let joint = 0; joint < 4; joint += 1) {
        values[joint] = 0.2;
        values[4 + joint] = 0;
        values[8 + joint] = 0.4;
      }
    },
    blames: /calmer|velocity|effort|position/,
    withinS: 15,
  },
};

for (const [name, { fault, blames, withinS }] of Object.entries(FAULTS)) {
  t.test(`${name} raises an alarm that names it and ends with it`, async (t) => {
    const analyser = new RobotAnalyser(SETTINGS, learnt());
    const arm = new Arm(7);
    arm.at = 7000;
    const before = work(analyser, arm, 120);
    t.equal(before, undefined, `nothing before: ${JSON.stringify(analyser.verdict())}`);
    const raisedAfterS = work(analyser, arm, 150, fault);
    t.ok(raisedAfterS !== undefined && raisedAfterS <= withinS, `raised after ${raisedAfterS} s`);
    const verdict = analyser.verdict();
    t.ok(['medium', 'high'].includes(verdict.riskLevel));
    t.ok(
      verdict.signals.slice(0, 4).some(({ signal }) => blames.test(signal)),
      verdict.signals.map((s) => s.signal).join(),
    );
    const sum = verdict.signals.reduce((total, { cost }) => total + cost, 0);
    t.ok(Math.abs(sum - (1 - verdict.healthScore)) < 1e-9, 'the costs add up to what health lost');
    work(analyser, arm, 300);
    t.match(analyser.verdict(), { riskLevel: 'low', alarmSinceMs: undefined });
  });
}

t.test('orders are compared with what came of them', async (t) => {
  const analyser = new RobotAnalyser(SETTINGS);
  const arm = new Arm(1);
  work(analyser, arm, 640, undefined, true);
  // Half of the motion is lost: as calm as a slower programme, but not what was ordered.
  const lag: Fault = (values) => {
    values[0] = 0.8 * (values[0] as number);
  };
  t.ok((work(analyser, arm, 60, lag, true) ?? 99) <= 15);
  const names = analyser.verdict().signals.map(({ signal }) => signal);
  t.ok(names.includes('/joint_states less /joint_commands:base.position error'), names.join());
});

t.test('a stream that falls silent is an alarm until it comes back', async (t) => {
  const analyser = new RobotAnalyser(SETTINGS, learnt());
  const arm = new Arm(3);
  arm.at = 7000;
  work(analyser, arm, 60);
  const nowMs = START_MS + (arm.at * 1000) / RATE_HZ;
  analyser.tick(nowMs + 1000, nowMs + 1000);
  t.equal(analyser.takeRaised(), undefined, 'a second is not yet silence');
  analyser.tick(nowMs + 5000, nowMs + 5000);
  t.match(analyser.takeRaised(), { signals: [{ signal: '/joint_states:no samples' }] });
  arm.at += 50;
  // The gap itself stays in the windows for a while.
  work(analyser, arm, 30);
  analyser.tick(nowMs + 35_000, nowMs + 35_000);
  t.equal(analyser.verdict().alarmSinceMs, undefined);
});

t.test('false alarms on normal data stay at what was set', async (t) => {
  const hours = 4;
  for (const perHour of [1, 6]) {
    let alarms = 0;
    const settings = { ...SETTINGS, fitWindows: 600, calibrateWindows: 1200, falseAlarmsPerHour: perHour };
    const analyser = new RobotAnalyser(settings);
    const arm = new Arm(11);
    work(analyser, arm, 1900);
    for (let second = 0; second < hours * 3600; second += 60) if (work(analyser, arm, 60) !== undefined) alarms += 1;
    t.ok(alarms <= hours * perHour, `${alarms} in ${hours} h, set ${perHour} an hour`);
  }
});

t.test('a model comes back as it was, and a damaged one is refused', async (t) => {
  const bytes = encodeModel(learnt());
  const loaded = decodeModel(bytes);
  const [a, b] = [learnt(), loaded].map((model) => {
    const analyser = new RobotAnalyser(SETTINGS, model);
    work(analyser, new Arm(5), 60);
    return analyser.verdict().anomalyScore as number;
  });
  t.ok(Math.abs((a as number) - (b as number)) < 1e-3, `${a} ${b}`);
  for (const length of [0, 10, 40, bytes.length >> 1, bytes.length - 1])
    t.throws(() => decodeModel(bytes.subarray(0, length)), { code: 'invalid' }, `cut to ${length} bytes`);
  for (let at = 0; at < bytes.length; at += Math.ceil(bytes.length / 200)) {
    const flipped = Uint8Array.from(bytes);
    flipped[at] = (flipped[at] as number) ^ 1;
    t.throws(() => decodeModel(flipped), { code: 'invalid' });
  }
});

t.test('labels teach what nothing else sees: a fault that is calmer than normal', async (t) => {
  const noise = noiseOf(21);
  // Normal: signal 0 rests at 0 or moves, signal 1 is free. Fault: at rest with signal 1 high; each alone is normal.
  const windows = new SignalWindows(2, { hopMs: 1000, hops: 3 });
  const rows: Float64Array[] = [];
  const labels: boolean[] = [];
  for (let i = 0; i < 3000; i += 1) {
    const isFault = i % 50 >= 45;
    const moves = Math.floor(i / 10) % 2 === 0 && !isFault;
    const high = isFault || (moves && Math.floor(i / 5) % 2 === 0);
    const features = windows.push(
      i * 1000,
      [moves ? 1 + noise() : 0.01 * noise(), (high ? 2 : 0) + 0.2 * noise()],
      [0, 1],
    );
    if (!features) continue;
    rows.push(features);
    labels.push((i - 1) % 50 >= 45);
  }
  const normal = rows.filter((_, i) => !labels[i]);
  const shape = finish(fitShape(['speed', 'load'], normal.slice(0, 800), 1000));
  const classifier = trainClassifier(shape, rows.slice(0, 1500), labels.slice(0, 1500));
  const model = finish(calibrate(shape, normal.slice(1400, 2000), 60, classifier));
  const again = decodeModel(encodeModel(new Map([['s', model]]))).get('s');
  t.ok(again?.classifier);
  const scorer = new StreamScorer(model, again?.classifier);
  const seen = rows.slice(2200).map((row, i) => ({ odds: scorer.look(row).values.learnt, isFault: labels[2200 + i] }));
  const right = seen.filter(({ odds, isFault }) => odds > 0 === isFault).length;
  t.ok(right / seen.length > 0.9, `${right} of ${seen.length}`);
});

t.test('a verdict from a robot is read carefully', async (t) => {
  const analyser = new RobotAnalyser(SETTINGS, learnt());
  work(analyser, new Arm(7), 60, FAULTS['a reading that is off by half its range']?.fault);
  const verdict = analyser.verdict();
  t.match(decodeVerdict(JSON.parse(JSON.stringify(encodeVerdict(verdict)))), {
    state: 'watching',
    riskLevel: verdict.riskLevel,
    signals: verdict.signals.map(({ signal }) => ({ signal })),
  });
  const good = encodeVerdict(verdict);
  for (const wrong of [
    null,
    'x',
    {},
    { ...good, health_score: 2 },
    { ...good, risk_level: 'fine' },
    { ...good, updated_at_ms: 1e300 },
  ])
    t.equal(decodeVerdict(wrong), undefined);
  t.same(
    decodeVerdict({ ...good, signals: [{ signal: 1 }, { signal: 'a', score: 1, cost: 0, since_ms: 1e99 }, 7] })
      ?.signals,
    [],
  );
});
