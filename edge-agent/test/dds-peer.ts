import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Test } from 'tap';

const run = promisify(execFile);
const FOLDER = fileURLToPath(new URL('../../test/dds-peer', import.meta.url));
const BUILD_TIMEOUT_MS = 170_000;

/** The peer, once `buildDdsPeer` has made it. */
export const DDS_PEER = join(FOLDER, 'build', 'peer');

/** What the peer cannot be built without, or nothing. */
export async function missingDdsTools(): Promise<string | undefined> {
  const checks: [string, string[], string][] = [
    ['fastddsgen', ['-version'], 'fastddsgen'],
    [
      'g++',
      ['-fsyntax-only', '-x', 'c++', '-include', 'fastdds/dds/domain/DomainParticipant.hpp', '/dev/null'],
      'libfastrtps-dev',
    ],
    ['make', ['--version'], 'make'],
  ];
  for (const [command, args, debianPackage] of checks)
    try {
      await run(command, args);
    } catch {
      return `${debianPackage} is missing: apt-get install g++ make libfastrtps-dev fastddsgen`;
    }
  return undefined;
}

export async function buildDdsPeer(): Promise<void> {
  await run('make', ['-C', FOLDER, `-j${availableParallelism()}`, 'build/peer'], { timeout: BUILD_TIMEOUT_MS });
}

/** A peer that ends with the test. */
export function spawnDdsPeer(t: Test, ...args: readonly string[]): ChildProcess {
  const peer = spawn(DDS_PEER, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  t.teardown(async () => {
    const ended = new Promise((resolve) => peer.once('exit', resolve));
    peer.stdin?.end();
    if (peer.exitCode === null && peer.signalCode === null) await ended;
  });
  return peer;
}

/** Waits until a peer says its first word, that it is ready. */
export async function ddsPeerReady(peer: ChildProcess): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let errors = '';
    peer.stderr?.on('data', (chunk) => {
      errors += String(chunk);
    });
    peer.stdout?.once('data', () => resolve());
    peer.once('exit', (code) => reject(new Error(`the peer ended with ${code}: ${errors}`)));
  });
}
