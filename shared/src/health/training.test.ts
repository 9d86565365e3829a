import t from 'tap';
import type { Sample, StreamLayout } from '../telemetry.ts';
import { decodeModel, encodeModel } from './model-codec.ts';
import { DEFAULT_ANALYSER, RobotAnalyser, type RobotModel, streamOf } from './robot-analyser.ts';
import { TrainingSet, trainStream } from './training.ts';

const START_MS = Date.UTC(2026, 0, 11);
const layoutOf = (stream: string): StreamLayout => ({
  stream,
  kind: 'joint_state',
  names: ['arm', 'grip'],
  fields: [{ name: 'effort', width: 2 }],
  tags: {},
  declaredRateHz: 2,
});
const MEASURED = layoutOf('/joint_states');

/** Two readings a second. A fault: at rest while the grip holds, each of which is normal by itself. */
function readings(count: number, layout = MEASURED): { sample: Sample; isFault: boolean }[] {
  let state = 5;
  const noise = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  return Array.from({ length: count }, (_, i) => {
    const isFault = i % 200 >= 170;
    const moves = !isFault && Math.floor(i / 40) % 2 === 0;
    const holds = isFault || (moves && Math.floor(i / 20) % 2 === 0);
    const ns = BigInt(START_MS + i * 500) * 1_000_000n;
    const values = Float64Array.of(moves ? noise() : 0.01 * noise(), (holds ? 2 : 0) + 0.2 * noise());
    return { sample: { layout, stampNs: ns, receivedNs: ns, receivedMonoNs: ns, flags: 0, values }, isFault };
  });
}

const SETTINGS = { ...DEFAULT_ANALYSER, windows: { hopMs: 1000, hops: 3 }, falseAlarmsPerHour: 60 };

t.test('labels of a recording become a model that the analyser loads and that finds the fault', async (t) => {
  const set = new TrainingSet(SETTINGS);
  for (const { sample, isFault } of readings(4000)) set.add(sample, isFault);
  const [[key, stream] = ['', undefined]] = set.streams;
  if (!stream) throw new Error('no stream');
  t.equal(streamOf(key), '/joint_states');
  const marked = stream.windows.filter(({ isFault }) => isFault).length / stream.windows.length;
  t.ok(Math.abs(marked - 0.15) < 0.02, `${marked} of the windows are labelled`);
  const { model, heldOut, faultWindows } = trainStream(stream);
  t.ok(faultWindows > 200);
  t.ok((heldOut?.auroc ?? 0) > 0.95, JSON.stringify(heldOut));
  t.ok((heldOut?.detected ?? 0) >= 0.9 * (heldOut?.episodes ?? 99), JSON.stringify(heldOut));

  const bytes = encodeModel(new Map([[key, model]]));
  // Whoever loads it may use other windows for what it learns itself: this model brings its own.
  for (const windows of [SETTINGS.windows, { hopMs: 10_000, hops: 6 }]) {
    const known: RobotModel = decodeModel(bytes);
    const analyser = new RobotAnalyser({ ...SETTINGS, windows }, known);
    let hits = 0;
    let faults = 0;
    for (const { sample, isFault } of readings(5000).slice(4000)) {
      analyser.observe(sample);
      if (isFault) faults += 1;
      if (isFault && analyser.verdict().alarmSinceMs !== undefined) hits += 1;
    }
    t.equal(analyser.verdict().state, 'watching');
    t.ok(hits > 0.5 * faults, `${hits} of ${faults}`);
  }
});

t.test('orders are compared in training as they are in operation', async (t) => {
  const set = new TrainingSet(SETTINGS);
  const orders = readings(400, layoutOf('/joint_commands'));
  readings(400).forEach(({ sample }, i) => {
    set.add(orders[i]?.sample as Sample, false);
    set.add(sample, false);
  });
  const streams = [...set.streams.keys()].map(streamOf);
  t.ok(streams.includes('/joint_states less /joint_commands'), streams.join());
});

t.test('without labels it learns what is normal; with too little it says so', async (t) => {
  const set = new TrainingSet(SETTINGS);
  for (const { sample } of readings(1000)) set.add(sample, false);
  const [stream] = set.streams.values();
  if (!stream) throw new Error('no stream');
  const { model, heldOut } = trainStream(stream);
  t.same([model.classifier, heldOut], [undefined, undefined]);
  t.throws(() => trainStream({ ...stream, windows: stream.windows.slice(0, 50) }), {
    code: 'invalid',
    message: /50 normal windows of 1 s; 120 are needed/,
  });
});
