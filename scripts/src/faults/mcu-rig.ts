import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { GuardLink, type GuardStatus, type Transition } from '@outrider/edge-agent/guard/guard-link';
import { commissionLatchStore } from '@outrider/edge-agent/guard/latch-store';
import { CAUSE_IDS } from '@outrider/shared/failsafe/rules';
import { systemClock } from '@outrider/shared/time';
import { repositoryRoot } from '../stack.ts';
import type { StopNote } from './guard-turns.ts';
import { BODY_SETTINGS, RobotBody } from './robot-body.ts';
import { newDiskFolder, openOutbox, removeFolder, silent } from './sim-edge.ts';

const FIRMWARE = join(repositoryRoot, 'firmware-bridge/firmware/build/outrider-mcu');
const GUARD = join(repositoryRoot, 'edge-agent/dist/src/guard/main.js');
const SICKNESS = fileURLToPath(new URL('./sick-guard.js', import.meta.url));

/** Why the rig cannot run here; `false` when it can. */
export const noFirmware: string | false = existsSync(FIRMWARE) ? false : 'the firmware is not built';

/** A change of state that the firmware printed; `mono_us` is CLOCK_MONOTONIC. */
export interface McuChange {
  readonly state: string;
  readonly reason: string;
  readonly motion: boolean;
  readonly mono_us: number;
}

/** What the firmware answered to a control line. */
interface McuAnswer {
  readonly ok: boolean;
  readonly problem?: string;
  readonly mono_us: number;
}

/** Whether this user may schedule in real time. */
export const canSchedule = spawnSync('chrt', ['--fifo', '1', 'true']).status === 0;
const DWELL_MS = 20;
/** Joints that trials are made with; the firmware's own names. */
export const MCU_JOINTS = ['yaw', 'roll', 'pitch'].flatMap((axis) => [`left_hip_${axis}`, `right_hip_${axis}`]);
MCU_JOINTS.push('left_knee_pitch', 'right_knee_pitch', 'waist_yaw', 'waist_roll', 'left_elbow', 'neck_yaw');
const MCU_LIMITS = { position_min_rad: -2, position_max_rad: 2, velocity_max_radps: 6, effort_max_nm: 60 };
const PATIENCE_MS = 10_000;
/** A machine that is busy enough keeps a guard from starting and a robot from being let go; that is not what is tried. */
const RECOVERY_PATIENCE_MS = 120_000;

/** The real firmware on a pty, the real guard process, and in this process an agent that keeps what it hears. */
export class McuRig {
  readonly changes: McuChange[] = [];
  readonly transitions: Transition[] = [];
  readonly log: string[] = [];
  /** The last stops that the guard wrote to the line. */
  readonly stops: StopNote[] = [];
  readonly #controls: McuAnswer[] = [];
  link!: GuardLink;
  guard!: ChildProcess;
  /** What the agent itself measures. */
  body!: RobotBody;
  readonly #dir = newDiskFolder('mcu');
  readonly #outbox = openOutbox(join(this.#dir, 'outbox'), systemClock, 64 * 1024 * 1024);
  readonly #stop = new AbortController();
  readonly #preloads: readonly string[];
  #mcu: ChildProcess | undefined;
  #linkDone: Promise<void> = Promise.resolve();
  #outboxDone: Promise<void> = Promise.resolve();
  #samples = 0;
  #stored = 0;

  private constructor(preloads: readonly string[]) {
    this.#preloads = [SICKNESS, ...preloads];
  }

  /** @param preloads Modules that the guard's process loads before its program. */
  static async start(scheduling: 'fifo' | 'other' | 'auto', preloads: readonly string[] = []): Promise<McuRig> {
    const rig = new McuRig(preloads);
    try {
      await rig.#startMcu();
      const config = {
        robot: { id: 'RB-FAULTS' },
        state_dir: rig.#dir,
        sources: [{ type: 'serial', path: rig.#line, baud: 921_600 }],
        // Every limit as it is by default; only waiting for a recovery is short.
        failsafe: {
          accept_looser: true,
          looser_reason: 'a simulated robot that is recovered thousands of times',
          clear_dwell_ms: Object.fromEntries(CAUSE_IDS.map((cause) => [cause, DWELL_MS])),
          ...BODY_SETTINGS,
          joints: { ...BODY_SETTINGS.joints, ...Object.fromEntries(MCU_JOINTS.map((name) => [name, MCU_LIMITS])) },
        },
        guard: { scheduling },
      };
      writeFileSync(rig.#configPath, JSON.stringify(config));
      await commissionLatchStore(join(rig.#dir, 'latches'));
      rig.startGuard();
      rig.#startAgent();
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  get #line(): string {
    return join(this.#dir, 'tty');
  }

  get #configPath(): string {
    return join(this.#dir, 'edge.yaml');
  }

  get lastChange(): McuChange | undefined {
    return this.changes.at(-1);
  }

  startGuard(): void {
    const preloads = this.#preloads.flatMap((path) => ['--import', path]);
    const guard = spawn(process.execPath, [...preloads, GUARD, '--config', this.#configPath], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    createInterface({ input: guard.stderr }).on('line', (line) => {
      if (line.startsWith('{"probe":"stop"')) this.stops.push(JSON.parse(line) as StopNote);
      else this.log.push(line);
      for (const list of [this.stops, this.log]) list.splice(0, Math.max(0, list.length - 50));
    });
    this.guard = guard;
  }

  async endGuard(): Promise<void> {
    if (this.guard.exitCode !== null || this.guard.signalCode !== null) return;
    const gone = once(this.guard, 'exit');
    this.guard.kill('SIGKILL');
    await gone;
  }

  /** Takes the name of the line away, so that nobody opens it again, or gives it back. */
  hideLine(isHidden: boolean): void {
    const hidden = `${this.#line}.hidden`;
    if (isHidden) renameSync(this.#line, hidden);
    else if (existsSync(hidden)) renameSync(hidden, this.#line);
  }

  /** A line for the simulated robot: `overheat 3`, `estop on`. @returns When it was done. [µs] */
  async control(line: string): Promise<number> {
    const seen = this.#controls.length;
    this.#mcu?.stdin?.write(`${line}\n`);
    const done = await this.until(`the answer to ${line}`, () => this.#controls[seen]);
    this.#controls.length = 0;
    if (!done.ok) throw new Error(`${line}: ${done.problem}`);
    return done.mono_us;
  }

  /** Polls until something is there. @throws Error that names what did not come. */
  async until<T>(what: string, look: () => T | undefined | false, patienceMs = PATIENCE_MS): Promise<T> {
    const endMs = systemClock.monotonicMs() + patienceMs;
    for (;;) {
      const found = look();
      if (found !== undefined && found !== false) return found;
      if (systemClock.monotonicMs() > endMs)
        throw new Error(
          `waited ${patienceMs} ms for ${what}; MCU ${JSON.stringify(this.lastChange)}, guard ` +
            `${JSON.stringify(this.link.status())}\n${this.log.slice(-6).join('\n')}`,
        );
      await sleep(2);
    }
  }

  untilStatus(what: string, holds: (status: GuardStatus) => boolean): Promise<GuardStatus> {
    const look = (): GuardStatus | undefined => {
      const status = this.link.status();
      return status && holds(status) ? status : undefined;
    };
    return this.until(what, look, RECOVERY_PATIENCE_MS);
  }

  /** Recovers until the robot moves. What the load has stopped before it was seen to move is recovered again. */
  async recover(): Promise<void> {
    const endMs = systemClock.monotonicMs() + RECOVERY_PATIENCE_MS;
    for (;;) {
      const { latchId, recoverNonce, phase } = this.link.status() ?? {};
      if (phase === 'ARMED' && this.lastChange?.motion === true) return;
      const outcome = await this.link
        .recover({ latchId: latchId ?? 0, nonce: recoverNonce ?? '', local: true, requestedBy: 'faults', traceId: '' })
        .catch((error: unknown) => ({ done: false, detail: String(error), unmet: [] as readonly string[] }));
      if (outcome.done && (await this.#hasMoved())) return;
      if (systemClock.monotonicMs() > endMs)
        throw new Error(
          `no recovery: ${outcome.detail}: ${outcome.unmet.join('; ')}\n${this.log.slice(-6).join('\n')}`,
        );
      await sleep(10);
    }
  }

  /** Waits until the robot moves; false when it was stopped again before that was seen. */
  async #hasMoved(): Promise<boolean> {
    return await this.until('motion', () => {
      if (this.lastChange?.motion === true) return 'moves';
      return this.link.status()?.phase === 'LATCHED' && 'stopped';
    }).then((how) => how === 'moves');
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.body?.close();
    await this.#linkDone;
    await this.#outboxDone;
    this.#outbox.close();
    if (this.guard) await this.endGuard();
    if (this.#mcu && this.#mcu.exitCode === null && this.#mcu.signalCode === null) {
      const gone = once(this.#mcu, 'exit');
      this.#mcu.kill('SIGKILL');
      await gone;
    }
    removeFolder(this.#dir);
  }

  async #startMcu(): Promise<void> {
    // A microcontroller does not share its core with the load: the simulated one goes before it where that is allowed.
    const [command, ...first] = canSchedule ? ['chrt', '--fifo', '30', FIRMWARE] : [FIRMWARE];
    const mcu = spawn(command as string, [...first, '--link', this.#line], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#mcu = mcu;
    createInterface({ input: mcu.stdout }).on('line', (line) => {
      const said = JSON.parse(line) as McuChange & McuAnswer & { readonly event: string };
      if (said.event === 'state') this.changes.push(said);
      if (said.event === 'control') this.#controls.push(said);
    });
    await this.until('the pty', () => existsSync(this.#line));
  }

  /** An agent that writes every sample and every transition to its outbox, as the real one does. */
  #startAgent(): void {
    this.link = new GuardLink({
      socketPath: join(this.#dir, 'guard.sock'),
      agentBootId: 'faults',
      transitionsStored: () => this.#stored,
      clock: systemClock,
      log: silent,
    });
    this.link.onSample((sample) => {
      this.#outbox.appendSample(sample);
      this.#samples += 1;
      this.link.progress(this.#samples);
    });
    this.body = new RobotBody((sample) => {
      this.#outbox.appendSample(sample);
      this.link.report(sample);
    });
    this.link.onTransition(async (transition) => {
      this.transitions.push(transition);
      this.#stored = transition.transitionId ?? 0;
    });
    this.#linkDone = this.link.run(this.#stop.signal);
    this.#outboxDone = this.#outbox.run(this.#stop.signal);
  }
}
