import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { Backoff } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { GuardConfig } from './guard-config.ts';

const RESPAWN_MS_FIRST = 200;
const RESPAWN_MS_MAX = 10_000;
/** A guard that lived this long had started well. [ms] */
const SETTLED_MS = 5000;
/**
 * Four megabytes of garbage at a time: about one collection a second, of half a millisecond, and 10 MB less memory than
 * left alone. So little is not worth waking four helpers for. In real time they would even stand still on a single
 * processor, because the main thread asks for their results again and again and never gives way to them. The package's
 * launcher (packaging/outrider-edge.sh) says the same.
 */
export const GUARD_FLAGS: readonly string[] = [
  '--single-threaded-gc',
  '--min-semi-space-size=4',
  '--max-semi-space-size=4',
];

/** Starts guard processes, one at a time and not too often. */
export class GuardProcess {
  readonly #config: GuardConfig;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #backoff = new Backoff(RESPAWN_MS_FIRST, RESPAWN_MS_MAX);
  #child: ChildProcess | undefined;
  #startedMs = 0;
  #notBeforeMs = 0;

  constructor(config: GuardConfig, clock: Clock, log: Logger) {
    this.#config = config;
    this.#clock = clock;
    this.#log = log;
  }

  /** Starts a guard unless one of ours still runs or the last one died a moment ago. */
  startIfGone(): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#child || nowMs < this.#notBeforeMs) return;
    const entry = fileURLToPath(new URL('./main.js', import.meta.url));
    // Detached: whatever ends the agent, Ctrl-C included, must leave the guard to notice it and stop the robot.
    const child = spawn(process.execPath, [...GUARD_FLAGS, entry, '--config-fd', '3'], {
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
    });
    const pipe = child.stdio[3];
    if (pipe && 'end' in pipe) {
      pipe.on('error', () => {});
      pipe.end(JSON.stringify(this.#config));
    }
    this.#child = child;
    this.#startedMs = nowMs;
    child.on('error', (error) => this.#ended(errorMessage(error)));
    child.on('exit', (code, signal) => this.#ended(`code ${code}, signal ${signal}`));
    child.unref();
    this.#log.info({ guardPid: child.pid }, 'guard.spawned');
  }

  #ended(how: string): void {
    if (!this.#child) return;
    this.#child = undefined;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#startedMs > SETTLED_MS) this.#backoff.reset();
    this.#notBeforeMs = nowMs + this.#backoff.nextMs();
    this.#log.warn({ how }, 'guard.exited');
  }
}
