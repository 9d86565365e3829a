import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { GuardLink, type GuardStatus, type Transition } from '../src/guard/guard-link.ts';
import { GUARD_FLAGS } from '../src/guard/guard-process.ts';
import { commissionLatchStore } from '../src/guard/latch-store.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const FIRMWARE = join(ROOT, 'firmware-bridge/firmware/build/outrider-mcu');
const GUARD = fileURLToPath(new URL('../src/guard/main.js', import.meta.url));
const AGENT_CHILD = fileURLToPath(new URL('./guard-agent-child.js', import.meta.url));

/** Why the rig cannot run here; `undefined` when it can. */
export const rigProblem = existsSync(FIRMWARE)
  ? undefined
  : 'the firmware is not built: npm run build -w firmware-bridge';

/** A change of state that the firmware printed. */
export interface McuLineState {
  readonly state: string;
  readonly reason: string;
  readonly motion: boolean;
  readonly mono_us: number;
}

/** Waits until something holds. @throws after `limitMs`, naming what. */
export async function until<T>(what: string, look: () => T | undefined | false, limitMs = 60_000): Promise<T> {
  const endMs = systemClock.monotonicMs() + limitMs;
  for (;;) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    if (systemClock.monotonicMs() > endMs) throw new Error(`waited ${limitMs} ms for: ${what}`);
    await sleep(5);
  }
}

/** A microcontroller has a processor of its own: its stand-in takes precedence on this one, where that is allowed. */
export function precede(pid: number | undefined): void {
  // Nice counts only among the processes of one session where the kernel groups them, so it has to be real time.
  if (pid !== undefined) spawnSync('chrt', ['--fifo', '--pid', '10', String(pid)], { stdio: 'ignore' });
}

/** The real firmware on a real pty, the real guard process, and an agent's end of its socket. */
export class GuardRig {
  readonly dir = mkdtempSync(join(tmpdir(), 'outrider-guard-'));
  readonly configPath = join(this.dir, 'edge.yaml');
  readonly socketPath = join(this.dir, 'guard.sock');
  readonly latchDir = join(this.dir, 'latches');
  readonly states: McuLineState[] = [];
  readonly transitions: Transition[] = [];
  readonly log: string[] = [];
  transitionsStored = 0;
  samples = 0;
  link!: GuardLink;
  guard!: ChildProcess;
  mcu!: ChildProcess;
  #linkStop = new AbortController();
  #linkDone: Promise<void> = Promise.resolve();
  readonly #children: ChildProcess[] = [];

  /** Everything up to a robot that is ready to be recovered. */
  static async start(options: { failsafe?: object; guard?: object } = {}): Promise<GuardRig> {
    const rig = new GuardRig();
    try {
      await rig.startMcu();
      rig.configure(options.failsafe, options.guard);
      await commissionLatchStore(rig.latchDir);
      rig.startGuard();
      rig.startLink();
      await rig.until('a guard with its microcontroller', (status) => status.mcuState === 'STOPPED');
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  configure(failsafe: object = {}, guard: object = {}): void {
    const config = {
      robot: { id: 'RB-TEST' },
      state_dir: this.dir,
      sources: [{ type: 'serial', path: join(this.dir, 'tty'), baud: 921_600 }],
      failsafe: {
        // A busy machine with two cores, not a robot: what is timed here is the order of things.
        accept_looser: true,
        looser_reason: 'a test on a busy machine',
        mcu_silent_ms: 1000,
        stop_confirm_ms: 2000,
        stale_min_ms: 1500,
        agent_stuck_ms: 2500,
        clear_dwell_ms: Object.fromEntries(
          ['estop', 'guard_fault', 'mcu_silent', 'mcu_fault', 'source_stale', 'agent_stuck', 'mechanical_lock']
            .concat('thermal_shutdown')
            .map((cause) => [cause, 50]),
        ),
        ...failsafe,
      },
      guard: { scheduling: 'auto', ...guard },
    };
    // JSON is YAML.
    writeFileSync(this.configPath, JSON.stringify(config));
  }

  async startMcu(): Promise<void> {
    const mcu = spawn(FIRMWARE, ['--link', join(this.dir, 'tty')], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.mcu = mcu;
    this.#children.push(mcu);
    precede(mcu.pid);
    createInterface({ input: mcu.stdout }).on('line', (line) => {
      const said = JSON.parse(line) as McuLineState & { readonly event: string };
      if (said.event === 'state') this.states.push(said);
    });
    await until('the pty', () => existsSync(join(this.dir, 'tty')));
  }

  startGuard(): ChildProcess {
    const guard = spawn(process.execPath, [...GUARD_FLAGS, GUARD, '--config', this.configPath], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    guard.stderr.on('data', (bytes: Buffer) => {
      this.log.push(...bytes.toString().split('\n').filter(Boolean));
    });
    this.guard = guard;
    this.#children.push(guard);
    return guard;
  }

  /** An agent in this process, which keeps every transition that it acknowledges. */
  startLink(): void {
    this.#linkStop = new AbortController();
    this.link = new GuardLink({
      socketPath: this.socketPath,
      agentBootId: 'test',
      transitionsStored: () => this.transitionsStored,
      clock: systemClock,
      log: createLogger('agent', 'silent'),
    });
    this.link.onSample(() => {
      this.samples += 1;
      this.link.progress(this.samples);
    });
    this.link.onTransition(async (transition) => {
      this.transitions.push(transition);
      this.transitionsStored = transition.transitionId ?? 0;
    });
    this.#linkDone = this.link.run(this.#linkStop.signal);
  }

  async stopLink(): Promise<void> {
    this.#linkStop.abort();
    await this.#linkDone;
  }

  /** An agent in a process of its own, which can be frozen and killed. Writes what it is told to `file`. */
  startAgentChild(file: string): ChildProcess {
    const child = spawn(process.execPath, [AGENT_CHILD, this.socketPath, file], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#children.push(child);
    return child;
  }

  /** A line for the simulated robot: `overheat 3`, `estop on`. */
  control(line: string): void {
    this.mcu.stdin?.write(`${line}\n`);
  }

  get lastState(): McuLineState | undefined {
    return this.states.at(-1);
  }

  until(what: string, holds: (status: GuardStatus) => boolean): Promise<GuardStatus> {
    return until(`${what} (now ${JSON.stringify(this.link.status())})`, () => {
      const status = this.link.status();
      return status && holds(status) ? status : undefined;
    }).catch((error: unknown) => {
      throw new Error(`${what}: ${JSON.stringify(this.link.status())}\n${this.log.slice(-8).join('\n')}`, {
        cause: error,
      });
    });
  }

  /** Recovers until it is granted, and waits for motion. */
  async recover(local = true): Promise<void> {
    const endMs = systemClock.monotonicMs() + 60_000;
    for (;;) {
      const status = this.link.status();
      const { latchId, recoverNonce } = status ?? {};
      const outcome = await this.link
        .recover({ latchId: latchId ?? 0, nonce: recoverNonce ?? '', local, requestedBy: 'test', traceId: 'trace' })
        .catch((error: unknown) => ({ done: false, detail: String(error), unmet: [] as readonly string[] }));
      if (outcome.done) break;
      if (systemClock.monotonicMs() > endMs)
        throw new Error(
          `no recovery: ${outcome.detail}: ${outcome.unmet.join('; ')}\n${this.log.slice(-8).join('\n')}`,
        );
      await sleep(20);
    }
    await until('motion', () => this.lastState?.motion === true);
  }

  async kill(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill(signal);
    await ended;
  }

  async close(): Promise<void> {
    await this.stopLink();
    for (const child of this.#children) await this.kill(child);
    rmSync(this.dir, { recursive: true, force: true });
  }
}
