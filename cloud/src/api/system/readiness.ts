/** One thing that must work for the server to be of use. */
export interface Check {
  readonly name: string;
  /** Resolves when it works. @throws with the reason, which is shown to whoever asks. */
  run(): Promise<void>;
}

const CHECK_TIMEOUT_MS = 2_000;
/** Answers are kept so long, so that probes cannot load the database. */
const KEEP_MS = 500;

export interface ReadinessReport {
  readonly isReady: boolean;
  readonly checks: Readonly<Record<string, { readonly status: 'ok' | 'failed'; readonly reason?: string }>>;
}

/** Asks every part whether it works. */
export class Readiness {
  readonly #checks: readonly Check[];
  readonly #nowMs: () => number;
  #last: { report: Promise<ReadinessReport>; untilMs: number } | undefined;
  #isStopping = false;

  constructor(checks: readonly Check[], nowMs: () => number) {
    this.#checks = checks;
    this.#nowMs = nowMs;
  }

  /** From here on the server is not ready: it is going down and wants no new work. */
  stop(): void {
    this.#isStopping = true;
    this.#last = undefined;
  }

  report(): Promise<ReadinessReport> {
    const nowMs = this.#nowMs();
    if (!this.#last || this.#last.untilMs <= nowMs) this.#last = { report: this.#ask(), untilMs: nowMs + KEEP_MS };
    return this.#last.report;
  }

  async #ask(): Promise<ReadinessReport> {
    const checks: Record<string, { status: 'ok' | 'failed'; reason?: string }> = {};
    await Promise.all(
      this.#checks.map(async (check) => {
        try {
          await within(check.run(), CHECK_TIMEOUT_MS);
          checks[check.name] = { status: 'ok' };
        } catch (error) {
          checks[check.name] = { status: 'failed', reason: reasonOf(error) };
        }
      }),
    );
    if (this.#isStopping) checks['process'] = { status: 'failed', reason: 'shutting down' };
    return { isReady: Object.values(checks).every(({ status }) => status === 'ok'), checks };
  }
}

async function within(work: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Anybody may read this, so a driver's message, which can hold host names, is not passed on. */
const reasonOf = (error: unknown): string =>
  error instanceof Error && error.message.startsWith('no answer') ? error.message : 'does not answer';
