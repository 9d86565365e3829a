import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommandDesk } from '@outrider/edge-agent/commands/command-desk';
import { CommandLog } from '@outrider/edge-agent/commands/command-log';
import { TrustedKeys } from '@outrider/edge-agent/commands/trusted-keys';
import { IdentityStore } from '@outrider/edge-agent/enroll/identity';
import { Outbox } from '@outrider/edge-agent/outbox/outbox';
import type { LaneName, StoredRecord } from '@outrider/edge-agent/outbox/records';
import { Session } from '@outrider/edge-agent/uplink/session';
import { createLogger } from '@outrider/shared/log';
import type { Sample, StreamLayout } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import type { Random } from './random.ts';
import type { SimNetwork } from './sim-network.ts';

const DEVICE = { tenantId: 'default', robotId: 'SIM-1' };
/** In memory where the machine has such a folder: an fsync costs nothing there, and kills lose nothing either. */
const FAST_FOLDER = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export const silent = createLogger('faults', 'silent');
export const newFolder = (name: string): string => mkdtempSync(join(FAST_FOLDER, `outrider-${name}-`));
/** A folder on the disk, where an fsync costs what it costs. */
export const newDiskFolder = (name: string): string => mkdtempSync(join(tmpdir(), `outrider-${name}-`));
export const removeFolder = (dir: string): void => rmSync(dir, { recursive: true, force: true });

/** Noise that nothing compresses away; `index` makes the sample unique. */
export function noiseSample(layout: StreamLayout, index: number, random: Random): Sample {
  const at = 1_790_000_000_000_000_000n + BigInt(index) * 20_000_000n;
  const values = new Float64Array(layout.fields.reduce((sum, { width }) => sum + width, 0));
  for (let i = 0; i < values.length; i += 1) values[i] = random.next() * 6 - 3;
  return { layout, stampNs: at, receivedNs: at + 1n, receivedMonoNs: BigInt(index) * 20_000_000n, flags: 0, values };
}

export function noiseLayout(stream: string, joints: number): StreamLayout {
  const names = Array.from({ length: joints }, (_, i) => `q${i}`);
  const fields = ['position', 'velocity', 'effort'].map((name) => ({ name, width: joints }));
  return { stream, kind: 'joint_state', names, fields, tags: {}, declaredRateHz: 50 };
}

export function openOutbox(stateDir: string, clock: Clock, sizeMaxBytes: number, bootId = 'b007'): Outbox {
  return new Outbox({
    stateDir,
    sizeMaxBytes,
    commitIntervalMs: 50,
    flushIntervalMs: 250,
    flushIntervalOfflineMs: 1000,
    bootId,
    log: silent,
    clock,
  });
}

/** Everything a lane holds after a position. */
export function readLane(outbox: Outbox, lane: LaneName, after = 0): StoredRecord[] {
  const all: StoredRecord[] = [];
  for (let from = after; ; ) {
    const records = outbox.next(lane, from, 256 * 1024);
    const last = records.at(-1);
    if (!last) return all;
    all.push(...records);
    from = Math.max(last.seq, last.seqTo);
  }
}

/** A robot's outbox and uplink session on virtual time, which can die at any moment. */
export class SimEdge {
  outbox: Outbox;
  session: Session | undefined;
  crashes = 0;
  connections = 0;
  readonly #clock: Clock;
  readonly #network: SimNetwork;
  readonly #sizeMaxBytes: number;
  readonly #commandDir = newFolder('sim-commands');
  readonly #commands: CommandDesk;
  readonly #copies: string[] = [];
  #dir = newFolder('sim');
  #link: ReturnType<SimNetwork['open']> | undefined;
  #reconnectAtMs = 0;

  constructor(clock: Clock, network: SimNetwork, sizeMaxBytes: number) {
    this.#clock = clock;
    this.#network = network;
    this.#sizeMaxBytes = sizeMaxBytes;
    this.outbox = openOutbox(this.#dir, clock, sizeMaxBytes);
    this.#commands = new CommandDesk({
      device: DEVICE,
      keys: new TrustedKeys(new IdentityStore(this.#commandDir), () => undefined),
      commands: CommandLog.open(this.#commandDir, silent),
      target: undefined,
      record: (event) => this.outbox.appendEvent(event),
      clock,
      log: silent,
    });
  }

  /** Connects when it is time to, and lets the session look at its timeouts. */
  step(random: Random): void {
    if (this.#link && !this.#link.isOpen) this.disconnect(random);
    if (this.#link) {
      this.session?.checkTimeouts();
      return;
    }
    if (this.#clock.monotonicMs() < this.#reconnectAtMs) return;
    const link = this.#network.open();
    this.#link = link;
    const session = new Session(
      {
        device: DEVICE,
        bootId: 'b007',
        agentVersion: '0.0.0',
        window: 4,
        ackTimeoutMs: 5000,
        // Real time, which does not pass here: a lost hello ends with the connection instead.
        helloTimeoutMs: 2_000_000_000,
        outbox: this.outbox,
        commands: this.#commands,
        clock: this.#clock,
        log: silent,
        onAck: () => undefined,
      },
      link,
    );
    this.session = session;
    this.connections += 1;
    const opening = new AbortController();
    void session.open(false, opening.signal).then(
      () => session.pump(),
      () => link.destroy(),
    );
  }

  receive(topic: string, payload: Uint8Array): void {
    if (this.#link?.isOpen) this.session?.receive(topic, payload, false);
  }

  disconnect(random: Random): void {
    this.#link?.destroy();
    this.session?.close();
    this.session = undefined;
    this.#link = undefined;
    this.#reconnectAtMs = this.#clock.monotonicMs() + random.int(100, 4000);
  }

  /** Kills the process: what was not committed is gone, and the journal's end may be garbage. */
  crash(random: Random): void {
    this.disconnect(random);
    this.crashes += 1;
    const next = newFolder('sim');
    copyDatabase(this.#dir, next);
    if (random.chance(0.5)) tearJournal(join(next, 'outbox.db-wal'), random);
    this.outbox.close();
    removeFolder(this.#dir);
    this.#dir = next;
    this.outbox = openOutbox(next, this.#clock, this.#sizeMaxBytes);
  }

  /** A copy of the files as they are now. */
  snapshot(): string {
    const copy = newFolder('sim-copy');
    copyDatabase(this.#dir, copy);
    this.#copies.push(copy);
    return copy;
  }

  /** The robot comes back with another database: a copy, or none. */
  replaceBy(folder: string | undefined): void {
    this.#link?.destroy();
    this.session?.close();
    this.session = undefined;
    this.#link = undefined;
    this.outbox.close();
    removeFolder(this.#dir);
    this.#dir = newFolder('sim');
    if (folder !== undefined) copyDatabase(folder, this.#dir);
    this.outbox = openOutbox(this.#dir, this.#clock, this.#sizeMaxBytes);
  }

  close(): void {
    for (const copy of this.#copies) removeFolder(copy);
    this.#link?.destroy();
    this.session?.close();
    this.outbox.close();
    removeFolder(this.#dir);
    removeFolder(this.#commandDir);
  }
}

export function copyDatabase(from: string, to: string): void {
  for (const name of ['outbox.db', 'outbox.db-wal'])
    if (existsSync(join(from, name))) copyFileSync(join(from, name), join(to, name));
}

/** What a power cut leaves behind the last fsync: the beginning of a frame, or noise. */
function tearJournal(path: string, random: Random): void {
  if (!existsSync(path)) return;
  const journal = readFileSync(path);
  if (journal.length === 0) return;
  const frameBytes = 24 + 4096;
  const tail = random.chance(0.5)
    ? random.bytes(random.int(1, 2 * frameBytes))
    : journal.subarray(32, 32 + random.int(1, Math.min(frameBytes - 1, journal.length)));
  writeFileSync(path, Buffer.concat([journal, tail]));
}
