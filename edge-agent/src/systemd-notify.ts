import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';

/** The part of the optional package that is used; it sends without blocking. */
interface DatagramSocket {
  on(event: 'error', listener: (error: Error) => void): void;
  send(bytes: Buffer, offset: number, length: number, path: string, done: (error?: Error) => void): void;
  close(): void;
}
interface DatagramModule {
  createSocket(type: 'unix_dgram'): DatagramSocket;
}

/** What systemd gives a service of `Type=notify`. */
export type NotifyEnvironment = Readonly<
  Partial<Record<'NOTIFY_SOCKET' | 'WATCHDOG_USEC' | 'WATCHDOG_PID' | 'PATH', string>>
>;

export interface NotifierOptions {
  readonly env: NotifyEnvironment;
  readonly log: Logger;
  /** False: always through `systemd-notify`, which needs `NotifyAccess=all`. */
  readonly mayUseDatagrams?: boolean;
}

/**
 * Tells systemd how this process does. Outside systemd every call does nothing. Nothing here blocks or throws: a
 * service manager that does not listen must not stop what it manages.
 */
export class SystemdNotifier {
  /** Half of `WatchdogSec`: how often `alive` must be called at least; `undefined` without a watchdog. [ms] */
  readonly watchdogMs: number | undefined;
  readonly #path: string | undefined;
  readonly #log: Logger;
  readonly #env: NotifyEnvironment;
  readonly #socket: DatagramSocket | undefined;
  #isSpawned = false;
  #failed = false;
  #aliveMs = Number.NEGATIVE_INFINITY;

  constructor({ env, log, mayUseDatagrams = true }: NotifierOptions) {
    const path = env.NOTIFY_SOCKET;
    this.#env = env;
    this.#log = log;
    // A leading @ is the name of an abstract socket.
    this.#path = path === undefined || path === '' ? undefined : path.replace(/^@/, '\0');
    const isOurs = env.WATCHDOG_PID === undefined || env.WATCHDOG_PID === String(process.pid);
    const watchdogUs = isOurs ? Number(env.WATCHDOG_USEC ?? 0) : 0;
    this.watchdogMs = this.#path !== undefined && watchdogUs > 0 ? watchdogUs / 2000 : undefined;
    this.#socket = this.#path !== undefined && mayUseDatagrams ? openDatagrams(log) : undefined;
    this.#socket?.on('error', (error) => this.#note(error.message));
  }

  /** Start-up is over: units that wait for this one may start. */
  ready(status: string): void {
    this.#send(`READY=1\nSTATUS=${oneLine(status)}`);
  }

  /** One line that `systemctl status` shows. */
  status(status: string): void {
    this.#send(`STATUS=${oneLine(status)}`);
  }

  stopping(): void {
    this.#send('STOPPING=1');
  }

  /**
   * Call it only when work was really done: it is the proof that keeps systemd from killing this process. May be
   * called at any rate; at most every `watchdogMs / 2` goes out.
   */
  alive(nowMs: number): void {
    if (this.watchdogMs === undefined || nowMs - this.#aliveMs < this.watchdogMs / 2) return;
    this.#aliveMs = nowMs;
    this.#send('WATCHDOG=1');
  }

  close(): void {
    this.#socket?.close();
  }

  #send(message: string): void {
    if (this.#path === undefined) return;
    if (!this.#socket) {
      this.#spawn(message);
      return;
    }
    const bytes = Buffer.from(message);
    try {
      this.#socket.send(bytes, 0, bytes.length, this.#path, (error) => error && this.#note(error.message));
    } catch (error) {
      this.#note(errorMessage(error));
    }
  }

  #spawn(message: string): void {
    // One at a time: a machine that cannot start processes must not get more of them. The next proof is near.
    if (this.#isSpawned && message.startsWith('WATCHDOG')) return;
    this.#isSpawned = true;
    const env = { PATH: this.#env.PATH, NOTIFY_SOCKET: this.#env.NOTIFY_SOCKET };
    const args = [`--pid=${process.pid}`, ...message.split('\n')];
    const child = spawn('systemd-notify', args, { stdio: 'ignore', env });
    child.on('error', (error) => {
      this.#isSpawned = false;
      this.#note(error.message);
    });
    child.on('exit', (code) => {
      this.#isSpawned = false;
      if (code !== 0) this.#note(`systemd-notify ended with ${code}`);
    });
  }

  /** Said once: it would come with every message. */
  #note(problem: string): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#log.warn({ problem }, 'systemd.not_told');
  }
}

const oneLine = (text: string): string => text.replaceAll('\n', ' ');

/** A datagram socket, if the optional package could be built here. */
function openDatagrams(log: Logger): DatagramSocket | undefined {
  try {
    const module = createRequire(import.meta.url)('unix-dgram') as DatagramModule;
    return module.createSocket('unix_dgram');
  } catch (error) {
    log.info({ problem: errorMessage(error) }, 'systemd.without_datagrams');
    return undefined;
  }
}
