import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { pause } from '@outrider/shared/service';
import { end } from './robot.ts';

const CHILD = fileURLToPath(new URL('./load-child.js', import.meta.url));
const WARM_UP_MS = 2000;

/** Does something while SQLite commits, MQTT publishes and both cores of a small computer are busy with it. */
export async function underLoad<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const children = ['disk', 'mqtt'].map((kind) => fork(CHILD, [kind, directory], { execArgv: [] }));
  try {
    await pause(WARM_UP_MS, new AbortController().signal);
    return await work();
  } finally {
    await Promise.all(children.map((child) => end(child, 'SIGKILL')));
  }
}
