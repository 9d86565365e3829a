import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { fieldRange, type Sample } from '@outrider/shared/telemetry';
import t from 'tap';
import { exportSamples } from '../src/export/export.ts';
import { openPlayback } from '../src/sources/playback.ts';
import { loadColumns, loadPolicy, runWhatIf } from '../src/whatif/run.ts';
import { jointLayout, sampleOf, seeded } from './outbox-rig.ts';

const DATA = resolve(import.meta.dirname, '../../../../shared/data/px4_failsafe');
const PX4_POLICY = resolve(import.meta.dirname, '../../config/policies/px4-multicopter.yaml');
const SKIP = existsSync(DATA) ? false : 'the PX4 logs of ../shared/data are not here';
const PERIOD_NS = 20_000_000n;
const START_NS = 1_790_000_000_000_000_000n;

/** Ten seconds of three joints at 50 Hz; `change` makes the fault. */
function drive(change: (values: Float64Array, atS: number) => void): Sample[] {
  const layout = { ...jointLayout('/joint_states'), declaredRateHz: 0 };
  return Array.from({ length: 500 }, (_, i) => {
    const values = new Float64Array(9);
    change(values, i / 50);
    const at = START_NS + BigInt(i) * PERIOD_NS;
    return { ...sampleOf(layout, i), stampNs: at, receivedNs: at, values };
  });
}

const toMcap = async (out: string, samples: readonly Sample[]): Promise<string> => {
  await exportSamples(samples, { format: 'mcap', out, streams: [], fromNs: undefined, toNs: undefined, facts: {} });
  return out;
};

function fileOf(path: string, text: string): string {
  writeFileSync(path, text);
  return path;
}

t.test(
  'a joint beyond its limit is found in an MCAP and in a CSV, at the recorded time, with the reason',
  async (t) => {
    const folder = t.testdir();
    const policy = loadPolicy(
      fileOf(
        join(folder, 'policy.yaml'),
        'joints: { q1: { position_max_rad: 1.2 } }\nrequired_streams: [/joint_states]\n',
      ),
    );
    const samples = drive((values, atS) => {
      values[1] = atS >= 4 ? 1.2 + (atS - 4) / 10 : 0;
    });
    const mcap = await runWhatIf(policy, { file: await toMcap(join(folder, 'drive.mcap'), samples) });
    const rows = samples.map(({ values }, i) => `${(i / 50).toFixed(2)},${values[0]},${values[1]},${values[2]}`);
    const columns = loadColumns(
      fileOf(
        join(folder, 'columns.yaml'),
        `time: { column: t, unit: s }
streams: [ { stream: /joint_states, kind: joint_state, names: [q0, q1, q2], fields: { position: [a, b, c] } } ]
`,
      ),
    );
    const file = fileOf(join(folder, 'drive.csv'), `t,a,b,c\n${rows.join('\n')}\n`);
    const csv = await runWhatIf(policy, { file, columns });
    for (const result of [mcap, csv]) {
      t.equal(result.samples, 500);
      t.equal(result.ratesHz['/joint_states'], 50);
      const stop = result.timeline.find(({ isStop }) => isStop);
      t.match(stop, {
        cause: 'mechanical_lock',
        action: 'STOP0',
        kind: 'latched',
        why: /^q1 position 1\.20.* rad, at most 1\.2/,
      });
      t.ok(Math.abs((stop?.atS ?? 0) - 4.04) < 0.021, `two bad readings after 4.0 s: ${stop?.atS}`);
      t.equal(result.stoppedAtS, stop?.atS);
      t.equal(result.timeline.filter(({ isStop }) => isStop).length, 1, 'only one cause is what stopped it');
    }
    const calm = await runWhatIf(policy, {
      file: await toMcap(
        join(folder, 'calm.mcap'),
        drive(() => {}),
      ),
    });
    t.strictSame([calm.timeline, calm.stoppedAtS], [[], undefined], 'a calm run trips nothing');
  },
);

t.test('motor temperatures of our own recordings are judged as motors; a stream that stops is found too', async (t) => {
  const folder = t.testdir();
  const policy = loadPolicy(fileOf(join(folder, 'edge.yaml'), 'robot: { id: x }\nfailsafe: { motor_max_c: 80 }\n'));
  const hot = drive((values, atS) => {
    values[8] = atS < 3 ? 40 : 81;
  }).map((sample) => {
    const fields = [
      { name: 'position', width: 3 },
      { name: 'velocity', width: 3 },
      { name: 'temperature', width: 3 },
    ];
    return { ...sample, layout: { ...sample.layout, fields } };
  });
  const heated = await runWhatIf(policy, { file: await toMcap(join(folder, 'hot.mcap'), hot) });
  const causes = heated.timeline.map(({ cause }) => cause);
  t.ok(causes.includes('thermal_shutdown'), causes.join());
  t.ok((heated.stoppedAtS ?? 0) >= 3 && (heated.stoppedAtS ?? 0) < 3.1, `${heated.stoppedAtS} s`);

  const silent = loadPolicy(fileOf(join(folder, 'silent.yaml'), 'required_streams: [/joint_states]\n'));
  const other = { ...jointLayout('/other'), declaredRateHz: 0 };
  const torn = drive(() => {}).map((sample, i) => (i >= 250 ? { ...sample, layout: other } : sample));
  const stale = await runWhatIf(silent, { file: await toMcap(join(folder, 'torn.mcap'), torn) });
  t.match(stale.timeline, [{ cause: 'source_stale', why: /^\/joint_states silent for/ }]);
  t.ok((stale.stoppedAtS ?? 0) > 5 && (stale.stoppedAtS ?? 0) < 5.3, '200 ms and two looks after its last sample');
});

t.test('a wrong policy or mapping names the option', async (t) => {
  const folder = t.testdir();
  const wrong = fileOf(join(folder, 'a.yaml'), 'motor_max_c: hot\n');
  t.throws(() => loadPolicy(wrong), { code: 'invalid', problems: [{ field: 'motor_max_c' }] });
  const unknown = fileOf(join(folder, 'b.yaml'), 'robot: { id: x }\nfailsafe: { tilt: 4 }\n');
  t.throws(() => loadPolicy(unknown), { code: 'invalid', problems: [{ field: /^failsafe/ }] });
  t.throws(() => loadPolicy(join(folder, 'none.yaml')), { code: 'invalid', message: /none\.yaml/ });
  t.throws(() => loadColumns(wrong), { code: 'invalid', problems: [{ field: 'streams' }, {}] });
});

t.test('a policy for the vehicle trips nothing on the normal PX4 flights', { skip: SKIP }, async (t) => {
  const policy = loadPolicy(PX4_POLICY);
  for (const name of readdirSync(DATA).filter((file) => file.endsWith('.ulg'))) {
    const result = await runWhatIf(policy, { file: join(DATA, name) });
    t.strictSame(result.timeline, [], name);
    t.ok(result.samples > 1000 && result.durationS > 5, `${result.samples} samples in ${result.durationS} s`);
  }
});

t.test('a PX4 log that is cut off or has flipped bits is read or refused, never worse', { skip: SKIP }, async (t) => {
  const whole = readFileSync(join(DATA, 'pyulog_sample_log_small.ulg'));
  const file = join(t.testdir(), 'broken.ulg');
  const random = seeded(11);
  const outcomes = new Set<string>();
  for (let n = 0; n < 9; n += 1) {
    const bytes = n % 3 === 0 ? whole.subarray(0, Math.floor(random() * whole.length)) : Buffer.from(whole);
    if (n % 3 !== 0)
      for (let flips = n % 3 === 1 ? 3 : 200; flips > 0; flips -= 1) {
        const at = Math.floor(random() * (n % 2 === 0 ? whole.length : 20_000));
        bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(random() * 8));
      }
    writeFileSync(file, bytes);
    try {
      const playback = await openPlayback({ file });
      try {
        for await (const { values } of playback.samples()) if (values.length === 0) t.fail('a sample without values');
        outcomes.add('read');
      } finally {
        await playback.close();
      }
    } catch (error) {
      outcomes.add(error instanceof DomainError ? error.code : String(error));
    }
  }
  t.strictSame([...outcomes].sort(), ['invalid', 'read']);
});

/** Faults that begin at a time and the cause that each must be found as. */
const FAULTS: Readonly<
  Record<string, { readonly cause: string; readonly make: (sample: Sample, atS: number) => Sample | undefined }>
> = {
  'roll of 60 degrees': {
    cause: 'tilt',
    make: (sample) =>
      changed(sample, 'px4/vehicle_attitude', 'orientation', [Math.sin(Math.PI / 6), 0, 0, Math.cos(Math.PI / 6)]),
  },
  'roll that grows by 120 degrees a second': {
    cause: 'tilt',
    make: (sample, atS) => {
      const half = Math.min(Math.PI / 2, ((45 + 120 * atS) * Math.PI) / 360);
      return changed(sample, 'px4/vehicle_attitude', 'orientation', [Math.sin(half), 0, 0, Math.cos(half)]);
    },
  },
  'battery that is empty': {
    cause: 'battery_critical',
    make: (sample) => changed(sample, 'px4/battery_status', 'state_of_charge', [0.03]),
  },
  'battery whose voltage breaks down': {
    cause: 'battery_critical',
    make: (sample) => {
      const volts = sample.values[fieldRange(sample.layout, 'voltage')?.start ?? 0] ?? 0;
      return changed(sample, 'px4/battery_status', 'voltage', [Math.fround(volts / 2)]);
    },
  },
  'link to the flight controller that is cut': {
    cause: 'source_stale',
    make: (sample) => (sample.layout.stream === 'px4/vehicle_attitude' ? undefined : sample),
  },
};

function changed(sample: Sample, stream: string, field: string, values: readonly number[]): Sample {
  const range = fieldRange(sample.layout, field);
  if (sample.layout.stream !== stream || !range) return sample;
  const copy = Float64Array.from(sample.values);
  copy.set(values, range.start);
  return { ...sample, values: copy };
}

t.test('cut-outs with roll, battery and link faults trip within 500 ms of the sample', { skip: SKIP }, async (t) => {
  const policy = loadPolicy(PX4_POLICY);
  const folder = t.testdir();
  for (const name of ['ats_20250612_manual1.ulg', 'pyulog_sample_px4_events.ulg']) {
    const playback = await openPlayback({ file: join(DATA, name) });
    const flight: Sample[] = [];
    for await (const sample of playback.samples()) flight.push(sample);
    await playback.close();
    const firstNs = flight[0]?.receivedNs ?? 0n;
    const secondsIn = (sample: Sample): number => Number(sample.receivedNs - firstNs) / 1e9;
    for (const [i, [fault, { cause, make }]] of Object.entries(FAULTS).entries()) {
      const beginS = i % 2 === 0 ? 8.31 : 15.07;
      const cutout = flight.filter((sample) => secondsIn(sample) >= beginS - 2 && secondsIn(sample) <= beginS + 2);
      const startS = secondsIn(cutout[0] as Sample);
      let firstS: number | undefined;
      const faulty = cutout.flatMap((sample) => {
        const atS = secondsIn(sample) - beginS;
        const made = atS < 0 ? sample : make(sample, atS);
        if (made !== sample) firstS ??= secondsIn(sample) - startS;
        return made ? [made] : [];
      });
      const file = await toMcap(join(folder, 'cutout.mcap'), faulty);
      const { stoppedAtS, timeline } = await runWhatIf(policy, { file });
      const lateMs = ((stoppedAtS ?? Number.POSITIVE_INFINITY) - (firstS ?? 0)) * 1000;
      t.ok(lateMs >= 0 && lateMs <= 500, `${name}, ${fault} at ${beginS} s: ${lateMs.toFixed(0)} ms`);
      t.equal(timeline.find(({ isStop }) => isStop)?.cause, cause);
    }
  }
});
