import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { commissionLatchStore } from '@outrider/edge-agent/guard/latch-store';
import type { AgentStatus } from '@outrider/edge-agent/local-api/status';
import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { repositoryRoot } from '../stack.ts';
import { RowSkipped } from './measure.ts';

const FIRMWARE = join(repositoryRoot, 'firmware-bridge/firmware/build/outrider-mcu');
const EDGE = join(repositoryRoot, 'edge-agent/bin/outrider-edge.js');
/** What the package's launcher sets; the flags of Node that it gives are those that `outrider-edge.js` sets. */
const LAUNCHER_ENV = { MALLOC_ARENA_MAX: '1' };
const POLL_MS = 5;
const never = new AbortController().signal;

/** Polls until something is there. @throws when it takes too long. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  patienceMs = 30_000,
): Promise<T> {
  for (const endMs = systemClock.monotonicMs() + patienceMs; systemClock.monotonicMs() < endMs; ) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    await pause(POLL_MS, never);
  }
  throw new Error(`${what}: not within ${patienceMs / 1000} s`);
}

/** Ends a process and waits for it. */
export async function end(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill(signal);
  const insist = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(insist);
}

/** The reference firmware with 30 joints at 50 Hz on a pty, and an agent that starts its guard. No cloud. */
export class BenchRobot {
  readonly home: string;
  readonly #line: string;
  #mcu: ChildProcess | undefined;
  #agent: ChildProcess | undefined;

  /** @param home A folder with a short path: a Unix socket's has at most 107 bytes. */
  constructor(home: string) {
    if (!existsSync(FIRMWARE)) throw new RowSkipped('the firmware is not built (npm run build)');
    this.home = home;
    this.#line = join(home, 'tty');
    const config = {
      robot: { id: 'RB-BENCH', tenant: 'default' },
      state_dir: 'state',
      cloud: { http_url: 'https://localhost:1', ca_file: 'ca.pem' },
      sources: [{ type: 'serial', path: this.#line, baud: 921_600, rate_hz: 50 }],
      log: { level: 'error' },
    };
    writeFileSync(join(home, 'ca.pem'), '');
    // JSON is YAML.
    writeFileSync(join(home, 'edge.yaml'), JSON.stringify(config));
  }

  async startFirmware(): Promise<void> {
    const mcu = spawn(FIRMWARE, ['--link', this.#line, '--joints', '30', '--rate-hz', '50', '--seed', '1'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#mcu = mcu;
    createInterface({ input: mcu.stdout }).on('line', () => {});
    await until('the firmware', () => existsSync(this.#line));
  }

  /** Starts the agent. A commissioned robot: its latch store exists. */
  async startAgent(): Promise<void> {
    await commissionLatchStore(join(this.home, 'state', 'latches'));
    this.#agent = spawn(process.execPath, [EDGE, 'run', '--config', join(this.home, 'edge.yaml')], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, ...LAUNCHER_ENV },
    });
  }

  get agentPid(): number {
    const { pid, exitCode } = this.#agent ?? {};
    if (pid === undefined || exitCode !== null) throw new Error('the agent does not run');
    return pid;
  }

  /** What the agent says of itself; `undefined` while it does not answer. */
  status(): Promise<AgentStatus | undefined> {
    return new Promise((resolve) => {
      const request = get({ socketPath: join(this.home, 'state', 'edge.sock'), path: '/status' }, (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => {
          text += chunk.toString();
        });
        response.on('end', () => resolve(JSON.parse(text) as AgentStatus));
      });
      request.on('error', () => resolve(undefined));
    });
  }

  /** Waits until samples of the microcontroller are on disk. */
  firstDurableSample(): Promise<AgentStatus> {
    return until('a durable sample', async () => {
      const status = await this.status();
      return status !== undefined && status.outbox.samples_committed > 0 && status;
    });
  }

  /** The agent ends its guard. */
  async stopAgent(): Promise<void> {
    if (this.#agent) await end(this.#agent);
    this.#agent = undefined;
  }

  async close(): Promise<void> {
    await this.stopAgent();
    if (this.#mcu) await end(this.#mcu);
  }
}

/** Resident memory of a process now. [bytes] */
export function rssBytes(pid: number): number {
  return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** CPU time that a process has had since its start, all its threads. [ms] */
export function cpuMs(pid: number): number {
  // Fields after the command's closing bracket; the command may hold anything.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  const ticks = Number(fields[11]) + Number(fields[12]);
  // The kernel's USER_HZ, 100 on every Linux that Node runs on.
  return ticks * 10;
}
