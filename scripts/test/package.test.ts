import { type ChildProcess, execFile } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { type Cloud, repositoryRoot, type Stack } from '../src/stack.ts';
import { CleanRoot, cleanRootSkip, end, isThere } from './package-root.ts';
import { exportStream, fingerprints, openStack } from './rig.ts';
import type { ExpectedSample } from './second-reader.ts';

const run = promisify(execFile);
const PACKAGE = join(repositoryRoot, 'scripts/dist/src/package-deb.js');
const MCU = join(repositoryRoot, 'firmware-bridge/firmware/build/outrider-mcu');
const OLD = '0.1.0~test1';
const NEW = '0.1.0~test2';
const ROBOT = 'packaged-1';
const STREAM = 'arm/joint_state';
const CONFIG = '/etc/outrider/edge.yaml';
/** In the root, as in every Debian. */
const DIALOUT = 20;
const JOINTS = ['hip', 'knee', 'ankle'];
/** TimeoutStopSec of the agent's unit. */
const STOP_PATIENCE_MS = 10_000;
const ROW_MS = 20;
/** Four minutes: longer than the agent runs before the last installation, which is sent the rest at once. */
const ROWS = 12_000;
const mustRun = process.env['OUTRIDER_REQUIRE_ALL'] === '1';
const skip = cleanRootSkip();

t.setTimeout(600_000);
const debs = t.testdir();
const oldPackage = build(debs, OLD);

t.test('the package holds what runs and nothing else, and is the same twice', async (t) => {
  const deb = await oldPackage;
  const again = await build(t.testdir(), OLD);
  t.ok(readFileSync(deb).equals(readFileSync(again)), 'two builds of one commit are equal to the byte');
  const files = (await run('dpkg-deb', ['--contents', deb], { maxBuffer: 16e6 })).stdout.split('\n');
  const paths = files.map((line) => line.trim().split(/\s+/)[5] ?? '');
  t.notOk(
    paths.some((path) => /\.test\.js$|\.d\.ts$|\.map$|\/@types\/|\/rclnodejs\//.test(path)),
    'no tests, types or maps',
  );
  t.notOk(
    files.some((line) => line !== '' && !/ root\/root /.test(line)),
    'everything belongs to root',
  );
  for (const wanted of [
    '/etc/outrider/edge.yaml',
    '/usr/lib/systemd/system/outrider-guard.service',
    '/usr/lib/udev/rules.d/60-outrider.rules',
    '/usr/share/doc/outrider-edge/node-license.txt',
  ])
    t.ok(paths.includes(`.${wanted}`), wanted);
  const control = (await run('dpkg-deb', ['--field', deb])).stdout;
  t.match(control, /Depends: libc6 \(>= 2\.\d+\).*libstdc\+\+6.*adduser/);
  if (isThere('lintian')) {
    const said = await run('lintian', ['--allow-root', '--fail-on', 'error', '--no-tag-display-limit', deb]).catch(
      (error: { stdout: string }) => error,
    );
    t.equal(said.stdout.trim(), '', 'lintian has nothing to say');
  }
});

t.test(
  'systemd understands the units',
  { skip: isThere('systemd-analyze') ? false : 'needs systemd-analyze' },
  async (t) => {
    const units = t.testdir();
    for (const name of ['outrider-edge.service', 'outrider-guard.service']) {
      const text = readFileSync(join(repositoryRoot, 'edge-agent/systemd', name), 'utf8');
      t.match(text, /^ConditionPathExists=\/var\/lib\/outrider\/identity\/current$/m, `${name}: not before enrolment`);
      // The program is not installed on this machine.
      writeFileSync(join(units, name), text.replaceAll('/usr/bin/outrider-edge', '/bin/true'));
    }
    const { stderr } = await run('systemd-analyze', [
      'verify',
      '--man=no',
      join(units, 'outrider-edge.service'),
      join(units, 'outrider-guard.service'),
    ]);
    t.equal(stderr, '');
  },
);

t.test(
  'installed, enrolled, killed, upgraded, removed and purged on a clean Debian',
  { skip: mustRun ? false : skip },
  async (t) => {
    if (skip) throw new Error(skip);
    const { stack, stateDir, end: endStack } = openStack((line) => t.comment(line));
    t.teardown(endStack);
    const rootMade = CleanRoot.create();
    t.teardown(async () => (await rootMade.catch(() => undefined))?.close());
    const [oldDeb, newDeb] = [await oldPackage, await build(debs, NEW)];
    const root = await rootMade;
    // Last: its ports are found before its database is open, and may be gone by then on a busy machine.
    const cloud = await stack.startCloud({ httpPort: 0 });
    const robot = new PackagedRobot(t, root, stack, cloud, stateDir);
    for (const deb of [oldDeb, newDeb]) cpSync(deb, join(root.path, 'root', basename(deb)));
    const before = root.listing();

    await robot.dpkg('--install', `/root/${basename(oldDeb)}`);
    t.equal(
      (await root.run('dpkg', '--verify', 'outrider-edge')).out,
      '',
      'what is installed has the sums of the package',
    );
    t.match((await root.run('id', 'outrider')).out, /\(dialout\).*\(gpio\)/);
    t.equal((await root.run('stat', '-c', '%a %U', '/var/lib/outrider')).out, '700 outrider\n');
    t.ok(
      root.has('/etc/systemd/system/multi-user.target.wants/outrider-guard.service'),
      'enabled without a running systemd',
    );
    t.notOk(root.has('/var/lib/outrider/outbox.db'), 'nothing has run');

    const untouched = await root.run('outrider-edge', 'doctor');
    t.equal(untouched.code, 1, 'doctor finds what is missing before the enrolment');
    t.match(untouched.out, /outrider-edge enroll/, 'and says what to do');

    await robot.enroll();
    await robot.connectMcu();
    root.listen('root/notify.log');
    await stack.until('the listener', () => root.has('/run/notify'));
    await robot.start();
    await stack.until('samples of the recording and of the microcontroller', async () => {
      const counts = await cloud.client.sampleCounts(ROBOT);
      return (counts.get(STREAM) ?? 0) > 0 && (counts.get('mcu/joint_state') ?? 0) > 0;
    });
    const examined = await root.run('outrider-edge', 'doctor');
    t.equal(examined.code, 0, 'doctor finds a robot that runs in order', examined);
    t.match((await root.run('outrider-edge', 'status')).out, /robot +default\.packaged-1 +agent 0\.1\.0~test1/);
    await robot.recover();

    const told = readFileSync(join(root.path, 'root/notify.log'), 'utf8');
    t.match(told, /READY=1\nSTATUS=packaged-1/, 'the guard tells systemd that it is ready');
    t.match(told, /READY=1\nSTATUS=reading/, 'and so does the agent');
    t.match(told, /WATCHDOG=1/, 'and that they still turn');

    await robot.stop('SIGKILL');
    await robot.start();
    await robot.samplesGrow('after kill -9 of agent and guard');
    const { epoch, gateOpen } = await robot.facts();
    t.notOk(gateOpen, 'a guard that was killed comes back stopped');

    await robot.dpkg('--install', `/root/${basename(newDeb)}`);
    await robot.samplesGrow('with the programs of the old package under the new one');
    await robot.stop('SIGTERM');
    await robot.start();
    await robot.samplesGrow('after the upgrade');
    t.match(await robot.facts(), { version: NEW, epoch }, 'the new version goes on with the same outbox');
    t.match(readFileSync(join(root.path, CONFIG), 'utf8'), `id: ${ROBOT}`, 'the configuration is kept');

    process.kill(cloud.child.pid as number, 'SIGSTOP');
    const held = await robot.committed();
    await stack.until('samples that wait for the cloud', async () => (await robot.committed()) > held + 200);
    await robot.stop('SIGTERM');
    await robot.dpkg('--remove', 'outrider-edge');
    t.notOk(root.has('/usr/bin/outrider-edge'), 'removed');
    t.ok(
      root.has('/var/lib/outrider/outbox.db') && root.has('/var/lib/outrider/identity/current'),
      'data and identity stay',
    );
    t.ok(root.has(CONFIG), 'the configuration stays');
    process.kill(cloud.child.pid as number, 'SIGCONT');

    t.ok(((await cloud.client.sampleCounts(ROBOT)).get(STREAM) ?? 0) < ROWS, 'the recording has outlasted all of it');
    await robot.dpkg('--install', `/root/${basename(newDeb)}`);
    robot.configure({ speed: 0 });
    await robot.start();
    const expected = recordedSamples();
    await stack.until(
      `${ROWS} samples`,
      async () => ((await cloud.client.sampleCounts(ROBOT)).get(STREAM) ?? 0) >= ROWS,
    );
    const stored = await exportStream(cloud.client, ROBOT, STREAM);
    t.equal(stored.length, ROWS, 'none lost, none doubled');
    t.same(
      fingerprints(stored, ['position']),
      fingerprints(expected, ['position']),
      'and every value is the recorded one',
    );
    t.match(await robot.facts(), { epoch, dropped: 0 });
    await robot.stop('SIGTERM');

    await robot.dpkg('--purge', 'outrider-edge');
    t.notOk(existsSync(join(root.path, 'var/lib/outrider')), 'purge takes the data');
    t.equal((await root.run('id', 'outrider')).code, 1, 'and the user');
    t.same(root.listing(), before, 'and leaves nothing behind');
  },
);

/** The agent and the guard of the package in the root, each started as its unit starts it. */
class PackagedRobot {
  readonly #t: Test;
  readonly #root: CleanRoot;
  readonly #stack: Stack;
  readonly #cloud: Cloud;
  readonly #stateDir: string;
  #guard: ChildProcess | undefined;
  #agent: ChildProcess | undefined;

  constructor(t: Test, root: CleanRoot, stack: Stack, cloud: Cloud, stateDir: string) {
    this.#t = t;
    this.#root = root;
    this.#stack = stack;
    this.#cloud = cloud;
    this.#stateDir = stateDir;
  }

  async dpkg(...args: string[]): Promise<void> {
    const { code, out, err } = await this.#root.run('dpkg', ...args);
    this.#t.equal(code, 0, `dpkg ${args.join(' ')}`, { out, err });
    this.#t.notMatch(err, /warning|error/i, 'without a complaint');
  }

  /** Edits the installed file as a person would, and enrols as root. */
  async enroll(): Promise<void> {
    const { path } = this.#root;
    this.configure({ speed: 1 });
    copyFileSync(this.#cloud.ready.ca_file, join(path, 'etc/outrider/ca.pem'));
    chmodSync(join(path, 'etc/outrider/ca.pem'), 0o644);
    writeFileSync(join(path, 'etc/outrider/drive.csv'), recording());
    writeFileSync(join(path, 'root/key'), await this.#cloud.client.registerRobot(ROBOT), { mode: 0o600 });
    const { code, out, err } = await this.#root.run('outrider-edge', 'enroll', '--api-key-file', '/root/key');
    this.#t.equal(code, 0, 'enrolled', { err });
    this.#t.match(out, 'enrolled default.packaged-1');
    const owner = await this.#root.run('find', '/var/lib/outrider', '!', '-user', 'outrider');
    this.#t.equal(owner.out, '', 'what root has enrolled belongs to the service user');
  }

  configure({ speed }: { speed: number }): void {
    const file = join(this.#root.path, CONFIG);
    const replay = {
      ...{ type: 'replay', file: 'drive.csv', speed },
      columns: {
        start: '2026-01-01T00:00:00Z',
        time: { column: 't', unit: 's' },
        streams: [{ stream: STREAM, kind: 'joint_state', names: JOINTS, fields: { position: JOINTS } }],
      },
    };
    const text = readFileSync(file, 'utf8')
      .replace('id: RB-1022', `id: ${ROBOT}`)
      .replace('http_url: https://cloud.example:8443', `http_url: ${this.#cloud.ready.https_url}`)
      .replace('path: /dev/outrider-mcu', 'path: /run/outrider-mcu')
      .replace(/^sources:\n( {2}- \{.*\n)?/m, `sources:\n  - ${JSON.stringify(replay)}\n`);
    writeFileSync(file, text);
  }

  /** The reference firmware on a pseudo-terminal, with the rights that the udev rule gives. */
  async connectMcu(): Promise<void> {
    const link = join(this.#root.path, 'run/outrider-mcu');
    this.#stack.start('mcu', MCU, ['--link', link, '--joints', '30', '--control', join(this.#stateDir, 'mcu.control')]);
    await this.#stack.until('the microcontroller', () => existsSync(link));
    chownSync(realpathSync(link), 0, DIALOUT);
    chmodSync(realpathSync(link), 0o660);
  }

  async start(): Promise<void> {
    this.#guard = this.#root.start('root/guard.log', '/usr/bin/outrider-edge', 'guard', '--config', CONFIG);
    this.#agent = this.#root.start('root/agent.log', '/usr/bin/outrider-edge', 'run', '--config', CONFIG);
    await this.#stack.until(
      'agent and guard',
      async () => (await this.#status())?.failsafe !== null && (await this.#status()) !== undefined,
      () => {
        const dead = [this.#guard, this.#agent].find((child) => child?.exitCode !== null);
        return dead && `${dead.spawnargs.at(-3)} ended:\n${this.#log('guard')}\n${this.#log('agent')}`;
      },
    );
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    for (const child of [this.#agent, this.#guard]) {
      if (!child) continue;
      const isKilled = await end(child, signal, STOP_PATIENCE_MS);
      this.#t.equal(isKilled, signal === 'SIGKILL', `${signal} ends it, and systemd need not insist`);
    }
  }

  /** Somebody at the robot lets it move. */
  async recover(): Promise<void> {
    await this.#stack.until(
      'recovery',
      async () => (await this.#root.run('outrider-edge', 'failsafe', 'recover')).code === 0,
    );
    await this.#stack.until('an open gate', async () => (await this.#status())?.failsafe?.gate_open === true);
  }

  async samplesGrow(when: string): Promise<void> {
    const count = async (stream: string): Promise<number> =>
      (await this.#cloud.client.sampleCounts(ROBOT)).get(stream) ?? 0;
    const [replayed, measured] = [await count(STREAM), await count('mcu/joint_state')];
    await this.#stack.until(
      `samples ${when}`,
      async () => (await count(STREAM)) > replayed && (await count('mcu/joint_state')) > measured,
    );
    this.#t.pass(`samples arrive ${when}`);
  }

  async facts(): Promise<{ version: string; epoch: string; gateOpen: boolean; dropped: number }> {
    const status = await this.#status();
    return {
      version: status?.agent.version ?? '',
      epoch: status?.outbox.epoch ?? '',
      gateOpen: status?.failsafe?.gate_open ?? true,
      dropped: status?.outbox.samples_dropped ?? -1,
    };
  }

  async committed(): Promise<number> {
    return (await this.#status())?.outbox.samples_committed ?? 0;
  }

  async #status(): Promise<Status | undefined> {
    const { code, out } = await this.#root.run('outrider-edge', 'status', '--json');
    return code === 0 ? (JSON.parse(out) as Status) : undefined;
  }

  #log(name: string): string {
    return readFileSync(join(this.#root.path, `root/${name}.log`), 'utf8')
      .split('\n')
      .slice(-15)
      .join('\n');
  }
}

interface Status {
  readonly agent: { readonly version: string };
  readonly failsafe: { readonly gate_open: boolean } | null;
  readonly outbox: { readonly epoch: string; readonly samples_committed: number; readonly samples_dropped: number };
}

async function build(folder: string, version: string): Promise<string> {
  await run(process.execPath, [PACKAGE, '--fast', '--out', folder, '--package-version', version]);
  return join(folder, `outrider-edge_${version}_${process.arch === 'x64' ? 'amd64' : process.arch}.deb`);
}

const position = (row: number, joint: number): number => Math.sin(row / 50 + joint);

function recording(): string {
  const rows = Array.from({ length: ROWS }, (_, row) =>
    [(row * ROW_MS) / 1000, ...JOINTS.map((_, joint) => position(row, joint))].join(),
  );
  return `${['t', ...JOINTS].join()}\n${rows.join('\n')}\n`;
}

const recordedSamples = (): ExpectedSample[] =>
  Array.from({ length: ROWS }, (_, row) => ({
    names: JOINTS,
    values: { position: JOINTS.map((_, joint) => position(row, joint)) },
  }));
