import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock } from '@outrider/shared/time';
import { McuLink } from '../src/link.ts';
import type { BytePort } from '../src/port.ts';
import { openSerialPort } from '../src/serial-port.ts';
import { FIRMWARE } from './vector-files.ts';

export const OUTRIDER_MCU = join(FIRMWARE, 'build', 'outrider-mcu');
/** Long enough for a machine that is busy with other tests. [ms] */
export const PATIENCE_MS = 20_000;

interface McuEvent {
  readonly event: 'ready' | 'state' | 'control';
  readonly path?: string;
  readonly state?: string;
  readonly reason?: string;
  readonly motion?: boolean;
  readonly mono_us?: number;
  readonly line?: string;
  readonly ok?: boolean;
  readonly problem?: string;
}

/** A microcontroller has a processor of its own: its stand-in takes precedence on this one, where that is allowed. */
function precede(pid: number | undefined): void {
  // Nice counts only among the processes of one session where the kernel groups them, so it has to be real time.
  if (pid !== undefined) spawnSync('chrt', ['--fifo', '--pid', '10', String(pid)], { stdio: 'ignore' });
}

/** The real firmware program, and what it says on standard output. */
export class McuProcess {
  readonly path: string;
  readonly events: McuEvent[] = [];
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  #changed: () => void = () => {};

  constructor(child: ChildProcess, path: string) {
    this.#child = child;
    this.path = path;
    this.#exited = once(child, 'exit').then(([code]) => code as number | null);
  }

  static async start(...options: readonly string[]): Promise<McuProcess> {
    const child = spawn(OUTRIDER_MCU, options, { stdio: ['pipe', 'pipe', 'inherit'] });
    precede(child.pid);
    const lines = createInterface({ input: child.stdout });
    const [first] = (await once(lines, 'line')) as [string];
    const ready = JSON.parse(first) as McuEvent;
    const mcu = new McuProcess(child, ready.path ?? '');
    lines.on('line', (line) => {
      mcu.events.push(JSON.parse(line) as McuEvent);
      mcu.#changed();
    });
    return mcu;
  }

  /** Resolves with the first event, from now or before, that the test accepts. */
  async event(accept: (event: McuEvent) => boolean): Promise<McuEvent> {
    for (;;) {
      const found = this.events.find(accept);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }

  /** Gives a control line and waits until it is done. */
  async control(line: string): Promise<McuEvent> {
    const before = this.events.length;
    this.#child.stdin?.write(`${line}\n`);
    return await this.event((event) => event.event === 'control' && this.events.indexOf(event) >= before);
  }

  closeInput(): void {
    this.#child.stdin?.end();
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** @returns The exit code. */
  async end(): Promise<number | null> {
    if (this.#child.exitCode === null) this.#child.kill('SIGTERM');
    return await this.#exited;
  }
}

/** A host as the guard is one: a link and a heartbeat every 20 ms. */
export class Host {
  readonly link: McuLink;
  gateOpen = false;
  motionEpoch = 0;
  isBeating = true;
  readonly #timer: NodeJS.Timeout;

  constructor(port: BytePort, options: { helloTimeoutMs?: number; baud?: number } = {}) {
    this.link = new McuLink({ port, clock: systemClock, helloTimeoutMs: PATIENCE_MS, ...options });
    this.#timer = setInterval(() => {
      if (this.isBeating) this.link.sendHeartbeat({ gateOpen: this.gateOpen, motionEpoch: this.motionEpoch });
    }, 20);
  }

  static async open(path: string, baud = 3_000_000): Promise<Host> {
    const host = new Host(await openWhenFree(path, baud), { baud });
    await host.link.connect();
    return host;
  }

  /** Opens the gate for an epoch and arms. */
  async armAt(motionEpoch: number): Promise<void> {
    await this.nextEcho((echo) => echo.fresh);
    this.motionEpoch = motionEpoch;
    this.gateOpen = true;
    const outcome = await this.link.arm({ motionEpoch });
    if (outcome.kind !== 'accepted') throw new Error(`not armed: ${JSON.stringify(outcome)}`);
  }

  async nextEcho(accept: (echo: { state: string; fresh: boolean }) => boolean): Promise<void> {
    await new Promise<void>((resolve) => {
      const remove = this.link.onEcho((echo) => {
        if (!accept(echo)) return;
        remove();
        resolve();
      });
    });
  }

  close(): void {
    clearInterval(this.#timer);
    this.link.close();
  }
}

/** A host that was closed a moment ago holds the line until its last read has ended on another thread. */
async function openWhenFree(path: string, baud: number): Promise<BytePort> {
  const endMs = systemClock.monotonicMs() + PATIENCE_MS;
  for (;;) {
    try {
      return await openSerialPort({ path, baud });
    } catch (error) {
      if (!/is taken/.test(String(error)) || systemClock.monotonicMs() > endMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}
