import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { pause } from '@outrider/shared/service';
import { end } from './robot.ts';

const CHILD = fileURLToPath(new URL('./load-child.js', import.meta.url));
const WARM_UP_MS = 2000;

/** What a process of the load does without a pause. */
export type LoadKind = 'cpu' | 'disk' | 'mqtt';

/** Starts a process that does one thing without a pause until it is killed or this process ends. */
export const startLoad = (kind: LoadKind, directory: string, nice = 0): ChildProcess =>
  fork(CHILD, [kind, directory, String(nice)], { execArgv: [] });

/** Does something while SQLite commits, MQTT publishes and both cores of a small computer are busy with it. */
export async function underLoad<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const children = (['disk', 'mqtt'] as const).map((kind) => startLoad(kind, directory));
  try {
    await pause(WARM_UP_MS, new AbortController().signal);
    return await work();
  } finally {
    await Promise.all(children.map((child) => end(child, 'SIGKILL')));
  }
}
