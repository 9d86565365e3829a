import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { type CampaignPlan, type Failure, failTrial } from './campaign.ts';
import type { RigReply, RigScheduling, TrialData, TrialName } from './rig-child.ts';

const CHILD = fileURLToPath(new URL('./rig-child.js', import.meta.url));

/** Robots that trials are made on at the same time, each with its firmware, its guard and a process of its own. */
export class RigPool<Data extends TrialData> {
  readonly #trial: TrialName;
  readonly #scheduling: RigScheduling;
  readonly #plan: CampaignPlan;
  readonly #failures: Failure[] = [];
  #next = 0;
  #count = 0;

  constructor(trial: TrialName, scheduling: RigScheduling, plan: CampaignPlan) {
    this.#trial = trial;
    this.#scheduling = scheduling;
    this.#plan = plan;
  }

  /** Runs all trials of the plan. @param onData Called with what each good trial has measured. */
  async run(rigs: number, onData: (data: Data) => void): Promise<{ count: number; failures: Failure[] }> {
    await Promise.all(Array.from({ length: Math.min(rigs, this.#plan.count) }, () => this.#worker(onData)));
    return { count: this.#count, failures: this.#failures };
  }

  async #worker(onData: (data: Data) => void): Promise<void> {
    while (this.#next < this.#plan.count && !this.#plan.signal.aborted) {
      const child = fork(CHILD, [this.#trial, this.#scheduling], { execArgv: [] });
      try {
        await this.#feed(child, onData);
      } finally {
        await end(child);
      }
    }
  }

  /** Until there is nothing left to do, or the child is gone. */
  async #feed(child: ChildProcess, onData: (data: Data) => void): Promise<void> {
    const gone = once(child, 'exit').then(() => undefined);
    const answer = async (): Promise<RigReply | undefined> =>
      await Promise.race([once(child, 'message').then(([reply]) => reply as RigReply), gone]);
    if (!(await answer())) throw new Error('a rig could not be started');
    while (this.#next < this.#plan.count && !this.#plan.signal.aborted) {
      const seed = this.#plan.seed + this.#next;
      this.#next += 1;
      child.send(seed);
      const reply = await answer();
      if (reply?.data) onData(reply.data as Data);
      else failTrial(this.#plan, this.#failures, seed, reply?.what ?? 'the process of the rig died');
      this.#told();
      if (!reply) return;
    }
  }

  #told(): void {
    const { count, say } = this.#plan;
    this.#count += 1;
    if (this.#count % Math.max(1, Math.floor(count / 20)) === 0)
      say(`${this.#count} of ${count}, ${this.#failures.length} failed`);
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.disconnect();
  const insist = setTimeout(() => child.kill('SIGKILL'), 15_000);
  await gone;
  clearTimeout(insist);
}
