import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { errorMessage } from '@outrider/shared/errors';

/** Priority among SCHED_FIFO processes: above every ordinary program, below the kernel's own threads (50). */
const FIFO_PRIORITY = 10;
/** Nearly never killed when memory runs out; the agent goes first. */
const OOM_SCORE_ADJ = -900;

/** What the machine granted; problems say what would be needed. */
export interface Scheduling {
  readonly policy: 'fifo' | 'other';
  readonly problems: readonly string[];
}

/**
 * Asks for SCHED_FIFO on all threads of this process (the serial port's bytes pass through Node's worker threads)
 * and for a low rank among the victims of a full memory. Works without either, later and less surely.
 */
export async function requestScheduling(wanted: 'auto' | 'fifo' | 'other'): Promise<Scheduling> {
  const problems: string[] = [];
  try {
    await writeFile('/proc/self/oom_score_adj', String(OOM_SCORE_ADJ));
  } catch (error) {
    problems.push(`oom_score_adj stays: ${errorMessage(error)} (OOMScoreAdjust=${OOM_SCORE_ADJ} in the systemd unit)`);
  }
  if (wanted === 'other') return { policy: 'other', problems };
  const failure = await runChrt();
  if (failure === undefined) return { policy: 'fifo', problems };
  problems.push(`no SCHED_FIFO: ${failure} (CPUSchedulingPolicy=fifo in the systemd unit, or CAP_SYS_NICE)`);
  return { policy: 'other', problems };
}

function runChrt(): Promise<string | undefined> {
  return new Promise((resolve) => {
    const args = ['--all-tasks', '--fifo', '--pid', String(FIFO_PRIORITY), String(process.pid)];
    const child = spawn('chrt', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (bytes: Buffer) => {
      said += bytes.toString();
    });
    child.on('error', (error) => resolve(errorMessage(error)));
    child.on('close', (code) => resolve(code === 0 ? undefined : said.trim() || `chrt ended with ${code}`));
  });
}
