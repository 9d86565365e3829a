import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  createWriteStream,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { repositoryRoot } from '../src/stack.ts';

const run = promisify(execFile);
const SUITE = 'bookworm';
const MIRROR = 'http://deb.debian.org/debian';
const CACHE = join(repositoryRoot, '.outrider/package');
/** Nothing of this machine's settings reaches the clean root. */
const ENVIRONMENT = {
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LANG: 'C.UTF-8',
  DEBIAN_FRONTEND: 'noninteractive',
};
/** What systemd tells a service of Type=notify. */
const AS_SERVICE = { ...ENVIRONMENT, NOTIFY_SOCKET: '/run/notify', WATCHDOG_USEC: '2000000' };
/** Writes down what arrives on a datagram socket, which Node has none of. */
const LISTENER = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
while True: print(s.recv(4096).decode(), flush=True)`;
/**
 * Mounts and changes root in a mount namespace of the command's own: they end with the command, however it ends, and
 * never show on this machine, so that removing the folder cannot reach what was mounted there. The test runner gives
 * every child NODE_OPTIONS that name files outside.
 */
const ENTER =
  'unset NODE_OPTIONS && mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"';
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
/** What changes by installing anything at all. */
const BOOKKEEPING =
  /^\/(dev|proc|sys|tmp|run|root)(\/|$)|^\/var\/(lib\/(dpkg|systemd)|cache|log)(\/|$)|^\/etc\/(passwd|group|g?shadow|sub[ug]id)-?$/;

/** Why a clean root cannot be made here, or false. */
export function cleanRootSkip(): string | false {
  if (process.getuid?.() !== 0) return 'needs root, for chroot';
  for (const tool of ['debootstrap', 'unshare', 'setpriv']) if (!isThere(tool)) return `needs ${tool}`;
  try {
    execFileSync('unshare', ['--mount', '--propagation', 'private', 'true'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'needs the right to unshare mounts';
  }
}

export const isThere = (tool: string): boolean => {
  try {
    execFileSync('sh', ['-c', `command -v ${tool}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

/** What a command in the root said, and how it ended. */
export interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A Debian 12 with nothing but what every Debian has, and the programs that run in it. */
export class CleanRoot {
  readonly path = mkdtempSync(join(tmpdir(), 'outrider-root-'));
  readonly #children = new Set<ChildProcess>();

  private constructor() {}

  /** Made by debootstrap once, then unpacked from a copy. */
  static async create(): Promise<CleanRoot> {
    const architecture = execFileSync('dpkg', ['--print-architecture'], { encoding: 'utf8' }).trim();
    const tarball = join(CACHE, `${SUITE}-${architecture}.tar`);
    if (!existsSync(tarball)) await bootstrap(tarball);
    const root = new CleanRoot();
    try {
      await run('tar', ['-xf', tarball, '-C', root.path]);
      // A temporary folder is root's alone; the root of a system is for everybody.
      chmodSync(root.path, 0o755);
      return root;
    } catch (error) {
      await root.close();
      throw error;
    }
  }

  /** Runs a command as root inside, to its end. */
  async run(command: string, ...args: string[]): Promise<Said> {
    try {
      const { stdout, stderr } = await run('unshare', this.#enter([command, ...args]), {
        env: ENVIRONMENT,
        maxBuffer: OUTPUT_BYTES_MAX,
      });
      return { code: 0, out: stdout, err: stderr };
    } catch (error) {
      const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
      return { code: typeof code === 'number' ? code : -1, out: stdout ?? '', err: stderr ?? String(error) };
    }
  }

  /** Starts a program of the service user, as its unit would. It dies with this process at the latest. */
  start(logFile: string, command: string, ...args: string[]): ChildProcess {
    const asService = ['setpriv', '--reuid', 'outrider', '--regid', 'outrider', '--init-groups', '--pdeathsig', 'KILL'];
    return this.#spawn(logFile, 'unshare', this.#enter([...asService, command, ...args]), AS_SERVICE);
  }

  /** Listens in systemd's place to what the programs say of themselves. */
  listen(logFile: string): void {
    this.#spawn(logFile, 'setpriv', ['--pdeathsig', 'KILL', 'python3', '-c', LISTENER, join(this.path, 'run/notify')]);
  }

  #spawn(
    logFile: string,
    command: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = process.env,
  ): ChildProcess {
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const log = createWriteStream(join(this.path, logFile), { flags: 'a' });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#children.add(child);
    child.on('exit', () => this.#children.delete(child));
    return child;
  }

  /** Every path inside, except what any installation changes. */
  listing(): string[] {
    return readdirSync(this.path, { recursive: true, withFileTypes: true })
      .map((entry) => join(entry.parentPath, entry.name).slice(this.path.length))
      .filter((path) => !BOOKKEEPING.test(path))
      .sort();
  }

  /** Whether something has this name inside; a dangling link counts. */
  has(path: string): boolean {
    return lstatSync(join(this.path, path), { throwIfNoEntry: false }) !== undefined;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#children].map((child) => end(child, 'SIGKILL')));
    rmSync(this.path, { recursive: true, force: true });
  }

  #enter(command: readonly string[]): string[] {
    return ['--mount', '--propagation', 'private', 'sh', '-c', ENTER, this.path, ...command];
  }
}

/** Sends a signal and waits until the process is gone, killed when it takes too long. @returns Whether it was killed. */
export async function end(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL', patienceMs = 1000): Promise<boolean> {
  if (child.exitCode === null && child.signalCode === null) {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    const insist = setTimeout(() => child.kill('SIGKILL'), patienceMs);
    await gone;
    clearTimeout(insist);
  }
  return child.signalCode === 'SIGKILL';
}

async function bootstrap(tarball: string): Promise<void> {
  mkdirSync(CACHE, { recursive: true });
  const folder = mkdtempSync(join(tmpdir(), 'outrider-debootstrap-'));
  try {
    // It mounts, and starts much: in namespaces of its own all of it ends with it, and it ends with this process.
    const separate = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child'];
    const bound = ['--pdeathsig', 'KILL', 'unshare', ...separate, 'debootstrap', '--variant=minbase', SUITE, folder];
    await run('setpriv', [...bound, MIRROR], { maxBuffer: OUTPUT_BYTES_MAX });
    await run('sh', [
      '-c',
      'rm -f "$1"/var/cache/apt/archives/*.deb && tar -C "$1" -cf "$2.new" .',
      'sh',
      folder,
      tarball,
    ]);
    renameSync(`${tarball}.new`, tarball);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
