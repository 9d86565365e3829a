import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { pause } from '@outrider/shared/service';

/** What to start, and what its death means. */
export interface ChildPlan {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly logFile: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called with each new process id, the first included. */
  readonly onPid?: (pid: number) => void;
}

const RESTART_DELAY_MS = 500;
const STOP_PATIENCE_MS = 15_000;

/**
 * A program that is started again whenever it ends by itself, as systemd would do it, until it is told to stop.
 * Its output goes to its log file.
 */
export class SupervisedChild {
  readonly #plan: ChildPlan;
  readonly #say: (line: string) => void;
  readonly #log: WriteStream;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #child: ChildProcess | undefined;
  #diedEarly: string | undefined;

  constructor(plan: ChildPlan, say: (line: string) => void) {
    this.#plan = plan;
    this.#say = say;
    this.#log = createWriteStream(plan.logFile, { flags: 'a' });
    this.#ended = this.#keepRunning();
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** How the last process ended, when it ended by itself. */
  get lastDeath(): string | undefined {
    return this.#diedEarly;
  }

  /** Asks it to end, insists after 15 s, and resolves when it is gone. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#child?.kill('SIGTERM');
    const insist = setTimeout(() => this.#child?.kill('SIGKILL'), STOP_PATIENCE_MS);
    await this.#ended;
    clearTimeout(insist);
    this.#log.end();
  }

  async #keepRunning(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const child = spawn(this.#plan.command, this.#plan.args, {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, ...this.#plan.env },
      });
      this.#child = child;
      child.stdout.pipe(this.#log, { end: false });
      child.stderr.pipe(this.#log, { end: false });
      if (child.pid !== undefined) this.#plan.onPid?.(child.pid);
      const how = await new Promise<string>((resolve) => {
        child.on('error', (error) => resolve(error.message));
        child.on('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
      });
      if (this.#stop.signal.aborted) return;
      this.#diedEarly = how;
      this.#say(`${this.#plan.name} ended (${how}); starting it again. Its log: ${this.#plan.logFile}`);
      await pause(RESTART_DELAY_MS, this.#stop.signal);
    }
  }
}
