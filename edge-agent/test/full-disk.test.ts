import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { AgentStatus } from '../src/local-api/status.ts';
import { precede, rigProblem } from './guard-rig.ts';
import { exited, until } from './uplink-rig.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const FIRMWARE = join(ROOT, 'firmware-bridge/firmware/build/outrider-mcu');
const EDGE = join(ROOT, 'edge-agent/bin/outrider-edge.js');

/** A disk of its own; `undefined` where none can be had. */
function ownDisk(home: string): string | undefined {
  const disk = join(home, 'disk');
  mkdirSync(disk);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk], { stdio: 'ignore' });
    return disk;
  } catch {
    return undefined;
  }
}

const home = mkdtempSync(join(tmpdir(), 'full-'));
const disk = rigProblem === undefined ? ownDisk(home) : undefined;
t.teardown(() => {
  if (disk) execFileSync('umount', ['-l', disk]);
  rmSync(home, { recursive: true, force: true });
});
const skip = rigProblem ?? (disk ? false : 'a disk of its own needs the right to mount one');

t.test(
  'a disk that is full before the first start: the guard runs, and all goes on when there is room',
  { skip },
  async (t) => {
    const state = join(disk ?? '', 'state');
    mkdirSync(state);
    const mcu = spawn(FIRMWARE, ['--link', join(home, 'tty')], { stdio: ['pipe', 'ignore', 'inherit'] });
    precede(mcu.pid);
    t.teardown(async () => {
      mcu.kill('SIGKILL');
      await exited(mcu);
    });
    writeFileSync(join(home, 'ca.pem'), '');
    const config = {
      robot: { id: 'RB-1' },
      state_dir: state,
      cloud: { http_url: 'https://localhost:1', ca_file: 'ca.pem' },
      sources: [{ type: 'serial', path: join(home, 'tty') }],
      outbox: { size_max_mb: 4 },
    };
    // JSON is YAML.
    writeFileSync(join(home, 'edge.yaml'), JSON.stringify(config));
    const fill = join(disk ?? '', 'somebody-else');
    const { bavail, bsize } = statfsSync(disk ?? '');
    writeFileSync(fill, Buffer.alloc(bavail * bsize));

    const agent = spawn(process.execPath, [EDGE, 'run', '--config', join(home, 'edge.yaml')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    t.teardown(async () => {
      agent.kill('SIGTERM');
      await exited(agent);
    });
    let log = '';
    agent.stderr.on('data', (bytes: Buffer) => {
      log += bytes.toString();
    });
    const status = (): Promise<AgentStatus | undefined> =>
      new Promise((resolve) => {
        const request = get({ socketPath: join(state, 'edge.sock'), path: '/status' }, (response) => {
          let text = '';
          response.on('data', (bytes: Buffer) => {
            text += bytes.toString();
          });
          response.on('end', () => resolve(JSON.parse(text) as AgentStatus));
        });
        request.on('error', () => resolve(undefined));
      });
    await until('it says what is wrong', () => /is full: free some space/.test(log));
    await until('its guard has the microcontroller', () => /mcu\.connected/.test(log) && /guard\.connected/.test(log));
    t.equal(agent.exitCode, null);
    t.equal(await status(), undefined, 'nothing can be recorded yet');
    rmSync(fill);
    let now: AgentStatus | undefined;
    await until('samples are on disk', async () => {
      now = await status();
      return (now?.outbox.samples_committed ?? 0) > 0;
    });
    t.match(now?.failsafe, { gate_open: false, phase: 'LATCHED' });
    t.equal(now?.outbox.full, false);
  },
);
