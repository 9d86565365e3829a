// Bootstrap in plain Node, with nothing installed: `node scripts/dev.mjs up|test [options]`.
// Installs when the lockfile changed, builds, then starts the program or the tests.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stampFile = join(root, 'node_modules', '.outrider-stamp');
/** A counterexample of a property test can be a whole file. */
const LINE_MAX = 1000;
const NODE_WANTED = [20, 20];

process.env.TURBO_TELEMETRY_DISABLED = '1';
process.env.DO_NOT_TRACK = '1';
process.env.NO_UPDATE_NOTIFIER = '1';
// Native modules compile against the headers beside this Node instead of downloading them.
const prefix = dirname(dirname(process.execPath));
if (existsSync(join(prefix, 'include', 'node', 'node.h'))) process.env.npm_config_nodedir ??= prefix;

function fail(message) {
  process.stderr.write(`\noutrider: ${message}\n`);
  process.exit(1);
}

function checkMachine() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < NODE_WANTED[0] || (major === NODE_WANTED[0] && minor < NODE_WANTED[1]))
    fail(
      `Node ${process.versions.node} is too old: install Node ${NODE_WANTED.join('.')} or newer (https://nodejs.org).`,
    );
  const missing = [
    ['make', ['--version'], 'make'],
    ['cc', ['--version'], 'a C compiler (cc)'],
    ['c++', ['--version'], 'a C++ compiler (c++)'],
    ['python3', ['--version'], 'Python 3 (python3)'],
    ['npm', ['--version'], 'npm'],
  ].filter(([command, args]) => spawnSync(command, args, { stdio: 'ignore' }).status !== 0);
  if (missing.length > 0)
    fail(
      `missing: ${missing.map(([, , name]) => name).join(', ')}. They compile the SQLite and serial modules.\n` +
        '  Debian and Ubuntu: sudo apt-get install -y build-essential python3\n  Fedora: sudo dnf install gcc-c++ make python3',
    );
}

/** Runs a step quietly with a line that says it is still alive; shows its output only when it fails. */
async function step(title, command, args) {
  const startedAt = Date.now();
  const seconds = () => `${Math.round((Date.now() - startedAt) / 1000)} s`;
  process.stderr.write(`${title} …\n`);
  const child = spawn(command, args, { cwd: root, env: process.env });
  const output = [];
  child.stdout.on('data', (chunk) => output.push(chunk));
  child.stderr.on('data', (chunk) => output.push(chunk));
  const alive = setInterval(() => process.stderr.write(`  ${title}: still at it, ${seconds()}\n`), 15_000);
  const code = await new Promise((resolve) => child.on('error', () => resolve(127)).on('close', resolve));
  clearInterval(alive);
  if (code !== 0) {
    process.stderr.write(Buffer.concat(output));
    fail(`${title} failed (exit ${code}): ${command} ${args.join(' ')}`);
  }
  process.stderr.write(`  ${title}: done in ${seconds()}\n`);
}

async function bootstrap() {
  checkMachine();
  const stamp = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(readFileSync(join(root, 'package.json')))
    .update(`${process.version} ${process.arch}`)
    .digest('hex');
  if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
    await step('install packages', 'npm', ['ci', '--no-audit', '--no-fund']);
    await step('prepare the test runner', 'npx', ['tap', 'build']);
    mkdirSync(dirname(stampFile), { recursive: true });
    writeFileSync(stampFile, stamp);
  }
  await step('build', 'npx', ['turbo', 'run', 'build', '--output-logs=errors-only', '--no-update-notifier']);
}

/** Counts test functions in TAP: results of subtests carry their time, plain assertions do not. */
function countTests(lines) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const line of lines) {
    const match = /^(\s*)(not ok|ok) \d+ - (.*)$/.exec(line);
    if (!match) continue;
    const [, indent, result, rest] = match;
    if (/# SKIP/i.test(rest)) counts.skipped += 1;
    else if (result === 'not ok' && /# TODO/i.test(rest)) counts.skipped += 1;
    else if (/# time=[\d.]+m?s/.test(rest)) {
      if (result === 'not ok') counts.failed += 1;
      else if (indent.length > 0) counts.passed += 1;
    }
  }
  return counts;
}

/** What a reader of the log needs of TAP: a line a file, what was skipped and why, failures with their diagnostics. */
function createTapPrinter() {
  const show = (line) => process.stdout.write(`${line.length > LINE_MAX ? `${line.slice(0, LINE_MAX)} …` : line}\n`);
  let inDiagnostics = false;
  let lastWasFailure = false;
  return (line) => {
    if (inDiagnostics) {
      show(line);
      inDiagnostics = line.trim() !== '...';
    } else if (/^\s*not ok /.test(line) || /^ok /.test(line) || /# SKIP/i.test(line)) show(line);
    else if (line.trim() === '---' && lastWasFailure) {
      show(line);
      inDiagnostics = true;
    }
    if (line.trim() !== '') lastWasFailure = /^\s*not ok /.test(line);
  };
}

async function test(args) {
  await bootstrap();
  const child = spawn('npx', ['tap', 'run', '--reporter=tap', ...args], {
    cwd: root,
    env: process.env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = new Promise((resolve) => child.on('close', resolve));
  const print = createTapPrinter();
  const lines = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    print(line);
  }
  const code = await closed;
  const { passed, failed, skipped } = countTests(lines);
  if (passed === 0) process.stdout.write('no test ran: that is a failure\n');
  process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
  process.exit(code !== 0 || failed > 0 || passed === 0 ? 1 : 0);
}

async function up(args) {
  if (args.includes('--help') || args.includes('-h')) {
    if (!existsSync(join(root, 'scripts/dist/src/up.js'))) await bootstrap();
  } else await bootstrap();
  const child = spawn(process.execPath, [join(root, 'scripts/dist/src/up.js'), ...args], {
    cwd: root,
    env: process.env,
    stdio: 'inherit',
  });
  // The terminal sends Ctrl-C to the whole group: wait for the program to finish its own shutdown.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.exit(await new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1))));
}

const [verb, ...rest] = process.argv.slice(2);
if (verb === 'up') await up(rest);
else if (verb === 'test') await test(rest);
else fail('usage: node scripts/dev.mjs up|test [options]');
