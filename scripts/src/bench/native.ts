import { execFile, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { errorMessage } from '@outrider/shared/errors';
import { repositoryRoot } from '../stack.ts';
import { RowSkipped } from './measure.ts';

const run = promisify(execFile);
const SOURCES = join(repositoryRoot, 'scripts/bench-c');
const FIRMWARE = join(repositoryRoot, 'firmware-bridge/firmware');
const FIRMWARE_SOURCES = ['host/main.c', 'host/sim.c', 'host/line.c', 'host/control.c']
  .concat('core/wire.c', 'core/mcu.c', 'core/telemetry.c')
  .map((file) => join(FIRMWARE, file));
const WRAPPED = ['sim_read', 'sim_actuate', 'line_send', 'line_receive'];

/** Builds the C echo. @returns The program's path. */
export const buildEcho = (directory: string): Promise<string> =>
  compile(join(directory, 'pty-echo'), [join(SOURCES, 'pty-echo.c')]);

/** Builds the firmware program with a stopwatch around it. @returns The program's path. */
export const buildStopProbe = (directory: string): Promise<string> =>
  compile(join(directory, 'stop-probe'), [
    '-DOUTRIDER_FAULTS',
    join(SOURCES, 'stop-probe.c'),
    ...FIRMWARE_SOURCES,
    ...WRAPPED.map((name) => `-Wl,--wrap=${name}`),
    '-lm',
  ]);

async function compile(out: string, args: readonly string[]): Promise<string> {
  try {
    await run('cc', ['-std=c11', '-O2', '-o', out, ...args]);
    return out;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
      throw new RowSkipped('there is no C compiler (apt-get install build-essential)');
    throw new Error(`cc: ${errorMessage(error)}`);
  }
}

/** @throws RowSkipped when this user may not use SCHED_FIFO. */
export function needFifo(): void {
  const { error, status } = spawnSync('chrt', ['--fifo', '1', 'true']);
  if (error || status !== 0) throw new RowSkipped('this user may not use SCHED_FIFO (run as root, or CAP_SYS_NICE)');
}
