import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

/** The process that serves a robot's guard socket, as the kernel knows it; `undefined`: none does now. */
export function guardPid(robot: { readonly home: string }): number | undefined {
  const path = join(robot.home, 'state', 'guard.sock');
  // The name that it was bound to; it is put in place with another one behind it.
  // Num RefCount Protocol Flags Type St Inode Path; 01 is a socket that listens.
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n');
  const fields = lines.map((line) => line.split(/\s+/)).find((line) => line[7]?.startsWith(path) && line[5] === '01');
  if (fields === undefined) return undefined;
  return readdirSync('/proc')
    .map(Number)
    .find((pid) => Number.isInteger(pid) && holds(pid, `socket:[${fields[6]}]`));
}

function holds(pid: number, target: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === target);
  } catch {
    // It has ended, or closed one meanwhile.
    return false;
  }
}
