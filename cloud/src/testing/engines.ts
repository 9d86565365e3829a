import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { chmod, chown, mkdtemp, readdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@outrider/shared/free-port';

/** A server started for a test. */
export interface Engine {
  readonly url: string;
  /** Its process now. */
  pid(): number;
  /** Takes it away, keeping its data. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Kills it without a word, children included. `resume` starts it again. */
  kill(): Promise<void>;
  /** Freezes it, children included, so that it is there and answers nothing. @returns Lets it go on. */
  freeze(): () => void;
  /** Has it read its configuration again. */
  reload(): Promise<void>;
  stop(): Promise<void>;
}

/** Whether a missing engine is a failure rather than a reason to skip. */
export const requiresAll = process.env['OUTRIDER_REQUIRE_ALL'] === '1';

/** Waits until the condition holds. It fails with the name of what never came. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 60_000,
): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const POSTGRES_ROOT = '/usr/lib/postgresql';
const postgresBin = existsSync(POSTGRES_ROOT)
  ? readdirSync(POSTGRES_ROOT)
      .map((version) => join(POSTGRES_ROOT, version, 'bin'))
      .find((bin) => existsSync(join(bin, 'initdb')))
  : undefined;
const mosquittoBin = ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto'].find((path) => existsSync(path));

/** Why the tests that need PostgreSQL cannot run here; `false` when they can, or must. */
export const noPostgres: string | false = requiresAll || postgresBin ? false : 'no PostgreSQL in /usr/lib/postgresql';
/** The same for Mosquitto. */
export const noMosquitto: string | false = requiresAll || mosquittoBin ? false : 'no mosquitto in /usr/sbin';

/** The user a server runs as: it refuses, or drops, root. */
function userIds(name: string): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const read = (flag: string): number => Number(execFileSync('id', [flag, name], { encoding: 'utf8' }));
  return { uid: read('-u'), gid: read('-g') };
}

async function ownFolder(prefix: string, ids: { uid?: number; gid?: number }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  await chmod(folder, 0o700);
  if (ids.uid !== undefined && ids.gid !== undefined) await chown(folder, ids.uid, ids.gid);
  return folder;
}

async function accepts(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

/** Signals a process and its children; those that are gone meanwhile are none. */
function signalTree(child: ChildProcess, signal: NodeJS.Signals): void {
  const listed = execFileSync('ps', ['-o', 'pid=', '--ppid', String(child.pid), '-p', String(child.pid)]).toString();
  for (const pid of listed.split('\n').map(Number).filter(Boolean)) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended.
    }
  }
}

async function killTree(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  signalTree(child, 'SIGKILL');
  await exited;
}

function freezeTree(child: ChildProcess): () => void {
  signalTree(child, 'SIGSTOP');
  return () => signalTree(child, 'SIGCONT');
}

function isServing(port: number): boolean {
  try {
    const args = ['-q', '-h', '127.0.0.1', '-p', String(port), '-U', 'postgres'];
    execFileSync(join(postgresBin ?? '', 'pg_isready'), args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/**
 * An empty PostgreSQL in a private cluster.
 *
 * @param options.isDurable Commits wait for the disk, as in the field. Absent: they do not, which is faster.
 */
export async function startPostgres(options: { readonly isDurable?: boolean } = {}): Promise<Engine> {
  if (!postgresBin) throw new Error('PostgreSQL is required and not there');
  const ids = userIds('postgres');
  const folder = await ownFolder('outrider-pg-', ids);
  const port = await freePort();
  const data = join(folder, 'data');
  const initdb = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync'];
  execFileSync(join(postgresBin, 'initdb'), initdb, { ...ids, cwd: folder, stdio: 'ignore' });
  const durability = options.isDurable === true ? [] : ['fsync=off'];
  const settings = [...durability, 'listen_addresses=127.0.0.1', `unix_socket_directories=${folder}`];
  const switches = settings.flatMap((setting) => ['-c', setting]);
  const bin = join(postgresBin, 'postgres');
  const start = async (): Promise<ChildProcess> => {
    const started = spawn(bin, ['-D', data, '-p', String(port), ...switches], { ...ids, cwd: folder, stdio: 'ignore' });
    // It accepts connections a moment before it takes any.
    await until(() => isServing(port), 'PostgreSQL');
    return started;
  };
  let child = await start();
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    pid: () => child.pid ?? 0,
    pause: () => end(child, 'SIGINT'),
    kill: () => killTree(child),
    freeze: () => freezeTree(child),
    async resume() {
      child = await start();
    },
    async reload() {
      child.kill('SIGHUP');
    },
    async stop() {
      await end(child, 'SIGINT');
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Mosquitto on a configuration that was written for these ports. */
export async function startMosquitto(configPath: string, dir: string, port: number, log: string[]): Promise<Engine> {
  const bin = mosquittoBin;
  if (!bin) throw new Error('Mosquitto is required and not there');
  const ids = userIds('mosquitto');
  const own = async (): Promise<void> => {
    if (ids.uid === undefined || ids.gid === undefined) return;
    for (const name of ['.', ...(await readdir(dir))]) await chown(join(dir, name), ids.uid, ids.gid);
  };
  const start = async (): Promise<ChildProcess> => {
    await own();
    const started = spawn(bin, ['-c', configPath], { ...ids, stdio: ['ignore', 'ignore', 'pipe'] });
    started.stderr?.on('data', (chunk: Buffer) => log.push(chunk.toString()));
    await until(() => {
      if (started.exitCode !== null) throw new Error(`Mosquitto ended: ${log.join('')}`);
      return accepts(port);
    }, 'Mosquitto');
    return started;
  };
  let child = await start();
  return {
    url: `mqtts://127.0.0.1:${port}`,
    pid: () => child.pid ?? 0,
    pause: () => end(child, 'SIGTERM'),
    kill: () => killTree(child),
    freeze: () => freezeTree(child),
    async resume() {
      child = await start();
    },
    async reload() {
      await own();
      child.kill('SIGHUP');
    },
    stop: () => end(child, 'SIGTERM'),
  };
}
