import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { decodeModel } from '@outrider/shared/health/model-codec';
import { streamOf } from '@outrider/shared/health/robot-analyser';
import t from 'tap';
import { ModelFile } from '../src/health/model-file.ts';
import { createLocalApp } from '../src/local-api/app.ts';
import { LocalServer } from '../src/local-api/server.ts';
import { silentLog } from './outbox-rig.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/outrider-edge.js');
const README = readFileSync(resolve(import.meta.dirname, '../../../README.md'), 'utf8');

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs lines of a shell in a folder, with the program of this build under its name. */
function shell(cwd: string, lines: string): Promise<Ended> {
  const script = `outrider-edge() { '${process.execPath}' '${PROGRAM}' "$@"; }\n${lines}`;
  return new Promise((done) => {
    execFile('bash', ['-ec', script], { cwd, timeout: 120_000 }, (error, out, err) =>
      done({ code: error === null ? 0 : Number(error.code ?? 1), out, err }),
    );
  });
}

/** A run of two joints, a reading a second. The fault: they hold still under load, each of which is normal. */
function writeRun(folder: string, seconds = 1500): { from: number; to: number }[] {
  let state = 5;
  const noise = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  const rows = ['t,hip_speed,knee_speed,hip_torque,knee_torque,fault'];
  const faults: { from: number; to: number }[] = [];
  for (let s = 0; s < seconds; s += 1) {
    const isFault = s % 150 >= 130;
    if (s % 150 === 130) faults.push({ from: s, to: s + 19 });
    const moves = !isFault && Math.floor(s / 20) % 2 === 0;
    const loaded = isFault || (moves && Math.floor(s / 10) % 2 === 0);
    const speed = moves ? Math.sin(s * 0.7) : 0;
    const values = [speed, 0.5 * speed, loaded ? 2 : 0, loaded ? 1 : 0].map((value) => value + 0.05 * noise());
    rows.push([s, ...values.map((value) => value.toFixed(4)), isFault ? 'yes' : ''].join());
  }
  writeFileSync(join(folder, 'run.csv'), `${rows.join('\n')}\n`);
  return faults;
}

t.test('the example of the README teaches a robot its labelled faults', async (t) => {
  // Short, because a Unix socket's path has at most 107 bytes.
  const folder = mkdtempSync(join(tmpdir(), 'outrider-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  writeRun(folder);
  const example =
    README.split('```sh\n')
      .find((block) => block.includes('health train'))
      ?.split('```')[0] ?? '';
  t.ok(example, 'the README has an example');
  const { code, out, err } = await shell(folder, example);
  t.equal(code, 0, err);
  t.match(out, /1500 samples, 200 of them labelled as faults/);
  t.match(out, /mcu\/joint_state: 4 signals/);
  t.match(out, /judged by what the rest taught: \d+ of [34] faults found/);
  const model = decodeModel(readFileSync(join(folder, 'RB-1022.model')));
  t.same([...model.keys()].map(streamOf), ['mcu/joint_state']);
  t.ok([...model.values()][0]?.classifier);

  // The same labels as times, into the robot's own folder.
  const columns = readFileSync(join(folder, 'columns.yaml'), 'utf8');
  t.ok(columns.includes('mcu/joint_state'));
  const faults = writeRun(folder);
  const lines = faults.map(({ from, to }) => `${from},${to}`);
  writeFileSync(join(folder, 'faults.csv'), `from,to\n${lines.join('\n')}\n`);
  writeFileSync(
    join(folder, 'edge.yaml'),
    'robot: { id: RB-7 }\nstate_dir: .\ncloud: { http_url: "https://127.0.0.1:9" }\nhealth: { false_alarms_per_hour: 60 }\n',
  );
  const json = await shell(
    folder,
    'outrider-edge health train run.csv --columns columns.yaml --labels faults.csv --config edge.yaml --json',
  );
  t.equal(json.code, 0, json.err);
  t.match(JSON.parse(json.out), {
    samples: 1500,
    labelled_samples: 200,
    false_alarms_per_hour: 60,
    streams: [
      { stream: 'mcu/joint_state', signals: 4, held_out: { auroc: Number, found: Number, false_alarms: Number } },
    ],
    skipped: [],
  });
  t.ok(JSON.parse(json.out).streams[0].held_out.auroc > 0.95, json.out);

  const known = await new ModelFile(folder, silentLog).load();
  t.ok([...known.values()][0]?.classifier, 'the agent takes it at its next start');
  t.notOk(readdirSync(folder).includes('health.trained'));
  t.equal((await new ModelFile(folder, silentLog).load()).size, 1, 'and keeps it');

  const health = {
    state: 'watching',
    progress: 1,
    health_score: 0.9,
    anomaly_score: 0.2,
    risk_level: 'low',
    alarm_since: null,
    normal_h: 0.25,
    needed_h: 30,
    signals: [],
  };
  const stop = new AbortController();
  const app = createLocalApp({ status: () => ({ health }) } as never, {} as never);
  const server = new LocalServer(app, { socket: join(folder, 'edge.sock') }, silentLog);
  const running = server.run(stop.signal);
  await server.listening();
  const words = await shell(folder, 'outrider-edge health status --config edge.yaml');
  const facts = await shell(folder, 'outrider-edge health status --config edge.yaml --json');
  stop.abort();
  await running;
  t.equal(words.code, 0, words.err);
  t.match(words.out, /0\.90, anomaly 0\.20, risk low/);
  t.match(words.out, /0\.3 h of normal work, 30 h show the false-alarm rate: until then it is an extrapolation/);
  t.match(words.out, /learnt {7}mcu\/joint_state: 4 signals, level from 0\.1 h, knows labelled faults/);
  t.match(JSON.parse(facts.out), { health, streams: [{ stream: 'mcu/joint_state', knows_faults: true }] });
  const gone = await shell(folder, 'outrider-edge health status --config edge.yaml');
  t.equal(gone.code, 69, 'no agent answers');
});

t.test('what cannot be learnt from is refused with a reason', async (t) => {
  const folder = t.testdir();
  writeRun(folder, 60);
  writeFileSync(
    join(folder, 'columns.yaml'),
    'time: { column: t, unit: s }\nstreams: [ { stream: s, kind: joint_state, names: [hip], fields: { velocity: [hip_speed] } } ]\n',
  );
  writeFileSync(
    join(folder, 'comma.yaml'),
    "decimal: ','\nstreams: [ { stream: s, kind: joint_state, names: [hip], fields: { velocity: [fault] } } ]\n",
  );
  writeFileSync(join(folder, 'words.csv'), `fault\n${'yes\n'.repeat(30)}`);
  writeFileSync(join(folder, 'wrong.csv'), 'from,to\n20,10\n');
  const train = (more: string): Promise<Ended> =>
    shell(folder, `outrider-edge health train run.csv --columns columns.yaml --out m ${more}`);
  for (const [more, code, says] of [
    ['--labels nonsense', 1, /nonsense: is neither a file nor a column of .*run.csv/],
    ['--labels wrong.csv', 1, /line 2: from is after to/],
    ['--labels fault', 1, /marks none of the 60 samples/],
    ['', 1, /s: left out: 5\d normal windows of 1 s; 120 are needed/],
    ['--false-alarms-per-hour 0', 2, /must be a number above 0/],
  ] as const) {
    const ended = await train(more);
    t.equal(ended.code, code, `${more}: ${ended.err}`);
    t.match(ended.out + ended.err, says);
  }
  const words = await shell(folder, 'outrider-edge health train words.csv --columns comma.yaml --out m');
  t.equal(words.code, 1);
  t.match(words.out, /30 could not be read: .*"yes" is not a number/);
  t.notOk(readdirSync(folder).includes('m'));
});
