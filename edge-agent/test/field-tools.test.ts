import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { systemClock } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import { SampleTap } from '../src/agent/sample-tap.ts';
import { SourceBoard } from '../src/agent/source-board.ts';
import { formatLine } from '../src/cli/tail.ts';
import { formatFindings, ok, runChecks, warn } from '../src/doctor/finding.ts';
import { sampleJson } from '../src/export/sample-json.ts';
import { commissionLatchStore } from '../src/guard/latch-store.ts';
import { createLocalApp } from '../src/local-api/app.ts';
import { LocalServer } from '../src/local-api/server.ts';
import { REDACTED, Redactor } from '../src/support/redact.ts';
import { jointLayout, openOutbox, sampleOf, silentLog } from './outbox-rig.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/outrider-edge.js');
const CANARIES = {
  apiKey: 'ork_CANARY7f3a9c2b51d84e60',
  privateKey:
    '-----BEGIN PRIVATE KEY-----\nMIICANARYprivateKEYmaterial0123456789\nabcdefCANARY\n-----END PRIVATE KEY-----\n',
  token: 'eyJhbGciOiJub25l.eyJzdWIiOiJDQU5BUlki.CANARYsignature',
} as const;

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  return new Promise((done) => {
    execFile(
      process.execPath,
      [PROGRAM, ...args],
      { env: { ...process.env, ...env }, timeout: 60_000 },
      (error, out, err) => done({ code: error === null ? 0 : Number(error.code ?? 1), out, err }),
    );
  });
}

/** A robot's files without an agent. `extra` is more of edge.yaml. */
function robot(t: Test, extra = ''): { readonly config: string; readonly stateDir: string } {
  // Short, because a Unix socket's path has at most 107 bytes.
  const folder = mkdtempSync(join(tmpdir(), 'outrider-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const stateDir = join(folder, 'state');
  mkdirSync(stateDir, { mode: 0o700 });
  const config = join(folder, 'edge.yaml');
  writeFileSync(config, `robot: { id: RB-7 }\nstate_dir: state\ncloud: { http_url: "https://127.0.0.1:9" }\n${extra}`);
  return { config, stateDir };
}

t.test(
  'the doctor works without agent, cloud or enrolment, says how to mend each thing, and exits with 1',
  async (t) => {
    const { config } = robot(t, 'sources: [{ type: serial, path: /dev/nothing-here }]\n');
    const { code, out } = await run(['doctor', '--json', '--config', config]);
    t.equal(code, 1);
    const { well, findings } = JSON.parse(out) as { well: boolean; findings: Record<string, string>[] };
    t.equal(well, false);
    const of = (area: string) => findings.find((finding) => finding['area'] === area);
    t.match(of('config'), { state: 'ok', what: /default\.RB-7, sources: serial/ });
    t.match(of('serial'), { state: 'fail', what: /nothing-here does not exist/, mend: /plug/ });
    t.match(of('identity'), { state: 'fail', mend: /outrider-edge enroll/ });
    t.match(of('latches'), { state: 'fail', mend: /enroll/ });
    t.match(of('cloud https'), { state: 'warn', what: /ECONNREFUSED/ }, 'being offline is no failure');
    t.match(of('agent'), { state: 'warn', mend: /outrider-edge run/ });
    for (const area of ['clock', 'disk', 'real time', 'gpio', 'ros', 'guard', 'outbox', 'black box', 'cloud mqtt'])
      t.ok(of(area), area);
    t.ok(
      findings.every(({ state, mend }) => state === 'ok' || (mend ?? '') !== ''),
      'whatever is not well can be mended',
    );
  },
);

t.test('a wrong configuration is named by its option; a sound robot is well', async (t) => {
  const { config, stateDir } = robot(t, 'outbox: { size_max_mb: tiny }\n');
  const wrong = await run(['doctor', '--config', config]);
  t.equal(wrong.code, 1);
  t.match(wrong.out, /^fail {2}config.*outbox\.size_max_mb/m);
  t.match(wrong.out, /1 failed/);

  const server = createServer((_, response) => response.end('{}')).listen(0, '127.0.0.1');
  await new Promise((listening) => server.once('listening', listening));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  writeFileSync(
    config,
    `robot: { id: RB-7 }\nstate_dir: state\ncloud: { http_url: "http://127.0.0.1:${port}" }\nguard: { enabled: false }\n`,
  );
  const outbox = openOutbox(stateDir);
  outbox.appendSample(sampleOf(jointLayout('a'), 1));
  outbox.close();
  await commissionLatchStore(join(stateDir, 'latches'));
  const { out } = await run(['doctor', '--config', config]);
  t.match(out, /^ok {4}cloud https .*answers 200/m);
  t.match(out, /^ok {4}outbox .*1 telemetry records wait, the file is whole/m);
  t.match(out, /^ok {4}latches .*nothing is latched/m);
  t.match(out, /^fail {2}identity/m);
});

t.test('a check that throws or hangs is a finding and holds up nobody', async (t) => {
  const hang = { area: 'slow', run: () => new Promise<never>(() => {}) };
  const broken = {
    area: 'broken',
    run: () => {
      throw new Error('no such thing');
    },
  };
  const fine = { area: 'fine', run: () => [ok('well'), warn('hm', 'do this')] };
  const findings = await runChecks([hang, broken, fine], 10);
  t.match(findings, [
    { area: 'slow', state: 'warn' },
    { area: 'broken', state: 'fail', what: /no such thing/ },
    {},
    {},
  ]);
  t.match(formatFindings(findings), /1 failed, 2 to look at, 1 well/);
});

t.test('a support bundle holds what helps and none of the secrets', async (t) => {
  const { config, stateDir } = robot(t, `log: { level: info }\n# api key: ${CANARIES.apiKey}\n`);
  const identity = join(stateDir, 'identity', 'abc');
  mkdirSync(identity, { recursive: true });
  writeFileSync(join(identity, 'key.pem'), CANARIES.privateKey);
  writeFileSync(join(stateDir, 'identity', 'api-key'), `${CANARIES.apiKey}\n`);
  await commissionLatchStore(join(stateDir, 'latches'));
  const log = join(stateDir, 'edge.log');
  const secretLines = [
    `{"msg":"enrolling","apiKey":"${CANARIES.apiKey}"}`,
    `Authorization: Bearer ${CANARIES.token}`,
    CANARIES.privateKey,
    'mqtts://user:CANARYpassword@broker:8883 and https://x/?token=CANARYquery',
    '{"event":"outbox.opened"}',
  ];
  writeFileSync(log, secretLines.join('\n'));
  const out = join(stateDir, 'bundle.tar.gz');
  const environment = { OUTRIDER_API_KEY: 'CANARY-from-environment' };
  const { code, err } = await run(['support-bundle', '--config', config, '--out', out, '--log', log], environment);
  t.equal(code, 0, err);
  const tar = gunzipSync(readFileSync(out)).toString('latin1');
  t.notMatch(tar, /CANARY/, 'no canary anywhere in the archive');
  for (const name of ['versions.json', 'config.yaml', 'doctor.txt', 'latches.json', 'status.json', 'log.txt'])
    t.match(tar, `outrider-support/${name}`);
  t.match(tar, /outbox\.opened/, 'the harmless part of the log is there');
  t.match(tar, /"latchId": 0/);
  const listed = await new Promise<string>((done) => {
    execFile('tar', ['-tzf', out], (error, stdout) => done(error ? String(error) : stdout));
  });
  t.equal(listed.trim().split('\n').length, 11, 'other tars read it');
});

t.test('redaction knows secrets by name, by look and by value', async (t) => {
  const redactor = new Redactor(['s3cr3t-value']);
  t.strictSame(
    redactor.document({ api_key: 'x', nested: [{ recover_nonce: 'abc' }], ca_sha256: 'ff', note: 'is s3cr3t-value!' }),
    { api_key: REDACTED, nested: [{ recover_nonce: REDACTED }], ca_sha256: 'ff', note: `is ${REDACTED}!` },
  );
  t.equal(redactor.text('mqtts://me:pass@host'), `mqtts://${REDACTED}@host`);
  t.equal(redactor.text('joint hip_left at 1.5 rad'), 'joint hip_left at 1.5 rad');
});

t.test('live samples come over the socket as lines; a slow listener loses the oldest and is told', async (t) => {
  const { config, stateDir } = robot(t);
  const tap = new SampleTap();
  const agent = { listen: (stream: string | undefined) => tap.open(stream), blackboxes: () => [] };
  const stop = new AbortController();
  const server = new LocalServer(
    createLocalApp(agent as never, {} as never),
    { socket: join(stateDir, 'edge.sock') },
    silentLog,
  );
  const running = server.run(stop.signal);
  await server.listening();
  let index = 0;
  const timer = setInterval(() => {
    tap.add(sampleOf(jointLayout('wanted'), index));
    tap.add(sampleOf(jointLayout('other'), index));
    index += 1;
  }, 5);
  const { code, out, err } = await run(['tail', '--config', config, '--stream', 'wanted', '--count', '5', '--json']);
  clearInterval(timer);
  t.equal(code, 0, err);
  const lines = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { stream: string; values: object });
  t.equal(lines.length, 5);
  t.ok(lines.every(({ stream }) => stream === 'wanted'));
  t.strictSame(Object.keys(lines[0]?.values ?? {}), ['position', 'velocity', 'effort']);
  stop.abort();
  await running;

  const listener = tap.open(undefined);
  for (let i = 0; i < 1500; i += 1) tap.add(sampleOf(jointLayout('a'), i));
  const { samples, dropped } = (await listener?.next()) ?? { samples: [], dropped: 0 };
  t.strictSame([samples.length, dropped], [1000, 500]);
  listener?.close();
  t.strictSame((await listener?.next())?.samples, []);
  t.match(formatLine(sampleJson(sampleOf(jointLayout('a'), 1))), /^\d\d:\d\d.* a position=q0:/);
  t.match(formatLine({ dropped: 7 }), /7 samples were not shown/);
  const open = Array.from({ length: 8 }, () => tap.open(undefined));
  t.equal(tap.open(undefined), undefined, 'listeners are bounded');
  for (const one of open) one?.close();
});

t.test('what was wrong with a source is over when its state changes; its rate stays known', async (t) => {
  const outbox = openOutbox(t.testdir());
  t.teardown(() => outbox.close());
  const board = new SourceBoard(outbox, () => systemClock.monotonicMs());
  board.update({ source: 'serial', state: 'failed', code: 'guard_missing', message: 'the guard does not answer' });
  board.update({ source: 'serial', state: 'running', measuredRateHz: 50 });
  t.match(board.views(), [{ source: 'serial', state: 'running', code: null, message: null, rate_hz: 50 }]);
  board.update({ source: 'serial', state: 'stale', code: 'incompatible_qos', message: 'the publisher is best effort' });
  board.update({ source: 'serial', state: 'stale', measuredRateHz: 0 });
  t.match(board.views(), [{ state: 'stale', code: 'incompatible_qos', rate_hz: 0 }], 'within one state it stays');
});

t.test('a record of an old recording waits since it was written, not since its samples were taken', async (t) => {
  const outbox = openOutbox(t.testdir());
  t.teardown(() => outbox.close());
  const old = sampleOf(jointLayout('old'), 1);
  outbox.appendSample({ ...old, stampNs: 0n, receivedNs: 1_546_300_800_000_000_000n });
  outbox.flush();
  const { records, oldestMs } = outbox.stats().lanes.telemetry;
  t.equal(records, 1);
  t.ok(Math.abs(Date.now() - oldestMs) < 60_000, `${oldestMs}`);
});

t.test('each tool explains itself with examples', async (t) => {
  for (const verb of [['doctor'], ['export'], ['tail'], ['blackbox', 'export'], ['replay'], ['support-bundle']]) {
    const { code, out } = await run([...verb, '--help']);
    t.equal(code, 0);
    t.match(out, /Examples:\n {2}outrider-edge/, verb.join(' '));
    t.match(out, /--json/);
  }
  t.equal((await run(['export', '--out', 'x', '--from', 'yesterday'])).code, 2);
  const { config } = robot(t);
  t.equal((await run(['tail', '--config', config])).code, 69, 'no agent');
  t.match(await run(['blackbox', 'list', '--config', config]), { code: 0, out: /no black box/ });
});
