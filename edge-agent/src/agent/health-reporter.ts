import { statfsSync } from 'node:fs';
import type { outrider } from '@outrider/shared/messages';
import { pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { CommWish } from './mission.ts';

/** Several times within the time after which a link counts as lost. [ms] */
const REPORT_MS = 500;
/** A disk fills slowly, and asking a full disk may take its time. [ms] */
const LOOK_MS = 5000;

export interface HealthReporterOptions {
  readonly stateDir: string;
  readonly clock: Clock;
  /** Whether this robot has a link at all, and whether it is up now. */
  readonly link: () => { readonly exists: boolean; readonly isUp: boolean };
  /** What the running mission asks for when the link is lost. */
  readonly mission: () => CommWish | undefined;
  readonly clockQuality: () => string;
  readonly report: (health: outrider.v1.AgentHealth.$Properties) => void;
}

/** Tells the guard what only the agent can see: link, disk, clock. */
export class HealthReporter implements Service {
  readonly name = 'health-reporter';
  readonly #options: HealthReporterOptions;
  #heardMs: number;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #diskFreeBytes = Number.NaN;

  constructor(options: HealthReporterOptions) {
    this.#options = options;
    this.#heardMs = options.clock.monotonicMs();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.report();
      await pause(REPORT_MS, signal);
    }
  }

  report(): void {
    const { clock, link, mission, clockQuality, report } = this.#options;
    const nowMs = clock.monotonicMs();
    const { exists, isUp } = link();
    const comm = mission();
    if (isUp) this.#heardMs = nowMs;
    if (nowMs - this.#lookedMs >= LOOK_MS) this.#look(nowMs);
    report({
      hasLink: exists,
      linkUp: isUp,
      linkAgeMs: nowMs - this.#heardMs,
      diskFreeBytes: this.#diskFreeBytes,
      clockQuality: clockQuality(),
      ...(comm && { commPolicy: comm.policy, commMaxMs: comm.maxMs }),
    });
  }

  #look(nowMs: number): void {
    this.#lookedMs = nowMs;
    try {
      const { bavail, bsize } = statfsSync(this.#options.stateDir);
      this.#diskFreeBytes = bavail * bsize;
    } catch {
      this.#diskFreeBytes = Number.NaN;
    }
  }
}
